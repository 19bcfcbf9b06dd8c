//! What can go wrong, and what it means to the caller.

use octroi_core::{ErrorKind, FieldViolation, ServiceError, Violations};
use octroi_kit::{db::DatabaseError, directory::DirectoryError, page::InvalidPageToken};
use octroi_proto::errors::v1::ErrorReason;
use uuid::Uuid;

use crate::templates::RenderError;

/// Every way in which a use case ends badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request, or an event, breaks rules.
    #[error(transparent)]
    Violations(#[from] Violations),
    /// The page token is not ours.
    #[error(transparent)]
    PageToken(#[from] InvalidPageToken),
    /// The account cannot be found out about.
    #[error(transparent)]
    Account(#[from] DirectoryError),
    /// The account has no such notice.
    #[error("there is no notice {0}")]
    NoticeNotFound(Uuid),
    /// A text cannot be made.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Violations(error) => error.kind(),
            Self::PageToken(error) => error.kind(),
            Self::Account(error) => error.kind(),
            Self::NoticeNotFound(_) => ErrorKind::NotFound,
            Self::Render(_) => ErrorKind::Internal,
            Self::Database(error) => error.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Violations(error) => error.reason(),
            Self::PageToken(error) => error.reason(),
            Self::Account(error) => error.reason(),
            Self::NoticeNotFound(_) => ErrorReason::NoticeNotFound.name(),
            Self::Render(_) => ErrorReason::Internal.name(),
            Self::Database(error) => error.reason(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Violations(error) => error.metadata(),
            Self::PageToken(error) => error.metadata(),
            Self::Account(error) => error.metadata(),
            Self::NoticeNotFound(id) => vec![("notice_id", id.to_string())],
            Self::Render(_) => Vec::new(),
            Self::Database(error) => error.metadata(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Violations(error) => error.violations(),
            Self::PageToken(error) => error.violations(),
            Self::Account(_) | Self::NoticeNotFound(_) | Self::Render(_) | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Database(error) => error.retry_after_s(),
            Self::Violations(_)
            | Self::PageToken(_)
            | Self::Account(_)
            | Self::NoticeNotFound(_)
            | Self::Render(_) => None,
        }
    }
}
