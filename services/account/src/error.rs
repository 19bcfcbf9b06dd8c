//! What this service refuses, and why.

use octroi_core::{AccountId, ErrorKind, FieldViolation, ServiceError, Violations};
use octroi_kit::{db::DatabaseError, page::InvalidPageToken};
use octroi_proto::errors::v1::ErrorReason;

use crate::domain::{id::KeyId, throttle::TooEarly};

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields break rules.
    #[error(transparent)]
    Fields(#[from] Violations),
    /// A page token came from elsewhere.
    #[error(transparent)]
    PageToken(#[from] InvalidPageToken),
    /// The database did not do what it was asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no account of this id.
    #[error("there is no account {0}")]
    AccountNotFound(AccountId),
    /// The account was closed.
    #[error("the account {0} was closed")]
    AccountClosed(AccountId),
    /// The address belongs to a member already.
    #[error("the e-mail address belongs to a member already")]
    EmailTaken,
    /// Wrong address or wrong password; which of them is not told.
    #[error("the e-mail address and the password do not match")]
    CredentialsInvalid,
    /// Too many tries to sign in or up.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
    /// More passwords wait to be hashed than the process holds.
    #[error("too many passwords wait to be checked")]
    Overloaded,
    /// No session, or one that has ended.
    #[error("there is no session, or it has ended")]
    SessionExpired,
    /// The member may not manage keys.
    #[error("only an owner may manage API keys")]
    RoleRequired,
    /// The account has no key of this id.
    #[error("the account has no such API key")]
    ApiKeyNotFound(Option<KeyId>),
    /// The secret is no key's, or the key or its account has ended.
    #[error("the API key is unknown or was revoked")]
    ApiKeyInvalid,
    /// A password could not be hashed.
    #[error("a password could not be hashed: {0}")]
    Hashing(argon2::password_hash::Error),
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Fields(error) => error.kind(),
            Self::PageToken(error) => error.kind(),
            Self::Database(error) => error.kind(),
            Self::AccountNotFound(_) | Self::ApiKeyNotFound(_) => ErrorKind::NotFound,
            Self::AccountClosed(_) => ErrorKind::Precondition,
            Self::EmailTaken => ErrorKind::AlreadyExists,
            Self::CredentialsInvalid | Self::SessionExpired | Self::ApiKeyInvalid => {
                ErrorKind::Unauthenticated
            }
            Self::TooEarly(_) | Self::Overloaded => ErrorKind::OverLimit,
            Self::RoleRequired => ErrorKind::Forbidden,
            Self::Hashing(_) => ErrorKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        let reason = match self {
            Self::Fields(error) => return error.reason(),
            Self::PageToken(error) => return error.reason(),
            Self::Database(error) => return error.reason(),
            Self::AccountNotFound(_) => ErrorReason::AccountNotFound,
            Self::AccountClosed(_) => ErrorReason::AccountClosed,
            Self::EmailTaken => ErrorReason::EmailTaken,
            Self::CredentialsInvalid => ErrorReason::CredentialsInvalid,
            Self::TooEarly(_) => ErrorReason::RateLimited,
            Self::Overloaded => ErrorReason::Overloaded,
            Self::SessionExpired => ErrorReason::SessionExpired,
            Self::RoleRequired => ErrorReason::RoleRequired,
            Self::ApiKeyNotFound(_) => ErrorReason::ApiKeyNotFound,
            Self::ApiKeyInvalid => ErrorReason::ApiKeyInvalid,
            Self::Hashing(_) => ErrorReason::Internal,
        };
        reason.name()
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Fields(error) => error.metadata(),
            Self::AccountNotFound(account) | Self::AccountClosed(account) => {
                vec![("account_id", account.to_string())]
            }
            Self::ApiKeyNotFound(Some(key)) => vec![("key_id", key.to_string())],
            Self::PageToken(_)
            | Self::Database(_)
            | Self::EmailTaken
            | Self::CredentialsInvalid
            | Self::TooEarly(_)
            | Self::Overloaded
            | Self::SessionExpired
            | Self::RoleRequired
            | Self::ApiKeyNotFound(None)
            | Self::ApiKeyInvalid
            | Self::Hashing(_) => Vec::new(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Fields(error) => error.violations(),
            Self::PageToken(error) => error.violations(),
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Database(error) => error.retry_after_s(),
            Self::TooEarly(error) => Some(error.retry_after_s),
            Self::Overloaded => Some(1),
            _ => None,
        }
    }
}

/// One field that breaks one rule.
pub(crate) fn field(field: &str, rule: impl std::fmt::Display) -> Error {
    let mut violations = Violations::default();
    violations.add(field, rule.to_string());
    violations.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_closed_list_and_too_early_says_when() {
        let account = AccountId::parse("acme").expect("an id");
        for (error, kind, reason) in [
            (
                Error::AccountNotFound(account.clone()),
                ErrorKind::NotFound,
                "ACCOUNT_NOT_FOUND",
            ),
            (
                Error::AccountClosed(account),
                ErrorKind::Precondition,
                "ACCOUNT_CLOSED",
            ),
            (Error::EmailTaken, ErrorKind::AlreadyExists, "EMAIL_TAKEN"),
            (
                Error::CredentialsInvalid,
                ErrorKind::Unauthenticated,
                "CREDENTIALS_INVALID",
            ),
            (
                Error::TooEarly(TooEarly { retry_after_s: 7 }),
                ErrorKind::OverLimit,
                "RATE_LIMITED",
            ),
            (Error::Overloaded, ErrorKind::OverLimit, "OVERLOADED"),
            (
                Error::SessionExpired,
                ErrorKind::Unauthenticated,
                "SESSION_EXPIRED",
            ),
            (Error::RoleRequired, ErrorKind::Forbidden, "ROLE_REQUIRED"),
            (
                Error::ApiKeyNotFound(None),
                ErrorKind::NotFound,
                "API_KEY_NOT_FOUND",
            ),
            (
                Error::ApiKeyInvalid,
                ErrorKind::Unauthenticated,
                "API_KEY_INVALID",
            ),
            (field("email", "must be"), ErrorKind::Invalid, "FIELD_INVALID"),
        ] {
            assert_eq!((error.kind(), error.reason()), (kind, reason));
            assert!(ErrorReason::from_name(error.reason()).is_some());
        }
        assert_eq!(
            Error::TooEarly(TooEarly { retry_after_s: 7 }).retry_after_s(),
            Some(7)
        );
    }
}
