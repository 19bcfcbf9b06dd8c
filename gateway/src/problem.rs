//! What a refusal looks like over HTTP: the one place that writes problem+json (RFC 9457).

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use octroi_client::{FieldViolation as Violation, Refusal as _};
use octroi_core::{FieldViolation, Violations};
use octroi_kit::telemetry;
use octroi_proto::errors::v1::ErrorReason;
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

use crate::{convert::Decision, reason};

/// The content type of every refusal.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// How field names of a contract are called in a route's JSON; a name mapped to nothing is left out.
pub(crate) type Names = &'static [(&'static str, &'static str)];

/// For routes whose JSON says what the contract says.
pub(crate) const SAME_NAMES: Names = &[];

/// One field that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// The path of the field, such as `items[1].amount`.
    pub(crate) field: String,
    /// The rule, as the end of the sentence "the field …".
    pub(crate) rule: String,
}

/// Why a request was refused, as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// The page about the reason, relative to this server.
    #[serde(rename = "type")]
    pub(crate) page: &'static str,
    /// The reason in a few words.
    pub(crate) title: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened this time, for people.
    pub(crate) detail: String,
    /// The reason, for programs: one of a closed list.
    pub(crate) reason: &'static str,
    /// The fields that break rules, all of them that were found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) errors: Vec<FieldProblem>,
    /// Under which the traces have it, where requests are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    /// The decision, where one refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Decision>,
}

