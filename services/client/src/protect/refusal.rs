//! Why a request is not served, in the words of whoever asks: problem+json (RFC 9457) over HTTP, a status with details over
//! gRPC.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use octroi_proto::{
    REASON_DOMAIN,
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaResponse, DenialReason, LimitStatus},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt as _};

use super::{
    body::Body,
    decision,
    rate_limit::{period_in_words, rate_limit, retry_after_s},
};
use crate::Refusal as _;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const GRPC_STATUS: &str = "grpc-status";
/// When to come back where nobody could be asked.
const AWAY_RETRY: Duration = Duration::from_secs(1);

/// What a request is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Http,
    Grpc,
}

impl Wire {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_grpc = |value: &[u8]| {
            value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web")
        };
        if content_type.is_some_and(is_grpc) {
            Self::Grpc
        } else {
            Self::Http
        }
    }

    /// Whether the head of an answer says already that the call failed.
    pub(super) fn has_failed(self, headers: &HeaderMap) -> bool {
        self == Self::Grpc && has_failed(headers)
    }
}

/// Whether these headers or trailers say that a call failed.
pub(super) fn has_failed(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|status| status != "0")
}

/// Why a request is not served.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// It says no account.
    Nobody,
    /// The account may not.
    Denied(Box<CheckQuotaResponse>),
    /// Nobody could be asked, and the limits do not go on without.
    Away,
    /// What it calls itself is no id.
    NoId,
    /// It could not be asked for so: the account is not known, an amount is too large, or this program asks for what the
    /// catalog does not have.
    Failed(Status),
}

/// What is said of it.
pub(super) struct Said {
    code: Code,
    status: StatusCode,
    reason: Option<ErrorReason>,
    title: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
}

impl Refused {
    /// The answer to whoever asked in `wire`.
    pub(super) fn answer<B>(&self, wire: Wire, error_pages: Option<&str>) -> Response<Body<B>> {
        let said = self.said();
        match wire {
            Wire::Http => self.problem(&said, error_pages),
            Wire::Grpc => {
                let (head, ()) = self.status(&said).into_http::<()>().into_parts();
                Response::from_parts(head, Body::empty())
            }
        }
    }

    fn said(&self) -> Said {
        match self {
            Self::Nobody => Said {
                code: Code::Unauthenticated,
                status: StatusCode::UNAUTHORIZED,
                reason: None,
                title: "Nobody is signed in",
                detail: "the request belongs to no account".to_owned(),
                retry_after_s: None,
            },
            Self::Away => Said {
                code: Code::Unavailable,
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason: Some(ErrorReason::CountersUnreachable),
                title: "The counters cannot be reached",
                detail: "whether the account may do this cannot be decided now".to_owned(),
                retry_after_s: Some(AWAY_RETRY.as_secs()),
            },
            Self::NoId => Said {
                code: Code::InvalidArgument,
                status: StatusCode::BAD_REQUEST,
                reason: Some(ErrorReason::FieldInvalid),
                title: "The request's id is none",
                detail: "the request's id must be 1 to 128 of [A-Za-z0-9_.:-]".to_owned(),
                retry_after_s: None,
            },
            Self::Denied(decision) => denied(decision),
            Self::Failed(status) => failed(status),
        }
    }

    fn problem<B>(&self, said: &Said, error_pages: Option<&str>) -> Response<Body<B>> {
        let document = decision::problem(self, said, error_pages);
        let mut response = Response::new(Body::document(document));
        *response.status_mut() = said.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM);
        if said.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = said.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Self::Denied(decision) = self {
            headers.extend(rate_limit(decision));
        }
        response
    }

    fn status(&self, said: &Said) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(reason) = said.reason {
            let facts: [(String, String); 0] = [];
            details.set_error_info(reason.name(), REASON_DOMAIN, facts);
        }
        if let Some(seconds) = said.retry_after_s {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        if let Self::Denied(decision) = self {
            let violations = decision.limits.iter().enumerate();
            let violations =
                violations
                    .filter(|(index, _)| is_binding(decision, *index))
                    .map(|(_, limit)| QuotaViolation {
                        subject: limit.metric.clone(),
                        description: standing(limit),
                        ..QuotaViolation::default()
                    });
            details.set_quota_failure(violations.collect::<Vec<_>>());
        }
        Status::with_error_details(said.code, said.detail.clone(), details)
    }
}

fn is_binding(decision: &CheckQuotaResponse, index: usize) -> bool {
    decision
        .binding_limit
        .is_some_and(|binding| usize::try_from(binding) == Ok(index))
}

