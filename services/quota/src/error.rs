//! Why quota refuses. A denial is an answer and not here.

use octroi_core::{ErrorKind, FieldViolation, MetricSlug, RequestId, ServiceError, Violations};
use octroi_kit::{db::DatabaseError, directory::DirectoryError, status::Upstream};
use octroi_proto::errors::v1::ErrorReason;

use crate::counters::CountersError;

/// Why quota refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks rules.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The account cannot be used.
    #[error(transparent)]
    Account(#[from] DirectoryError),
    /// Another service refused or does not answer.
    #[error(transparent)]
    Upstream(#[from] Upstream),
    /// The counters cannot be reached, and the limits' policy is to refuse.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// The catalog has no such metric.
    #[error("there is no metric {metric}")]
    MetricNotFound {
        /// What was named.
        metric: MetricSlug,
        /// Where.
        field: String,
    },
    /// No catalog was applied yet.
    #[error("no catalog was applied yet")]
    NoCatalog,
    /// The same request id came before with another content.
    #[error("the request id {request_id} came before with another content")]
    RequestIdReused {
        /// The id.
        request_id: RequestId,
    },
    /// A newer version was applied before.
    #[error("version {given} is older than {current}")]
    VersionStale {
        /// What was given.
        given: u64,
        /// What is in force.
        current: u64,
    },
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(inner) => inner.kind(),
            Self::Database(inner) => inner.kind(),
            Self::Account(inner) => inner.kind(),
            Self::Upstream(inner) => inner.kind(),
            Self::Counters(_) | Self::NoCatalog => ErrorKind::Unavailable,
            Self::MetricNotFound { .. } => ErrorKind::NotFound,
            Self::RequestIdReused { .. } => ErrorKind::AlreadyExists,
            Self::VersionStale { .. } => ErrorKind::Conflict,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(inner) => inner.reason(),
            Self::Database(inner) => inner.reason(),
            Self::Account(inner) => inner.reason(),
            Self::Upstream(inner) => inner.reason(),
            Self::Counters(_) => ErrorReason::CountersUnreachable.name(),
            Self::MetricNotFound { .. } => ErrorReason::MetricNotFound.name(),
            Self::NoCatalog => ErrorReason::NotReady.name(),
            Self::RequestIdReused { .. } => ErrorReason::RequestIdReused.name(),
            Self::VersionStale { .. } => ErrorReason::VersionStale.name(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Invalid(inner) => inner.metadata(),
            Self::Database(inner) => inner.metadata(),
            Self::Account(inner) => inner.metadata(),
            Self::Upstream(inner) => inner.metadata(),
            Self::Counters(_) | Self::NoCatalog => Vec::new(),
            Self::MetricNotFound { metric, .. } => vec![("metric", metric.to_string())],
            Self::RequestIdReused { request_id } => vec![("request_id", request_id.to_string())],
            Self::VersionStale { given, current } => {
                vec![("given", given.to_string()), ("current", current.to_string())]
            }
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Invalid(inner) => inner.violations(),
            Self::Upstream(inner) => inner.violations(),
            Self::MetricNotFound { field, .. } => {
                vec![FieldViolation::new(
                    field.clone(),
                    "must name a metric of the catalog",
                )]
            }
            Self::Account(DirectoryError::NotFound(_)) => {
                vec![FieldViolation::new("account_id", "must name an account")]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        (self.kind() == ErrorKind::Unavailable).then_some(1)
    }
}
