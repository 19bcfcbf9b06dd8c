//! What a refusal says beside its code.

use std::{collections::HashMap, time::Duration};

use octroi_proto::{REASON_DOMAIN, errors::v1::ErrorReason};
use tonic::Status;
use tonic_types::StatusExt as _;

/// One field that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, such as `items[1].amount`.
    pub field: String,
    /// The rule, as the end of the sentence "the field …".
    pub description: String,
}

/// What a refusal of the fleet says beside its code.
///
/// ```
/// use octroi_client::Refusal as _;
///
/// // What the transport says has no reason: it did not come from a service.
/// assert_eq!(tonic::Status::unavailable("connection refused").reason(), None);
/// ```
pub trait Refusal {
    /// Why, where a service of the fleet said so; one of a closed list.
    fn reason(&self) -> Option<ErrorReason>;

    /// The fields that break rules.
    fn field_violations(&self) -> Vec<FieldViolation>;

    /// When trying again may help, where the service knows.
    fn retry_after(&self) -> Option<Duration>;

    /// Every dynamic part of the sentence, by name.
    fn facts(&self) -> HashMap<String, String>;
}

impl Refusal for Status {
    fn reason(&self) -> Option<ErrorReason> {
        let info = self.get_details_error_info()?;
        (info.domain == REASON_DOMAIN)
            .then(|| ErrorReason::from_name(&info.reason))
            .flatten()
    }

    fn field_violations(&self) -> Vec<FieldViolation> {
        let Some(bad) = self.get_details_bad_request() else {
            return Vec::new();
        };
        let as_violation = |one: tonic_types::FieldViolation| FieldViolation {
            field: one.field,
            description: one.description,
        };
        bad.field_violations.into_iter().map(as_violation).collect()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.get_details_retry_info()?.retry_delay
    }

    fn facts(&self) -> HashMap<String, String> {
        self.get_details_error_info()
            .map(|info| info.metadata)
            .unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    /// A refusal as the services make it.
    pub(crate) fn refusal(code: Code, reason: &str, delay: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            reason,
            REASON_DOMAIN,
            [("metric".to_owned(), "api.requests".to_owned())],
        );
        details.add_bad_request_violation("items[0].amount", "must be at least 1");
        if delay.is_some() {
            details.set_retry_info(delay);
        }
        Status::with_error_details(code, "a sentence", details)
    }

    #[test]
    fn a_refusal_says_why_and_when_to_come_back() {
        let delay = Duration::from_secs(7);
        let status = refusal(Code::ResourceExhausted, "RATE_LIMITED", Some(delay));
        assert_eq!(status.reason(), Some(ErrorReason::RateLimited));
        assert_eq!(status.retry_after(), Some(delay));
        assert_eq!(status.facts()["metric"], "api.requests");
        let violations = status.field_violations();
        assert_eq!(
            (violations[0].field.as_str(), violations.len()),
            ("items[0].amount", 1)
        );
    }

    #[test]
    fn a_refusal_of_somebody_else_has_no_reason() {
        let mut details = ErrorDetails::new();
        details.set_error_info("RATE_LIMITED", "example.com", [("a".to_owned(), "b".to_owned())]);
        assert_eq!(
            Status::with_error_details(Code::Internal, "x", details).reason(),
            None
        );
        assert_eq!(
            refusal(Code::Internal, "NEWER_THAN_THIS_CLIENT", None).reason(),
            None
        );
        let plain = Status::internal("x");
        assert!(
            plain.field_violations().is_empty() && plain.retry_after().is_none() && plain.facts().is_empty()
        );
    }
}
