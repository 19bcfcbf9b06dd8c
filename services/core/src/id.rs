//! Typed ids. Each is checked where it enters, so whoever holds one holds a good one.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A text that is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {length_min} to {length_max} characters of {alphabet}")]
pub struct InvalidId {
    /// The fewest characters.
    pub length_min: usize,
    /// The most characters.
    pub length_max: usize,
    /// The characters that are allowed.
    pub alphabet: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:literal, $alphabet:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most characters of such an id.
            pub const LENGTH_MAX: usize = $max;

            /// Whether `text` is such an id.
            #[must_use]
            pub fn is_valid(text: &str) -> bool {
                let allowed: fn(u8) -> bool = $allowed;
                !text.is_empty() && text.len() <= Self::LENGTH_MAX && text.bytes().all(allowed)
            }

            /// Checks `text` and makes the id.
            ///
            /// # Errors
            /// [`InvalidId`] where a character or the length is not allowed.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if !Self::is_valid(text) {
                    return Err(InvalidId { length_min: 1, length_max: Self::LENGTH_MAX, alphabet: $alphabet });
                }
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

fn is_slug(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
}

text_id!(
    /// An account: who consumes and pays.
    AccountId, 128, "[A-Za-z0-9_.:-]", is_name
);
text_id!(
    /// Makes a change repeatable; unique per account and calling service.
    RequestId, 128, "[A-Za-z0-9_.:-]", is_name
);
text_id!(
    /// What is counted, such as `api.requests`.
    MetricSlug, 64, "[a-z0-9_.-]", is_slug
);
text_id!(
    /// A versioned offer.
    PlanSlug, 64, "[a-z0-9_.-]", is_slug
);
text_id!(
    /// A boolean that a plan turns on, such as `premium.templates`.
    FeatureSlug, 64, "[a-z0-9_.-]", is_slug
);
text_id!(
    /// The name of a property of usage events, such as `region`.
    PropertyKey, 64, "[A-Za-z0-9_.-]", |byte| is_name(byte) && byte != b':'
);
text_id!(
    /// The id of a usage event within its source.
    EventId, 200, "printable ASCII", |byte| (b' '..=b'~').contains(&byte)
);
text_id!(
    /// Who says that something was used.
    Source, 128, "[A-Za-z0-9_.:/-]", |byte| is_name(byte) || byte == b'/'
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_accept_their_alphabet_and_length_only() {
        let long = "a".repeat(128);
        let too_long = "a".repeat(129);
        for (text, ok) in [
            ("acme", true),
            ("Org_1.eu:west-2", true),
            (long.as_str(), true),
            ("", false),
            (too_long.as_str(), false),
            ("with space", false),
            ("slash/ed", false),
            ("café", false),
            ("nul\0", false),
        ] {
            assert_eq!(AccountId::parse(text).is_ok(), ok, "{text:?}");
        }
        assert!(MetricSlug::parse("llm.tokens_in").is_ok());
        assert!(MetricSlug::parse("Llm").is_err());
        assert!(EventId::parse("order 1/line 2").is_ok());
        assert!(EventId::parse("tab\t").is_err());
        assert!(Source::parse("//billing.example/import").is_ok());
    }
}
