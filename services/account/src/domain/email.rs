//! E-mail addresses: which are accepted, and when two are the same.

/// The most bytes of an address that mail can be sent to (RFC 5321 §4.5.3.1.3, without the brackets).
pub const BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 63;

/// An e-mail address.
///
/// ASCII only, unquoted: the addresses that every mail system delivers. Two addresses are the same where
/// they differ only in case; tags and dots are the business of whoever owns the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    given: String,
    normalized: String,
}

/// A text that is no address we could write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address of at most 254 characters")]
pub struct InvalidEmail;

impl Email {
    /// The address that `text` holds, without the blanks around it.
    ///
    /// # Errors
    /// [`InvalidEmail`].
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let given = text.trim();
        let (local, domain) = given.rsplit_once('@').ok_or(InvalidEmail)?;
        if given.len() > BYTES_MAX || !is_local_part(local) || !is_domain(domain) {
            return Err(InvalidEmail);
        }
        Ok(Self {
            given: given.to_owned(),
            normalized: given.to_ascii_lowercase(),
        })
    }

    /// As it was given.
    #[must_use]
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// As it is compared.
    #[must_use]
    pub fn normalized(&self) -> &str {
        &self.normalized
    }
}

/// Runs of letters, digits and the marks of RFC 5322's `atext`, joined by single dots.
fn is_local_part(local: &str) -> bool {
    let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    local.len() <= LOCAL_BYTES_MAX
        && local
            .split('.')
            .all(|run| !run.is_empty() && run.bytes().all(atext))
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_mail_can_reach_are_accepted_and_lowered() {
        for (text, normalized) in [
            ("lea@ateliernord.fr", "lea@ateliernord.fr"),
            (
                "  Lea.Martin+Octroi@AtelierNord.FR\n",
                "lea.martin+octroi@ateliernord.fr",
            ),
            ("o'brien@x--y.example", "o'brien@x--y.example"),
            ("demo@localhost", "demo@localhost"),
        ] {
            let email = Email::parse(text).expect(text);
            assert_eq!(email.normalized(), normalized);
            assert_eq!(email.as_given(), text.trim());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@x.fr", "a".repeat(65));
        let long_label = format!("a@{}.fr", "b".repeat(64));
        let long = format!("a@{}fr", "abcdefghi.".repeat(26));
        for text in [
            "",
            "@",
            "a@",
            "@b.fr",
            "a b@c.fr",
            "a@b..fr",
            ".a@b.fr",
            "a.@b.fr",
            "a@-b.fr",
            "a@b-.fr",
            "a@b@c.fr",
            "é@b.fr",
            "a@é.fr",
            "\"a\"@b.fr",
            "a\0@b.fr",
            "a@b.fr\r\nBcc: c@d.fr",
            &long_local,
            &long_label,
            &long,
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn case_and_blanks_never_make_another_address(local in "[a-zA-Z0-9_+-]{1,20}", domain in "[a-zA-Z0-9]{1,20}\\.[a-zA-Z]{2,6}") {
            let text = format!("{local}@{domain}");
            let email = Email::parse(&text).expect("an address");
            for variant in [text.to_uppercase(), text.to_lowercase(), format!(" {text}\t")] {
                let variant = Email::parse(&variant).expect("an address");
                prop_assert_eq!(variant.normalized(), email.normalized());
            }
            let again = Email::parse(email.normalized()).expect("an address");
            prop_assert_eq!(again.normalized(), email.normalized());
        }

        #[test]
        fn no_text_is_accepted_with_blanks_or_control_characters_inside(text in ".{0,40}") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert!(email.normalized().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(email.normalized().matches('@').count(), 1);
            }
        }
    }
}
