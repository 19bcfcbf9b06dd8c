//! `/api/quota/check`: may the account do this now?

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue},
    response::{AppendHeaders, IntoResponse, Response},
};
use octroi_client::protect::{rate_limit, why_denied};
use octroi_proto::{
    errors::v1::ErrorReason,
    quota::v1::{self as quota, CheckQuotaRequest},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    amount::Amount,
    body::{Body, Object, given},
    convert::{CheckMode, Decision, DenialReason},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
};

/// One metric and how much of it is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckItem {
    /// The metric's slug.
    metric: String,
    amount: Amount,
}

/// What the account is to be allowed. It is the key's account, so none is named.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaCheck {
    mode: CheckMode,
    /// Up to 16 metrics, each named once. May be absent where features are asked for.
    #[serde(default)]
    #[schema(value_type = Vec<CheckItem>, max_items = 16)]
    items: Vec<Object<CheckItem>>,
    /// Up to 16 features, all of them required.
    #[serde(default)]
    #[schema(max_items = 16)]
    features: Vec<String>,
    /// Makes `consume` repeatable and is required for it: 1 to 128 of `[A-Za-z0-9_.:-]`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    request_id: Option<String>,
}

/// The refusal of a decision that does not allow.
fn denied(
    decision: Decision,
    detail: String,
    headers: impl Iterator<Item = (HeaderName, HeaderValue)>,
) -> Problem {
    let reason = match decision.reason {
        Some(DenialReason::SubscriptionRequired) => ErrorReason::SubscriptionRequired,
        _ => ErrorReason::QuotaExceeded,
    };
    let mut problem = Problem::new(reason, detail);
    if let Some(seconds) = decision.retry_after_s {
        problem = problem.with_retry_after(seconds);
    }
    for (name, value) in headers {
        problem = problem.with_header(name, value);
    }
    problem.with_decision(decision)
}

/// Decide whether the key's account may do this now, and take it where the mode is `consume`.
///
/// The answer 200 means yes. No is 429 (QUOTA_EXCEEDED, with `Retry-After` where waiting helps) or 402
/// (SUBSCRIPTION_REQUIRED); the problem then carries the decision.
#[utoipa::path(
    post, path = "/api/quota/check", operation_id = "checkQuota", tag = "programs",
    request_body = QuotaCheck,
    responses((
        status = 200, description = "The account may.", body = Decision,
        headers(
            ("RateLimit-Policy" = String, description = "The limits that were looked at."),
            ("RateLimit" = String, description = "What is left of each.")
        )
    ))
)]
pub(crate) async fn check_quota(
    State(edge): State<Edge>,
    caller: Caller,
    Body(body): Body<QuotaCheck>,
) -> Result<Response, Problem> {
    let as_item = |Object(item): Object<CheckItem>| quota::CheckItem {
        metric: item.metric,
        amount: item.amount.get(),
    };
    let request = CheckQuotaRequest {
        account_id: caller.account_id(),
        items: body.items.into_iter().map(as_item).collect(),
        features: body.features,
        mode: body.mode.to_proto(),
        request_id: body.request_id.unwrap_or_default(),
        event_time: None,
        backfill: false,
        repeat: false,
    };
    let answer = edge
        .quota()
        .check_quota(caller.request(request))
        .await
        .map_err(|status| Problem::of("quota", &status, SAME_NAMES))?;
    let answer = answer.into_inner();
    let headers = rate_limit(&answer);
    if !answer.allowed {
        let detail = why_denied(&answer);
        return Err(denied(Decision::from_proto(answer)?, detail, headers));
    }
    let decision = Decision::from_proto(answer)?;
    Ok((AppendHeaders(headers), Json(decision)).into_response())
}