fn standing(limit: &LimitStatus) -> String {
    format!(
        "{}: {} of {} used {}, {} held, {} left",
        limit.metric,
        limit.used,
        limit.limit,
        period_in_words(limit),
        limit.held,
        limit.remaining
    )
}

/// Why a decision does not allow, in a sentence for people: the features that the plan lacks, or where the limit stands that
/// is in the way.
#[must_use]
pub fn why_denied(decision: &CheckQuotaResponse) -> String {
    if decision.reason() == DenialReason::SubscriptionRequired {
        let missing: Vec<&str> = (decision.missing_features.iter())
            .map(|one| one.feature.as_str())
            .collect();
        return format!("the plan lacks {}", missing.join(", "));
    }
    let mut limits = decision.limits.iter().enumerate();
    let binding = limits.find(|(index, _)| is_binding(decision, *index));
    binding.map_or_else(
        || "a limit stands in the way".to_owned(),
        |(_, limit)| standing(limit),
    )
}

fn denied(decision: &CheckQuotaResponse) -> Said {
    let detail = why_denied(decision);
    if decision.reason() == DenialReason::SubscriptionRequired {
        return Said {
            code: Code::FailedPrecondition,
            status: StatusCode::PAYMENT_REQUIRED,
            reason: Some(ErrorReason::SubscriptionRequired),
            title: "The plan lacks a feature",
            detail,
            retry_after_s: None,
        };
    }
    Said {
        code: Code::ResourceExhausted,
        status: StatusCode::TOO_MANY_REQUESTS,
        reason: Some(ErrorReason::QuotaExceeded),
        title: "A limit stands in the way",
        detail,
        retry_after_s: retry_after_s(decision),
    }
}

/// What is said of an error of the fleet. What whoever asked cannot help is a fault of this program.
fn failed(status: &Status) -> Said {
    let reason = status.reason();
    let told = |code, http, title| Said {
        code,
        status: http,
        reason,
        title,
        detail: status.message().to_owned(),
        retry_after_s: None,
    };
    match reason {
        Some(ErrorReason::AccountNotFound) => {
            told(Code::NotFound, StatusCode::NOT_FOUND, "There is no such account")
        }
        Some(ErrorReason::AccountClosed) => told(
            Code::FailedPrecondition,
            StatusCode::BAD_REQUEST,
            "The account is closed",
        ),
        Some(ErrorReason::RequestIdReused) => told(
            Code::AlreadyExists,
            StatusCode::CONFLICT,
            "The request id was used for something else",
        ),
        Some(ErrorReason::FieldInvalid | ErrorReason::FieldRequired | ErrorReason::AmountOutOfRange) => told(
            Code::InvalidArgument,
            StatusCode::BAD_REQUEST,
            "It cannot be asked for so",
        ),
        Some(ErrorReason::TooManyHolds) => Said {
            retry_after_s: Some(AWAY_RETRY.as_secs()),
            ..told(
                Code::ResourceExhausted,
                StatusCode::TOO_MANY_REQUESTS,
                "The account has too many open holds",
            )
        },
        Some(ErrorReason::Overloaded) => Said {
            retry_after_s: Some(AWAY_RETRY.as_secs()),
            ..told(
                Code::Unavailable,
                StatusCode::SERVICE_UNAVAILABLE,
                "The service has too much work",
            )
        },
        _ => {
            tracing::error!(error = %status, "a request cannot be asked for");
            Said {
                code: Code::Internal,
                status: StatusCode::INTERNAL_SERVER_ERROR,
                reason: Some(ErrorReason::Internal),
                title: "An internal fault",
                detail: "an internal fault; the log has it".to_owned(),
                retry_after_s: None,
            }
        }
    }
}

