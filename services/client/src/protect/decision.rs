//! The document that says why not: the same as the gateway's, member for member.

use bytes::Bytes;
use jiff::Timestamp;
use octroi_proto::{
    common::v1::LimitMode,
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaResponse, DenialReason, LimitStatus},
};
use serde::Serialize;

use super::{
    rate_limit::{period_name, retry_after_s},
    refusal::{Refused, Said},
};

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    page: Option<String>,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision<'a>>,
}

#[derive(Serialize)]
struct Decision<'a> {
    allowed: bool,
    decision_id: &'a str,
    reason: Option<&'static str>,
    limits: Vec<Limit<'a>>,
    binding_limit: Option<u32>,
    retry_after_s: Option<u64>,
    missing_features: Vec<MissingFeature<'a>>,
    degraded: bool,
    repeated_request: bool,
}

#[derive(Serialize)]
struct Limit<'a> {
    metric: &'a str,
    period: &'static str,
    limit: u64,
    used: u64,
    held: u64,
    remaining: u64,
    window_start_time: Option<Timestamp>,
    window_end_time: Option<Timestamp>,
    mode: &'static str,
    overage: u64,
    would_deny: bool,
    stage_factor_percent: u32,
}

#[derive(Serialize)]
struct MissingFeature<'a> {
    feature: &'a str,
    plans: &'a [String],
}

/// The text of the document.
pub(super) fn problem(refused: &Refused, said: &Said, error_pages: Option<&str>) -> Bytes {
    let (status, reason, title, detail) = said.parts();
    let decision = match refused {
        Refused::Denied(decision) => Some(Decision::of(decision)),
        Refused::Nobody | Refused::Away | Refused::NoId | Refused::Failed(_) => None,
    };
    let page = |reason: ErrorReason| {
        let name = reason.name().to_lowercase().replace('_', "-");
        error_pages.map(|base| format!("{}/{name}", base.trim_end_matches('/')))
    };
    let problem = Problem {
        page: reason.and_then(page),
        title,
        status,
        detail,
        reason: reason.map(|reason| reason.name()),
        decision,
    };
    // Texts, numbers and times only: it always can be written.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

impl<'a> Decision<'a> {
    fn of(decision: &'a CheckQuotaResponse) -> Self {
        let missing = |one: &'a octroi_proto::common::v1::FeaturePlans| MissingFeature {
            feature: &one.feature,
            plans: &one.plans,
        };
        Self {
            allowed: decision.allowed,
            decision_id: &decision.decision_id,
            reason: match decision.reason() {
                DenialReason::Unspecified => None,
                DenialReason::QuotaExceeded => Some("quota_exceeded"),
                DenialReason::SubscriptionRequired => Some("subscription_required"),
                DenialReason::Held => Some("held"),
            },
            limits: decision.limits.iter().map(Limit::of).collect(),
            binding_limit: decision.binding_limit,
            retry_after_s: retry_after_s(decision),
            missing_features: decision.missing_features.iter().map(missing).collect(),
            degraded: decision.degraded,
            repeated_request: decision.repeated_request,
        }
    }
}

impl<'a> Limit<'a> {
    fn of(limit: &'a LimitStatus) -> Self {
        let time = |time: Option<&prost_types::Timestamp>| {
            let time = time?;
            Timestamp::new(time.seconds, time.nanos).ok()
        };
        Self {
            metric: &limit.metric,
            period: period_name(limit),
            limit: limit.limit,
            used: limit.used,
            held: limit.held,
            remaining: limit.remaining,
            window_start_time: time(limit.window_start_time.as_ref()),
            window_end_time: time(limit.window_end_time.as_ref()),
            mode: match limit.mode() {
                LimitMode::Hard => "hard",
                LimitMode::Soft => "soft",
                LimitMode::Shadow => "shadow",
                LimitMode::Unspecified => "unknown",
            },
            overage: limit.overage,
            would_deny: limit.would_deny,
            stage_factor_percent: limit.stage_factor_percent,
        }
    }
}
