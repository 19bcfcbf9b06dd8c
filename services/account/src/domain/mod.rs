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

/// An enum whose values have names in the database, read both ways.
macro_rules! named {
    ($type:ident { $($value:ident => $name:literal),* $(,)? }) => {
        impl $type {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$value),*];

            /// Its name, as the database writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }

            /// The value of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name)
            }
        }
    };
}
pub(crate) use named;

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