/// A refusal on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    document: Document,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A refusal for `reason`; `detail` is a sentence for people, without a full stop.
    pub(crate) fn new(reason: ErrorReason, detail: impl Into<String>) -> Self {
        let entry = reason::entry(reason);
        let mut problem = Self(Box::new(Inner {
            document: Document {
                page: entry.page,
                title: entry.title,
                status: entry.status.as_u16(),
                detail: detail.into(),
                reason: reason.name(),
                errors: Vec::new(),
                trace_id: trace_id(),
                decision: None,
            },
            headers: Vec::new(),
        }));
        match entry.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"octroi\"");
                problem = problem.with_header(header::WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => problem = problem.with_retry_after(1),
            _ => {}
        }
        problem
    }

    /// One field that breaks one rule.
    pub(crate) fn field(reason: ErrorReason, field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::fields(
            reason,
            vec![FieldProblem {
                field: field.into(),
                rule: rule.into(),
            }],
        )
    }

    fn fields(reason: ErrorReason, errors: Vec<FieldProblem>) -> Self {
        let sentences: Vec<String> = errors
            .iter()
            .map(|one| format!("{} {}", one.field, one.rule))
            .collect();
        let mut problem = Self::new(reason, sentences.join("; "));
        problem.0.document.errors = errors;
        problem
    }

    /// A fault of ours; what happened goes to the log and not to the client.
    pub(crate) fn fault(what: &str) -> Self {
        tracing::error!(error = what, "a request failed");
        Self::new(ErrorReason::Internal, "an internal fault; the log has it")
    }

    /// What a service answered. Its field names become those of the route's JSON.
    pub(crate) fn of(service: &'static str, status: &Status, names: Names) -> Self {
        let Some(reason) = status.reason() else {
            return Self::of_transport(service, status);
        };
        if reason::is_distrust(reason) {
            return Self::fault(&format!("{service} refused the gateway: {}", status.message()));
        }
        let renamed = |one: Violation| FieldProblem {
            field: renamed(&one.field, names),
            rule: rule_renamed(&one.description, names),
        };
        let errors: Vec<FieldProblem> = status.field_violations().into_iter().map(renamed).collect();
        let mut problem = if reason == ErrorReason::FieldInvalid && !errors.is_empty() {
            // The service's sentence has the contract's names in it.
            Self::fields(reason, errors)
        } else {
            let mut problem = Self::new(reason, status.message());
            problem.0.document.errors = errors;
            problem
        };
        if let Some(delay) = status.retry_after() {
            problem = problem.with_retry_after(whole_seconds(delay));
        }
        problem
    }

    /// A status without a reason was made by the transport, because our services always give one.
    fn of_transport(service: &'static str, status: &Status) -> Self {
        tracing::warn!(service, grpc.code = ?status.code(), error = status.message(), "a service did not answer");
        match status.code() {
            Code::DeadlineExceeded => {
                Self::new(ErrorReason::DeadlinePassed, format!("{service} took too long"))
            }
            _ => Self::new(
                ErrorReason::DependencyUnavailable,
                format!("{service} does not answer"),
            ),
        }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0
            .headers
            .retain(|(given, _)| *given != name || name == header::SET_COOKIE);
        self.0.headers.push((name, value));
        self
    }

    pub(crate) fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    pub(crate) fn with_decision(mut self, decision: Decision) -> Self {
        self.0.document.decision = Some(decision);
        self
    }

    /// The document alone, for an item of a batch.
    pub(crate) fn into_document(self) -> Document {
        self.0.document
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.0.document.reason
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        let as_problem = |one: FieldViolation| FieldProblem {
            field: one.field,
            rule: one.rule,
        };
        Self::fields(
            ErrorReason::FieldInvalid,
            violations.0.into_iter().map(as_problem).collect(),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { document, headers } = *self.0;
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(document)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// Rounded up: a client that comes back a moment too early is refused again.
pub(crate) fn whole_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// `event.amount` is `amount` where the names map `event` to nothing, and `data.amount` where they map
/// `event.amount` to it; the first name that fits counts.
pub(crate) fn renamed(field: &str, names: Names) -> String {
    for (contract, json) in names {
        let Some(rest) = field.strip_prefix(contract) else {
            continue;
        };
        if rest.is_empty() || rest.starts_with(['.', '[']) {
            let renamed = format!("{json}{rest}");
            return renamed.strip_prefix('.').map_or(renamed.clone(), str::to_owned);
        }
    }
    field.to_owned()
}

/// A rule, with the names that a route's JSON has for fields which it names. A word without `_` means what it says.
fn rule_renamed(rule: &str, names: Names) -> String {
    let is_name = |word: &str| word.contains('_');
    let word = |word: &str| {
        if is_name(word) {
            renamed(word, names)
        } else {
            word.to_owned()
        }
    };
    rule.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn trace_id() -> Option<String> {
    telemetry::traceparent()?.split('-').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use octroi_core::ErrorKind;
    use octroi_kit::status;

    use super::*;

    fn of_reason(reason: ErrorReason) -> Document {
        // The kind does not matter to the edge: the reason alone decides.
        let status = status::refusal(ErrorKind::Precondition, reason, "a sentence");
        Problem::of("quota", &status, SAME_NAMES).into_document()
    }

    #[test]
    fn every_reason_of_a_service_becomes_its_own_problem_or_a_fault_of_ours() {
        for reason in reason::ALL {
            let document = of_reason(*reason);
            let ours = matches!(
                reason,
                ErrorReason::TokenInvalid
                    | ErrorReason::CallerForbidden
                    | ErrorReason::PrincipalMismatch
                    | ErrorReason::MethodNotFound
            );
            let expected = if ours { ErrorReason::Internal } else { *reason };
            assert_eq!(document.reason, expected.name());
            assert_eq!(document.status, reason::entry(expected).status.as_u16());
            assert_eq!(document.page, reason::entry(expected).page);
            assert_eq!(document.detail == "a sentence", !ours, "{}", reason.name());
        }
    }

    #[test]
    fn a_status_without_a_reason_is_the_transport_s() {
        for (status, code, reason) in [
            (
                Status::unavailable("connection refused"),
                503,
                "DEPENDENCY_UNAVAILABLE",
            ),
            (Status::unknown("transport error"), 503, "DEPENDENCY_UNAVAILABLE"),
            (
                Status::internal("h2 protocol error"),
                503,
                "DEPENDENCY_UNAVAILABLE",
            ),
            (
                Status::cancelled("Timeout expired"),
                503,
                "DEPENDENCY_UNAVAILABLE",
            ),
            (Status::deadline_exceeded("late"), 504, "DEADLINE_PASSED"),
        ] {
            let document = Problem::of("usage", &status, SAME_NAMES).into_document();
            assert_eq!((document.status, document.reason), (code, reason));
            assert!(!document.detail.contains("refused") && !document.detail.contains("h2"));
        }
    }

    #[test]
    fn violations_keep_their_rule_and_get_the_route_s_names() {
        let mut violations = Violations::default();
        violations.add("page_size", "must be 1 to 100");
        let status = status::to_status(&violations);
        let document = Problem::of("account", &status, &[("page_size", "limit")]).into_document();
        assert_eq!(document.detail, "limit must be 1 to 100");
        assert_eq!(
            document.errors,
            vec![FieldProblem {
                field: "limit".into(),
                rule: "must be 1 to 100".into()
            }]
        );
    }

    #[test]
    fn rules_have_the_route_s_names_as_well() {
        let names: Names = &[("start_time", "from"), ("query.end_time", "to"), ("event", "")];
        for (rule, expected) in [
            ("must be after start_time", "must be after from"),
            (
                "must be before query.end_time or absent",
                "must be before to or absent",
            ),
            ("must be the time of the event.", "must be the time of the event."),
        ] {
            assert_eq!(rule_renamed(rule, names), expected);
        }
    }

    #[test]
    fn names_are_replaced_whole() {
        const NAMES: Names = &[
            ("event.amount", "data.amount"),
            ("event", ""),
            ("events", "events"),
        ];
        for (field, expected) in [
            ("event.amount", "data.amount"),
            ("event.event_id", "event_id"),
            ("events[3].amount", "events[3].amount"),
            ("event_time", "event_time"),
        ] {
            assert_eq!(renamed(field, NAMES), expected);
        }
    }

    #[test]
    fn when_to_come_back_is_told_in_whole_seconds_rounded_up() {
        for (milliseconds, expected) in [(1, "1"), (1_000, "1"), (1_001, "2"), (0, "1")] {
            let delay = Some(Duration::from_millis(milliseconds));
            let status = status::status(
                ErrorKind::OverLimit,
                "RATE_LIMITED",
                "slow down",
                vec![],
                &[],
                delay,
            );
            let response = Problem::of("account", &status, SAME_NAMES).into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[header::RETRY_AFTER], expected);
            assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        }
    }
}
