//! Why quota refuses. A denial is an answer and not here.

use octroi_core::{
    AccountId, ErrorKind, FieldViolation, MetricSlug, Period, RequestId, ServiceError, Violations,
    event_time::EVENT_TIME_RULE,
};
use octroi_kit::{db::DatabaseError, directory::DirectoryError, gather::Unanswered, status::Upstream};
use octroi_proto::errors::v1::ErrorReason;

use crate::domain::holding::Revision;

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
    /// The limits cannot be reached, and their policy is to refuse.
    #[error("the limits cannot be reached")]
    CountersUnreachable(#[source] DatabaseError),
    /// The account has no such limit.
    #[error("the account has no limit of {metric} a {}", .period.as_str())]
    LimitNotFound {
        /// The metric.
        metric: MetricSlug,
        /// The period.
        period: Period,
    },
    /// The use happened outside of what is recorded.
    #[error("event_time {EVENT_TIME_RULE}")]
    EventTimeOutOfRange,
    /// There is no such hold for this account.
    #[error("there is no such hold for this account")]
    HoldNotFound,
    /// The hold ended in another way.
    #[error("the hold was {state}")]
    HoldEnded {
        /// How it ended.
        state: &'static str,
    },
    /// The account has as many open holds as it may have.
    #[error("the account has {max} open holds, and may have no more")]
    TooManyHolds {
        /// The most.
        max: u64,
    },
    /// More of a LEVEL metric would be given back than is held.
    #[error("more would be given back than the account holds")]
    LevelBelowZero {
        /// The place of the item that asks for it; none where that was told before.
        place: Option<usize>,
    },
    /// A sum leaves what can be counted.
    #[error("the use would be more than 2^53 - 1")]
    AmountOutOfRange {
        /// The place of the item whose sum that is.
        place: usize,
    },
    /// The catalog has no such metric.
    #[error("there is no metric {metric}")]
    MetricNotFound {
        /// What was named.
        metric: MetricSlug,
        /// Where.
        field: String,
    },
    /// What was read of an account's limits before something of it was written down does not hold any more.
    #[error("the limits of the account have changed meanwhile")]
    LimitsChanged {
        /// The account.
        account: AccountId,
        /// Which state they have by now.
        revision: Revision,
    },
    /// A correction came before what it corrects.
    #[error("what is corrected was not followed itself yet")]
    NotFollowedYet,
    /// No catalog was applied yet.
    #[error("no catalog was applied yet")]
    NoCatalog,
    /// The decision is not known any more, or there never was one of this id for the account.
    #[error("the decision is not remembered, or there never was one of this id for the account")]
    DecisionExpired,
    /// The same request id came before with another content.
    #[error("the request id {request_id} came before with another content")]
    RequestIdReused {
        /// The id.
        request_id: RequestId,
    },
    /// Too many wait for the same, or take whatever there is before this request has its turn; trying again may help.
    #[error("too many requests ask for the same at once")]
    Overloaded,
    /// A newer version was applied before.
    #[error("version {given} is older than {current}")]
    VersionStale {
        /// What was given.
        given: u64,
        /// What is in force.
        current: u64,
    },
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Full => Self::Overloaded,
            Unanswered::Lost => Self::Database(DatabaseError::Aborted),
        }
    }
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(inner) => inner.kind(),
            Self::AmountOutOfRange { .. } | Self::EventTimeOutOfRange => ErrorKind::Invalid,
            Self::Database(inner) => inner.kind(),
            Self::Account(inner) => inner.kind(),
            Self::Upstream(inner) => inner.kind(),
            Self::CountersUnreachable(_)
            | Self::LimitsChanged { .. }
            | Self::NotFollowedYet
            | Self::NoCatalog => ErrorKind::Unavailable,
            Self::MetricNotFound { .. }
            | Self::LimitNotFound { .. }
            | Self::HoldNotFound
            | Self::DecisionExpired => ErrorKind::NotFound,
            Self::HoldEnded { .. } | Self::LevelBelowZero { .. } => ErrorKind::Precondition,
            Self::TooManyHolds { .. } | Self::Overloaded => ErrorKind::OverLimit,
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
            Self::CountersUnreachable(_) => ErrorReason::CountersUnreachable.name(),
            Self::EventTimeOutOfRange => ErrorReason::EventTimeOutOfRange.name(),
            Self::LimitNotFound { .. } => ErrorReason::LimitNotFound.name(),
            Self::HoldNotFound => ErrorReason::HoldNotFound.name(),
            Self::DecisionExpired => ErrorReason::DecisionExpired.name(),
            Self::HoldEnded { .. } => ErrorReason::HoldEnded.name(),
            Self::TooManyHolds { .. } => ErrorReason::TooManyHolds.name(),
            Self::LevelBelowZero { .. } => ErrorReason::LevelBelowZero.name(),
            Self::AmountOutOfRange { .. } => ErrorReason::AmountOutOfRange.name(),
            Self::MetricNotFound { .. } => ErrorReason::MetricNotFound.name(),
            Self::LimitsChanged { .. } | Self::NotFollowedYet | Self::NoCatalog => {
                ErrorReason::NotReady.name()
            }
            Self::Overloaded => ErrorReason::Overloaded.name(),
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
            Self::CountersUnreachable(_)
            | Self::LimitsChanged { .. }
            | Self::NotFollowedYet
            | Self::NoCatalog
            | Self::EventTimeOutOfRange
            | Self::HoldNotFound
            | Self::DecisionExpired
            | Self::Overloaded
            | Self::LevelBelowZero { .. } => Vec::new(),
            Self::LimitNotFound { metric, period } => {
                vec![
                    ("metric", metric.to_string()),
                    ("period", period.as_str().to_owned()),
                ]
            }
            Self::AmountOutOfRange { place } => vec![("amount", format!("items[{place}].amount"))],
            Self::HoldEnded { state } => vec![("state", (*state).to_owned())],
            Self::TooManyHolds { max } => vec![("max", max.to_string())],
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
            Self::EventTimeOutOfRange => vec![FieldViolation::new("event_time", EVENT_TIME_RULE)],
            Self::Account(DirectoryError::NotFound(_)) => {
                vec![FieldViolation::new("account_id", "must name an account")]
            }
            Self::LevelBelowZero { place: Some(place) } => {
                vec![FieldViolation::new(
                    format!("items[{place}].amount"),
                    "must not be more than the account holds",
                )]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::OverLimit).then_some(1)
    }
}
