//! The rules of accounts, members, passwords, sessions and keys: pure and synchronous.

pub mod account;
pub mod api_key;
pub mod audit;
pub mod email;
pub mod id;
pub mod member;
pub mod password;
pub mod session;
pub mod throttle;

/// A text that people read and that is not of the wanted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {characters_max} characters without control characters")]
pub struct InvalidName {
    /// The most characters.
    pub characters_max: usize,
}

/// A name that people read, without the blanks around it.
///
/// # Errors
/// [`InvalidName`] where nothing is left, too much is, or it holds control characters.
pub fn name(text: &str, characters_max: usize) -> Result<String, InvalidName> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 || length > characters_max || text.chars().any(char::is_control) {
        return Err(InvalidName { characters_max });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_bounded_in_characters() {
        for (text, expected) in [
            ("Atelier Nord", Some("Atelier Nord")),
            ("  Atelier \n", Some("Atelier")),
            ("ééééé", Some("ééééé")),
            ("éééééé", None),
            ("", None),
            (" \t ", None),
            ("a\0b", None),
            ("a\u{9b}b", None),
        ] {
            let characters_max = if text.starts_with('é') { 5 } else { 200 };
            assert_eq!(name(text, characters_max).ok().as_deref(), expected, "{text:?}");
        }
    }
}
