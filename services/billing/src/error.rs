//! What can go wrong in billing, and what it means to the caller.

use octroi_core::{AccountId, ErrorKind, FieldViolation, PlanSlug, RequestId, ServiceError, Violations};
use octroi_kit::{db::DatabaseError, directory::DirectoryError, status::Upstream};
use octroi_proto::errors::v1::ErrorReason;

use crate::payments::PaymentsError;

/// What can go wrong in billing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// The catalog breaks a rule; nothing of it was applied.
    #[error("the catalog breaks a rule: {0}")]
    CatalogInvalid(Violations),
    /// The catalog was applied, and a service has not taken it yet.
    #[error(
        "the catalog is applied as version {version}, but {service} has not taken it yet; it is sent again until it does"
    )]
    CatalogNotPushed {
        /// The catalog's version.
        version: u64,
        /// The service that has not taken it.
        service: &'static str,
        /// What it answered.
        #[source]
        cause: Box<Upstream>,
    },
    /// The catalog in force offers no such plan.
    #[error("there is no plan {0}")]
    PlanNotFound(PlanSlug),
    /// The account has no subscription.
    #[error("the account {0} has no subscription")]
    SubscriptionNotFound(AccountId),
    /// The account has a subscription already.
    #[error("the account {0} has a subscription already")]
    SubscriptionExists(AccountId),
    /// The request id came before with another content.
    #[error("the request id {0} was used before with another content")]
    RequestIdReused(RequestId),
    /// The account cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The payment provider refused or does not answer.
    #[error(transparent)]
    Payments(#[from] PaymentsError),
    /// Another service refused or does not answer.
    #[error(transparent)]
    Upstream(#[from] Upstream),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(violations) => violations.kind(),
            Self::CatalogInvalid(_) => ErrorKind::Invalid,
            Self::CatalogNotPushed { .. } => ErrorKind::Unavailable,
            Self::PlanNotFound(_) | Self::SubscriptionNotFound(_) => ErrorKind::NotFound,
            Self::SubscriptionExists(_) | Self::RequestIdReused(_) => ErrorKind::AlreadyExists,
            Self::Directory(error) => error.kind(),
            Self::Payments(error) => error.kind(),
            Self::Upstream(error) => error.kind(),
            Self::Database(error) => error.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(violations) => violations.reason(),
            Self::CatalogInvalid(_) => ErrorReason::CatalogInvalid.name(),
            Self::CatalogNotPushed { .. } => ErrorReason::DependencyUnavailable.name(),
            Self::PlanNotFound(_) => ErrorReason::PlanNotFound.name(),
            Self::SubscriptionNotFound(_) => ErrorReason::SubscriptionNotFound.name(),
            Self::SubscriptionExists(_) => ErrorReason::SubscriptionExists.name(),
            Self::RequestIdReused(_) => ErrorReason::RequestIdReused.name(),
            Self::Directory(error) => error.reason(),
            Self::Payments(error) => error.reason(),
            Self::Upstream(error) => error.reason(),
            Self::Database(error) => error.reason(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Invalid(violations) | Self::CatalogInvalid(violations) => violations.metadata(),
            Self::CatalogNotPushed { version, service, .. } => {
                vec![
                    ("version", version.to_string()),
                    ("service", (*service).to_owned()),
                ]
            }
            Self::PlanNotFound(plan) => vec![("plan", plan.to_string())],
            Self::SubscriptionNotFound(account) | Self::SubscriptionExists(account) => {
                vec![("account_id", account.to_string())]
            }
            Self::RequestIdReused(request_id) => vec![("request_id", request_id.to_string())],
            Self::Directory(error) => error.metadata(),
            Self::Payments(error) => error.metadata(),
            Self::Upstream(error) => error.metadata(),
            Self::Database(error) => error.metadata(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Invalid(violations) | Self::CatalogInvalid(violations) => violations.violations(),
            Self::Upstream(error) => error.violations(),
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::CatalogNotPushed { .. } => Some(1),
            Self::Payments(error) => error.retry_after_s(),
            Self::Database(error) => error.retry_after_s(),
            _ => None,
        }
    }
}
