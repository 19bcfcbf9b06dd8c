//! Why usage refuses.

use octroi_core::{
    AccountId, ErrorKind, FieldViolation, MetricSlug, ServiceError, SliceId, Violations,
    event_time::EVENT_TIME_RULE,
};
use octroi_kit::{db::DatabaseError, directory::DirectoryError, page::InvalidPageToken};
use octroi_proto::errors::v1::ErrorReason;

use crate::domain::report_job::ReportJobState;

/// Why usage refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks rules.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// A page token is not ours.
    #[error(transparent)]
    PageToken(#[from] InvalidPageToken),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The account cannot be used.
    #[error(transparent)]
    Account(#[from] DirectoryError),
    /// The catalog has no such metric.
    #[error("there is no metric {metric}")]
    MetricNotFound {
        /// What was named.
        metric: MetricSlug,
        /// The path of the name.
        field: String,
    },
    /// An event names an account that does not exist.
    #[error("there is no account {account}")]
    AccountNotFound {
        /// What was named.
        account: AccountId,
        /// The path of the name.
        field: String,
    },
    /// The ledger has no such event.
    #[error("there is no event {event_id} of source {source_name}")]
    UsageEventNotFound {
        /// The event's id.
        event_id: String,
        /// Its source.
        source_name: String,
    },
    /// The event lies outside what is accepted.
    #[error("the event's time {EVENT_TIME_RULE}")]
    EventTimeOutOfRange {
        /// The path of the time.
        field: String,
    },
    /// The same id came before with another content.
    #[error("the event {event_id} of source {source_name} was recorded with another content")]
    EventIdReused {
        /// The event's id.
        event_id: String,
        /// Its source.
        source_name: String,
    },
    /// The same correction id came before with another content.
    #[error("the correction {correction_id} was made with another content")]
    CorrectionIdReused {
        /// The correction's id.
        correction_id: String,
    },
    /// The event is not what was looked at.
    #[error("the event {event_id} of source {source_name} was corrected since, and has revision {revision}")]
    EventCorrectedSince {
        /// The event's id.
        event_id: String,
        /// Its source.
        source_name: String,
        /// How often it was corrected.
        revision: u32,
    },
    /// An event of a metric that counts events is to be of another amount.
    #[error("an event of a metric that counts events has the amount 1")]
    AmountNotOne,
    /// Another event of the same all-or-nothing batch stands in the way.
    #[error("another event of the batch stands in the way, so nothing of the batch was recorded")]
    BatchRefused,
    /// Slices that are to pay for the event do not.
    #[error("a slice of the limit is sealed or has no room")]
    SlicesRefused {
        /// Which.
        slices: Vec<SliceId>,
    },
    /// The request was denied before.
    #[error("the request was denied before, and is not recorded any more")]
    RequestDenied,
    /// More was to be given back than is held.
    #[error("more would be given back than the account holds")]
    LevelBelowZero,
    /// Only the quota service records decisions and charges slices.
    #[error("only the quota service records decisions, returns and denials, and charges slices")]
    DecisionForbidden,
    /// More than one process can hold waits for its commit.
    #[error("the ledger has more events waiting than it can hold")]
    Overloaded,
    /// A newer catalog was applied before.
    #[error("version {given} of the catalog is older than {current}")]
    VersionStale {
        /// What was given.
        given: u64,
        /// What is in force.
        current: u64,
    },
    /// The same request id came before with another report.
    #[error("the request {request_id} made another report before")]
    RequestIdReused {
        /// What was given.
        request_id: String,
    },
    /// The account has no such report.
    #[error("the account has no such report")]
    ReportNotFound,
    /// The account has as many open reports as it may have.
    #[error("the account has {jobs_max} reports that wait or are being written, and may have no more")]
    TooManyReports {
        /// How many it may have.
        jobs_max: u32,
    },
    /// The report has no file.
    #[error("the report has no file: it is {}", .state.as_str())]
    ReportWithoutFile {
        /// Where it stands.
        state: ReportJobState,
    },
    /// A sum leaves 0 to 2^53 − 1.
    #[error("the sum is more than 2^53 - 1")]
    SumOutOfRange,
}

impl Error {
    /// The error of one event, told of the request that holds the event at `path`: every field that it names
    /// lies below.
    #[must_use]
    pub fn within(self, path: &str) -> Self {
        let below = |field: &str| format!("{path}.{field}");
        match self {
            Self::Invalid(Violations(violations)) => {
                let placed = violations
                    .into_iter()
                    .map(|one| FieldViolation::new(below(&one.field), one.rule));
                Self::Invalid(Violations(placed.collect()))
            }
            Self::EventTimeOutOfRange { field } => Self::EventTimeOutOfRange { field: below(&field) },
            Self::MetricNotFound { metric, field } => Self::MetricNotFound {
                metric,
                field: below(&field),
            },
            Self::Account(DirectoryError::NotFound(account)) => Self::AccountNotFound {
                account,
                field: below("account_id"),
            },
            other => other,
        }
    }
}

impl ServiceError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(inner) => inner.kind(),
            Self::PageToken(inner) => inner.kind(),
            Self::Database(inner) => inner.kind(),
            Self::Account(inner) => inner.kind(),
            Self::MetricNotFound { .. }
            | Self::AccountNotFound { .. }
            | Self::UsageEventNotFound { .. }
            | Self::ReportNotFound => ErrorKind::NotFound,
            Self::EventTimeOutOfRange { .. } | Self::SumOutOfRange | Self::AmountNotOne => ErrorKind::Invalid,
            Self::EventIdReused { .. } | Self::CorrectionIdReused { .. } | Self::RequestIdReused { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::DecisionForbidden => ErrorKind::Forbidden,
            Self::Overloaded | Self::TooManyReports { .. } => ErrorKind::OverLimit,
            Self::VersionStale { .. }
            | Self::BatchRefused
            | Self::SlicesRefused { .. }
            | Self::EventCorrectedSince { .. } => ErrorKind::Conflict,
            Self::RequestDenied | Self::LevelBelowZero | Self::ReportWithoutFile { .. } => {
                ErrorKind::Precondition
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(inner) => inner.reason(),
            Self::PageToken(inner) => inner.reason(),
            Self::Database(inner) => inner.reason(),
            Self::Account(inner) => inner.reason(),
            Self::MetricNotFound { .. } => ErrorReason::MetricNotFound.name(),
            Self::AccountNotFound { .. } => ErrorReason::AccountNotFound.name(),
            Self::UsageEventNotFound { .. } => ErrorReason::UsageEventNotFound.name(),
            Self::EventTimeOutOfRange { .. } => ErrorReason::EventTimeOutOfRange.name(),
            Self::EventIdReused { .. } => ErrorReason::EventIdReused.name(),
            Self::CorrectionIdReused { .. } => ErrorReason::CorrectionIdReused.name(),
            Self::EventCorrectedSince { .. } => ErrorReason::EventCorrectedSince.name(),
            Self::AmountNotOne => ErrorReason::FieldInvalid.name(),
            Self::BatchRefused => ErrorReason::BatchRefused.name(),
            Self::SlicesRefused { .. } => ErrorReason::SliceRefused.name(),
            Self::RequestDenied => ErrorReason::RequestDenied.name(),
            Self::LevelBelowZero => ErrorReason::LevelBelowZero.name(),
            Self::DecisionForbidden => ErrorReason::CallerForbidden.name(),
            Self::Overloaded => ErrorReason::Overloaded.name(),
            Self::VersionStale { .. } => ErrorReason::VersionStale.name(),
            Self::RequestIdReused { .. } => ErrorReason::RequestIdReused.name(),
            Self::ReportNotFound => ErrorReason::ReportNotFound.name(),
            Self::TooManyReports { .. } => ErrorReason::TooManyReports.name(),
            Self::ReportWithoutFile { .. } => ErrorReason::ReportWithoutFile.name(),
            Self::SumOutOfRange => ErrorReason::AmountOutOfRange.name(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Invalid(inner) => inner.metadata(),
            Self::PageToken(inner) => inner.metadata(),
            Self::Database(inner) => inner.metadata(),
            Self::Account(inner) => inner.metadata(),
            Self::MetricNotFound { metric, .. } => vec![("metric", metric.to_string())],
            Self::AccountNotFound { account, .. } => vec![("account_id", account.to_string())],
            Self::EventIdReused {
                event_id,
                source_name,
            }
            | Self::UsageEventNotFound {
                event_id,
                source_name,
            } => {
                vec![("event_id", event_id.clone()), ("source", source_name.clone())]
            }
            Self::CorrectionIdReused { correction_id } => vec![("correction_id", correction_id.clone())],
            Self::EventCorrectedSince {
                event_id,
                source_name,
                revision,
            } => vec![
                ("event_id", event_id.clone()),
                ("source", source_name.clone()),
                ("revision", revision.to_string()),
            ],
            Self::VersionStale { given, current } => {
                vec![("given", given.to_string()), ("current", current.to_string())]
            }
            Self::RequestIdReused { request_id } => vec![("request_id", request_id.clone())],
            Self::TooManyReports { jobs_max } => vec![("jobs_max", jobs_max.to_string())],
            Self::ReportWithoutFile { state } => vec![("state", state.as_str().to_owned())],
            Self::EventTimeOutOfRange { .. }
            | Self::AmountNotOne
            | Self::ReportNotFound
            | Self::BatchRefused
            | Self::SlicesRefused { .. }
            | Self::RequestDenied
            | Self::LevelBelowZero
            | Self::DecisionForbidden
            | Self::Overloaded
            | Self::SumOutOfRange => Vec::new(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Invalid(inner) => inner.violations(),
            Self::PageToken(inner) => inner.violations(),
            Self::Account(DirectoryError::NotFound(_)) => {
                vec![FieldViolation::new("account_id", "must name an account")]
            }
            Self::Account(inner) => inner.violations(),
            Self::AccountNotFound { field, .. } => vec![FieldViolation::new(field, "must name an account")],
            Self::MetricNotFound { field, .. } => {
                vec![FieldViolation::new(field, "must name a metric of the catalog")]
            }
            Self::EventTimeOutOfRange { field } => {
                vec![FieldViolation::new(field, EVENT_TIME_RULE)]
            }
            Self::AmountNotOne => vec![FieldViolation::new("amount", "must be 1")],
            Self::LevelBelowZero => {
                vec![FieldViolation::new(
                    "amount",
                    "must not be more than the account holds",
                )]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Database(inner) => inner.retry_after_s(),
            Self::Overloaded => Some(1),
            Self::TooManyReports { .. } => Some(5),
            _ => None,
        }
    }
}