impl Said {
    /// Its parts for a document.
    pub(super) fn parts(&self) -> (u16, Option<ErrorReason>, &'static str, &str) {
        (self.status.as_u16(), self.reason, self.title, &self.detail)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use octroi_proto::common::v1::FeaturePlans;
    use serde_json::{Value, json};

    use super::*;
    use crate::{protect::rate_limit::tests::denied, refusal::tests::refusal};

    async fn problem(refused: &Refused) -> (StatusCode, HeaderMap, Value) {
        let answer: Response<Body<http_body_util::Empty<bytes::Bytes>>> =
            refused.answer(Wire::Http, Some("https://octroi.example/errors/"));
        let (head, body) = answer.into_parts();
        let text = body.collect().await.expect("a document").to_bytes();
        (
            head.status,
            head.headers,
            serde_json::from_slice(&text).expect("JSON"),
        )
    }

    fn over() -> Refused {
        let mut decision = denied();
        decision.reason = DenialReason::QuotaExceeded.into();
        Refused::Denied(Box::new(decision))
    }

    fn lacking() -> Refused {
        Refused::Denied(Box::new(CheckQuotaResponse {
            reason: DenialReason::SubscriptionRequired.into(),
            missing_features: vec![FeaturePlans {
                feature: "premium.templates".to_owned(),
                plans: vec!["pro".to_owned()],
            }],
            ..CheckQuotaResponse::default()
        }))
    }

    #[tokio::test]
    async fn over_http_a_refusal_is_a_problem_that_says_why_and_when_to_come_back() {
        let (status, headers, document) = problem(&over()).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers[header::RETRY_AFTER], "60");
        assert!(headers.contains_key("ratelimit") && headers.contains_key("ratelimit-policy"));
        assert_eq!(document["type"], "https://octroi.example/errors/quota-exceeded");
        assert_eq!(document["reason"], "QUOTA_EXCEEDED");
        assert_eq!(
            document["detail"],
            "api.requests: 60 of 60 used this hour, 0 held, 0 left"
        );
        assert_eq!(document["decision"]["reason"], "quota_exceeded");
        assert_eq!(
            document["decision"]["limits"][0]["window_end_time"],
            "1970-01-01T01:00:00Z"
        );

        let (status, _, document) = problem(&lacking()).await;
        assert_eq!(
            (status, &document["reason"]),
            (StatusCode::PAYMENT_REQUIRED, &json!("SUBSCRIPTION_REQUIRED"))
        );
        assert_eq!(document["detail"], "the plan lacks premium.templates");
        assert_eq!(
            document["decision"]["missing_features"][0]["plans"],
            json!(["pro"])
        );
    }

    #[tokio::test]
    async fn whoever_asks_is_told_of_what_they_can_help_and_of_nothing_else() {
        for (reason, status, told) in [
            ("ACCOUNT_NOT_FOUND", StatusCode::NOT_FOUND, "ACCOUNT_NOT_FOUND"),
            ("ACCOUNT_CLOSED", StatusCode::BAD_REQUEST, "ACCOUNT_CLOSED"),
            ("REQUEST_ID_REUSED", StatusCode::CONFLICT, "REQUEST_ID_REUSED"),
            ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"),
            ("METRIC_NOT_FOUND", StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
            ("TOKEN_INVALID", StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        ] {
            let refused = Refused::Failed(refusal(Code::NotFound, reason, None));
            let (found, _, document) = problem(&refused).await;
            assert_eq!((found, &document["reason"]), (status, &json!(told)), "{reason}");
            assert_eq!(document["detail"] == "a sentence", told != "INTERNAL", "{reason}");
        }
        let (status, headers, _) = problem(&Refused::Away).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers[header::RETRY_AFTER], "1");
        let (status, headers, document) = problem(&Refused::Nobody).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(headers.contains_key(header::WWW_AUTHENTICATE) && document.get("reason").is_none());
    }

    #[test]
    fn over_grpc_a_refusal_is_a_status_with_the_same_reason() {
        for (refused, code, reason) in [
            (over(), Code::ResourceExhausted, Some(ErrorReason::QuotaExceeded)),
            (
                lacking(),
                Code::FailedPrecondition,
                Some(ErrorReason::SubscriptionRequired),
            ),
            (
                Refused::Away,
                Code::Unavailable,
                Some(ErrorReason::CountersUnreachable),
            ),
            (Refused::Nobody, Code::Unauthenticated, None),
        ] {
            let answer: Response<Body<http_body_util::Empty<bytes::Bytes>>> =
                refused.answer(Wire::Grpc, None);
            assert_eq!(answer.status(), StatusCode::OK);
            let status = Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!((status.code(), status.reason()), (code, reason));
        }
        let answer: Response<Body<http_body_util::Empty<bytes::Bytes>>> = over().answer(Wire::Grpc, None);
        let status = Status::from_header_map(answer.headers()).expect("a status");
        let failure = status.get_details_quota_failure().expect("what is over");
        let subjects: Vec<&str> = failure
            .violations
            .iter()
            .map(|one| one.subject.as_str())
            .collect();
        assert_eq!(
            (subjects, status.retry_after()),
            (vec!["api.requests"], Some(Duration::from_secs(60)))
        );
    }

    #[test]
    fn what_is_spoken_is_seen_by_the_content_type() {
        for (content_type, wire) in [
            ("application/grpc", Wire::Grpc),
            ("application/grpc+proto", Wire::Grpc),
            ("application/json", Wire::Http),
        ] {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(Wire::of(&headers), wire);
        }
        assert_eq!(Wire::of(&HeaderMap::new()), Wire::Http);
    }
}
