//! Errors to and from `tonic::Status`: the one place that knows how a refusal looks on the wire.
//!
//! Every status carries one `google.rpc.ErrorInfo`; field violations, retry times and quota failures go
//! into their own details (google.rpc, AIP-193).

use std::{collections::HashMap, time::Duration};

use octroi_core::{ErrorKind, FieldViolation, ServiceError};
use octroi_proto::{REASON_DOMAIN, errors::v1::ErrorReason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt as _};

/// Turns a service's error into what goes over the wire, and logs it where it is a fault of ours.
#[must_use]
pub fn to_status<E: ServiceError + ?Sized>(error: &E) -> Status {
    let kind = error.kind();
    if kind == ErrorKind::Internal {
        tracing::error!(error.reason = error.reason(), error = %chain(error), "a call failed");
        return status(
            kind,
            error.reason(),
            "an internal fault; the log has it",
            Vec::new(),
            &[],
            None,
        );
    }
    if matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout) {
        tracing::warn!(error.reason = error.reason(), error = %chain(error), "a call could not be served");
    }
    let retry_after = error.retry_after_s().map(Duration::from_secs);
    status(
        kind,
        error.reason(),
        &error.to_string(),
        error.metadata(),
        &error.violations(),
        retry_after,
    )
}

fn chain<E: ServiceError + ?Sized>(error: &E) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A status of `kind` with all its details.
#[must_use]
pub fn status(
    kind: ErrorKind,
    reason: &'static str,
    message: &str,
    metadata: Vec<(&'static str, String)>,
    violations: &[FieldViolation],
    retry_after: Option<Duration>,
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let mut details = ErrorDetails::new();
    if kind == ErrorKind::OverLimit && !metadata.is_empty() {
        let subject = metadata.get("metric").cloned().unwrap_or_default();
        details.set_quota_failure(vec![QuotaViolation::new(subject, message)]);
    }
    details.set_error_info(reason, REASON_DOMAIN, metadata);
    for violation in violations {
        details.add_bad_request_violation(&violation.field, &violation.rule);
    }
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(Code::from_i32(kind.grpc_code()), message, details)
}

/// A refusal that needs no more than a kind, a reason and a sentence.
#[must_use]
pub fn refusal(kind: ErrorKind, reason: ErrorReason, message: &str) -> Status {
    status(kind, reason.name(), message, Vec::new(), &[], None)
}

/// The reason that a status carries, where it is one of ours.
#[must_use]
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let details = status.get_error_details();
    let info = details.error_info()?;
    (info.domain == REASON_DOMAIN)
        .then(|| ErrorReason::from_name(&info.reason))
        .flatten()
}

/// What another service answered, passed on as it came where the caller can act on it.
#[derive(Debug, thiserror::Error)]
#[error("{service}: {}", .status.message())]
pub struct Upstream {
    /// The service that was called.
    pub service: &'static str,
    /// Its answer.
    pub status: Box<Status>,
}

impl Upstream {
    /// The answer of `service`.
    #[must_use]
    pub fn new(service: &'static str, status: Status) -> Self {
        Self {
            service,
            status: Box::new(status),
        }
    }

    /// Why it refused, where it said so in our words.
    #[must_use]
    pub fn error_reason(&self) -> Option<ErrorReason> {
        reason_of(&self.status)
    }
}

impl ServiceError for Upstream {
    fn kind(&self) -> ErrorKind {
        match self.status.code() {
            // Our own token or our own call is wrong: nothing that this service's caller can mend.
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => ErrorKind::Internal,
            Code::Cancelled | Code::Unavailable => ErrorKind::Unavailable,
            code => ErrorKind::from_grpc_code(code.into()),
        }
    }

    fn reason(&self) -> &'static str {
        match (self.kind(), self.error_reason()) {
            (ErrorKind::Internal, _) => ErrorReason::Internal.name(),
            (_, Some(reason)) => reason.name(),
            (ErrorKind::Timeout, None) => ErrorReason::DeadlinePassed.name(),
            (_, None) => ErrorReason::DependencyUnavailable.name(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("service", self.service.to_owned())]
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let details = self.status.get_error_details();
        details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|one| FieldViolation::new(&one.field, &one.description))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::Violations;

    use super::*;

    #[test]
    fn a_violation_names_field_and_rule_on_the_wire() {
        let mut violations = Violations::default();
        violations.add("items[0].amount", "must be at least 1");
        let status = to_status(&violations);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason_of(&status), Some(ErrorReason::FieldInvalid));
        let details = status.get_error_details();
        let field = &details.bad_request().expect("a bad request").field_violations[0];
        assert_eq!(
            (field.field.as_str(), field.description.as_str()),
            ("items[0].amount", "must be at least 1")
        );
    }

    #[test]
    fn a_refusal_of_another_service_is_passed_on_but_its_distrust_is_our_fault() {
        let unknown = refusal(
            ErrorKind::NotFound,
            ErrorReason::AccountNotFound,
            "no such account",
        );
        assert_eq!(Upstream::new("account", unknown).reason(), "ACCOUNT_NOT_FOUND");
        let distrust = refusal(
            ErrorKind::Unauthenticated,
            ErrorReason::TokenInvalid,
            "unknown token",
        );
        assert_eq!(Upstream::new("account", distrust).kind(), ErrorKind::Internal);
        let away = Upstream::new("account", Status::unavailable("connection refused"));
        assert_eq!(
            (away.kind(), away.reason()),
            (ErrorKind::Unavailable, "DEPENDENCY_UNAVAILABLE")
        );
    }
}
