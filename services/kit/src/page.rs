//! Pages of lists: sizes, and tokens that only the service that made them can read.

use hmac::{Hmac, KeyInit as _, Mac as _};
use octroi_core::Violations;
use sha2::Sha256;

/// The most rows of one page.
pub const PAGE_SIZE_MAX: i32 = 100;
/// The rows of a page where nobody said.
pub const PAGE_SIZE_DEFAULT: i32 = 50;

/// Signs and reads page tokens. A token is bound to a list and an account, so that it opens nothing else.
#[derive(Clone)]
pub struct PageTokens {
    key: [u8; 32],
}

impl std::fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageTokens")
    }
}

impl PageTokens {
    /// Tokens signed with a key derived from `secret`; every replica needs the same one.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self {
            key: mac(secret, &[b"octroi page tokens v1"]),
        }
    }

    /// A token that says to go on after `cursor`.
    #[must_use]
    pub fn make(&self, list: &str, account: &str, cursor: &str) -> String {
        let tag = self.tag(list, account, cursor);
        format!("{}.{}", hex::encode(cursor), hex::encode(&tag[..16]))
    }

    /// The cursor that a token holds; none for an empty token, which is the first page.
    ///
    /// # Errors
    /// [`InvalidPageToken`] where this list of this account did not make it.
    pub fn read(&self, list: &str, account: &str, token: &str) -> Result<Option<String>, InvalidPageToken> {
        if token.is_empty() {
            return Ok(None);
        }
        let (cursor, tag) = token.split_once('.').ok_or(InvalidPageToken)?;
        let cursor = String::from_utf8(hex::decode(cursor).map_err(|_| InvalidPageToken)?)
            .map_err(|_| InvalidPageToken)?;
        let tag = hex::decode(tag).map_err(|_| InvalidPageToken)?;
        let mut expected: Hmac<Sha256> = keyed(&self.key);
        for part in parts(list, account, &cursor) {
            expected.update(part);
        }
        expected
            .verify_truncated_left(&tag)
            .map_err(|_| InvalidPageToken)?;
        if tag.len() != 16 {
            return Err(InvalidPageToken);
        }
        Ok(Some(cursor))
    }

    fn tag(&self, list: &str, account: &str, cursor: &str) -> [u8; 32] {
        mac(&self.key, &parts(list, account, cursor))
    }
}

/// A token that this list of this account did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page token was not made by this list for this account")]
pub struct InvalidPageToken;

impl octroi_core::ServiceError for InvalidPageToken {
    fn kind(&self) -> octroi_core::ErrorKind {
        octroi_core::ErrorKind::Invalid
    }

    fn reason(&self) -> &'static str {
        octroi_proto::errors::v1::ErrorReason::PageTokenInvalid.name()
    }

    fn violations(&self) -> Vec<octroi_core::FieldViolation> {
        vec![octroi_core::FieldViolation::new(
            "page_token",
            "must come from the page before",
        )]
    }
}

fn parts<'a>(list: &'a str, account: &'a str, cursor: &'a str) -> [&'a [u8]; 5] {
    [list.as_bytes(), &[0], account.as_bytes(), &[0], cursor.as_bytes()]
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The rows of a page: 0 means the default, more than the most is the most.
pub fn page_size(asked: i32, violations: &mut Violations) -> i64 {
    if asked < 0 {
        violations.add("page_size", "must be 0 to 100");
    }
    let size = if asked == 0 {
        PAGE_SIZE_DEFAULT
    } else {
        asked.min(PAGE_SIZE_MAX)
    };
    size.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_its_own_list_and_account() {
        let tokens = PageTokens::new(b"a secret");
        let token = tokens.make("notices", "acme", "0199-42");
        assert_eq!(
            tokens.read("notices", "acme", &token),
            Ok(Some("0199-42".to_owned()))
        );
        assert_eq!(tokens.read("notices", "acme", ""), Ok(None));
        for (list, account) in [("notices", "other"), ("emails", "acme")] {
            assert_eq!(tokens.read(list, account, &token), Err(InvalidPageToken));
        }
        for forged in ["x", "7a.7a", &token[..token.len() - 2], &format!("{token}00")] {
            assert_eq!(
                tokens.read("notices", "acme", forged),
                Err(InvalidPageToken),
                "{forged}"
            );
        }
        assert_eq!(
            PageTokens::new(b"another").read("notices", "acme", &token),
            Err(InvalidPageToken)
        );
    }
}
