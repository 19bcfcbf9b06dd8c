//! Keys with which programs call.

use jiff::Timestamp;
use octroi_core::{AccountId, named};

use super::id::KeyId;

/// What every secret begins with, so that scanners recognise a leaked one.
pub const SECRET_PREFIX: &str = "oct_live_";
/// Random letters and digits of a secret: 43 of 62 are 256 bits.
pub const SECRET_RANDOM_CHARACTERS: usize = 43;
/// The characters of a secret that are kept to tell keys apart: the beginning of each and three more.
pub const SHOWN_CHARACTERS: usize = 12;
/// The most characters of a label.
pub const LABEL_CHARACTERS_MAX: usize = 100;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Ask whether something is allowed, and take it.
    QuotaCheck,
    /// Record use.
    UsageWrite,
    /// Read use.
    UsageRead,
}

named!(Scope { QuotaCheck => "quota.check", UsageWrite => "usage.write", UsageRead => "usage.read" });

/// Scopes that are not a key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be at least one of quota.check, usage.write, usage.read, each at most once")]
pub struct InvalidScopes;

/// The scopes of these names, in their own order.
///
/// # Errors
/// [`InvalidScopes`] where there is none, an unknown one, or one twice.
pub fn scopes<T: AsRef<str>>(names: &[T]) -> Result<Vec<Scope>, InvalidScopes> {
    if names.is_empty() || names.len() > Scope::ALL.len() {
        return Err(InvalidScopes);
    }
    let mut scopes = Vec::with_capacity(names.len());
    for name in names {
        let scope = Scope::from_name(name.as_ref()).ok_or(InvalidScopes)?;
        if scopes.contains(&scope) {
            return Err(InvalidScopes);
        }
        scopes.push(scope);
    }
    scopes.sort_unstable();
    Ok(scopes)
}

/// Whether `text` could be a secret of ours; most guesses could not.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    text.strip_prefix(SECRET_PREFIX).is_some_and(|random| {
        random.len() == SECRET_RANDOM_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// What is kept of a secret for people to tell keys apart.
#[must_use]
pub fn shown_prefix(secret: &str) -> String {
    secret.chars().take(SHOWN_CHARACTERS).collect()
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub key_id: KeyId,
    /// The account.
    pub account_id: AccountId,
    /// What people call it.
    pub label: String,
    /// The first characters of the secret.
    pub prefix: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Where a list of keys, newest first, goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When the last key seen was made.
    pub created_at: Timestamp,
    /// The last key seen.
    pub key_id: KeyId,
}

impl Cursor {
    /// After this key.
    #[must_use]
    pub fn after(key: &ApiKey) -> Self {
        Self {
            created_at: key.created_at,
            key_id: key.key_id.clone(),
        }
    }

    /// As a page token carries it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {}", self.created_at.as_microsecond(), self.key_id)
    }

    /// What [`Cursor::to_text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (created_us, key_id) = text.split_once(' ')?;
        let created_at = Timestamp::from_microsecond(created_us.parse().ok()?).ok()?;
        Some(Self {
            created_at,
            key_id: KeyId::parse(key_id)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_a_closed_list_without_repeats() {
        let check = |names: &[&str], expected: Result<Vec<Scope>, InvalidScopes>| {
            assert_eq!(scopes(names), expected, "{names:?}");
        };
        check(
            &["usage.read", "quota.check"],
            Ok(vec![Scope::QuotaCheck, Scope::UsageRead]),
        );
        check(&["usage.write"], Ok(vec![Scope::UsageWrite]));
        check(&[], Err(InvalidScopes));
        check(&["usage.read", "usage.read"], Err(InvalidScopes));
        check(&["USAGE.READ"], Err(InvalidScopes));
        check(&["admin"], Err(InvalidScopes));
        check(
            &["quota.check", "usage.read", "usage.write", "admin"],
            Err(InvalidScopes),
        );
    }

    #[test]
    fn a_secret_has_a_known_shape_and_shows_twelve_characters() {
        let secret = format!("{SECRET_PREFIX}{}", "aZ9".repeat(14) + "x");
        assert!(is_secret(&secret));
        assert_eq!(shown_prefix(&secret), "oct_live_aZ9");
        for text in [
            "",
            "oct_live_",
            "oct_live_short",
            &secret.replace("live", "test"),
            &format!("{secret}0"),
        ] {
            assert!(!is_secret(text), "{text:?}");
        }
        assert!(!is_secret(&secret.replace('x', "é")));
        assert!(!is_secret(&secret.replace('x', "-")));
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(us in -1_000_000_000_000i64..4_000_000_000_000_000, id: u128) {
            let cursor = Cursor {
                created_at: Timestamp::from_microsecond(us).expect("an instant"),
                key_id: KeyId::from_uuid(uuid::Uuid::from_u128(id)),
            };
            prop_assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        }

        #[test]
        fn no_text_makes_reading_a_cursor_fail_loudly(text in ".{0,60}") {
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
            }
        }
    }
}
