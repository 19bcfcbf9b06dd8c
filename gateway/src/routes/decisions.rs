//! `/api/account/decisions/{id}`: why was a request allowed or denied?

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use jiff::Timestamp;
use octroi_proto::{
    errors::v1::ErrorReason,
    quota::v1::{self as quota, ExplainDecisionRequest},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{
        DecisionAction, DenialReason, ExplanationDetail, HoldEndState, LimitState, MissingFeature, Recording,
        Stage, optional_time, part,
    },
    edge::Edge,
    problem::{Problem, SAME_NAMES},
};

/// What was asked for of one metric.
#[derive(Serialize, ToSchema)]
pub(crate) struct AskedItem {
    /// The metric's slug.
    metric: String,
    amount: i64,
}

/// What replaced the amount of a plan's limit.
#[derive(Serialize, ToSchema)]
pub(crate) struct Override {
    amount: u64,
    /// Until when; null where it held until it was cleared.
    expire_time: Option<Timestamp>,
    /// Why.
    note: String,
}

/// One limit as the decision found it, with what it was made of.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainedLimit {
    /// Where the account stood: with the amount where it was taken, without where not.
    state: LimitState,
    /// What was asked of it.
    amount: u64,
    /// The amount in the plan.
    plan_amount: u64,
    /// What replaced that amount; null where nothing did.
    r#override: Option<Override>,
    /// Where a soft limit ends; null where nothing ends it.
    ceiling: Option<u64>,
}

/// What a commit recorded of one metric.
#[derive(Serialize, ToSchema)]
pub(crate) struct CommittedItem {
    /// The metric's slug.
    metric: String,
    amount: u64,
    /// The part that no limit had room for.
    overrun: u64,
}

/// What became of a hold.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainedHold {
    /// When it expires, as it was promised first.
    expire_time: Option<Timestamp>,
    /// How it ended; null where no call ended it.
    end: Option<HoldEndState>,
    end_time: Option<Timestamp>,
    /// What its commit recorded.
    items: Vec<CommittedItem>,
    /// It had expired before its commit.
    late: bool,
}

/// Why a request was allowed or denied, as things were then.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    decision_id: String,
    /// The service that asked.
    caller: String,
    /// The request, as its caller named it; null for a look.
    request_id: Option<String>,
    /// How much is still known; what is not is null or empty.
    detail: ExplanationDetail,
    action: DecisionAction,
    decide_time: Option<Timestamp>,
    /// The instant whose windows it counts in.
    effective_time: Option<Timestamp>,
    allowed: bool,
    /// Why not; null where allowed.
    reason: Option<DenialReason>,
    /// The index in `limits` of the one that denied.
    binding_limit: Option<u32>,
    items: Vec<AskedItem>,
    limits: Vec<ExplainedLimit>,
    missing_features: Vec<MissingFeature>,
    /// Decided without the counters, by the limits' policy.
    degraded: bool,
    /// The request had come before, and this was the answer to it again.
    repeated_request: bool,
    recording: Option<Recording>,
    stage: Option<Stage>,
    /// The plan's slug.
    plan: Option<String>,
    plan_version: u32,
    entitlements_version: u64,
    catalog_version: u64,
    account_revision: u64,
    hold: Option<ExplainedHold>,
    /// All of it in English, for people.
    sentence: String,
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn from_proto_limit(limit: quota::ExplainedLimit) -> Result<ExplainedLimit, Problem> {
    let replaced = limit.r#override.map(|replaced| {
        Ok::<_, Problem>(Override {
            amount: replaced.amount,
            expire_time: optional_time(replaced.expire_time.as_ref())?,
            note: replaced.note,
        })
    });
    Ok(ExplainedLimit {
        state: LimitState::from_proto(part(limit.status, "a limit's state")?)?,
        amount: limit.amount,
        plan_amount: limit.plan_amount,
        r#override: replaced.transpose()?,
        ceiling: limit.ceiling,
    })
}

fn from_proto_hold(hold: quota::ExplainedHold) -> Result<ExplainedHold, Problem> {
    let items = hold.items.into_iter().map(|item| CommittedItem {
        metric: item.metric,
        amount: item.amount,
        overrun: item.overrun,
    });
    Ok(ExplainedHold {
        expire_time: optional_time(hold.expire_time.as_ref())?,
        end: (hold.end != 0).then(|| HoldEndState::from_proto(hold.end)),
        end_time: optional_time(hold.end_time.as_ref())?,
        items: items.collect(),
        late: hold.late,
    })
}

fn from_proto_explanation(found: quota::DecisionExplanation) -> Result<Explanation, Problem> {
    let items = found.items.into_iter().map(|item| AskedItem {
        metric: item.metric,
        amount: item.amount,
    });
    let missing = found.missing_features.into_iter().map(|one| MissingFeature {
        feature: one.feature,
        plans: one.plans,
    });
    Ok(Explanation {
        caller: found.caller,
        request_id: given(found.request_id),
        detail: ExplanationDetail::from_proto(found.detail),
        action: DecisionAction::from_proto(found.action),
        decide_time: optional_time(found.decide_time.as_ref())?,
        effective_time: optional_time(found.effective_time.as_ref())?,
        allowed: found.allowed,
        reason: (found.reason != 0).then(|| DenialReason::from_proto(found.reason)),
        binding_limit: found.binding_limit,
        items: items.collect(),
        limits: found
            .limits
            .into_iter()
            .map(from_proto_limit)
            .collect::<Result<_, _>>()?,
        missing_features: missing.collect(),
        degraded: found.degraded,
        repeated_request: found.repeated_request,
        recording: (found.recording != 0).then(|| Recording::from_proto(found.recording)),
        stage: (found.stage != 0).then(|| Stage::from_proto(found.stage)),
        plan: given(found.plan),
        plan_version: found.plan_version,
        entitlements_version: found.entitlements_version,
        catalog_version: found.catalog_version,
        account_revision: found.account_revision,
        hold: found.hold.map(from_proto_hold).transpose()?,
        sentence: found.sentence,
        decision_id: found.decision_id,
    })
}

/// Why a request of the account was allowed or denied.
#[utoipa::path(
    get, path = "/api/account/decisions/{decision_id}", operation_id = "explainDecision", tag = "account",
    params(("decision_id" = String, Path, description = "The decision's id.")),
    responses((status = 200, description = "The explanation.", body = Explanation))
)]
pub(crate) async fn explain_decision(
    State(edge): State<Edge>,
    caller: Caller,
    decision_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Explanation>, Problem> {
    let not_found = || {
        Problem::new(
            ErrorReason::DecisionExpired,
            "the account has no such decision any more",
        )
    };
    let Ok(Path(decision_id)) = decision_id else {
        return Err(not_found());
    };
    let request = ExplainDecisionRequest {
        account_id: caller.account_id(),
        decision_id,
        ..ExplainDecisionRequest::default()
    };
    let answer = edge
        .quota()
        .explain_decision(caller.request(request))
        .await
        .map_err(|status| {
            let problem = Problem::of("quota", &status, SAME_NAMES);
            // An id that cannot be one is, for a path, an id that does not exist.
            if problem.reason() == ErrorReason::FieldInvalid.name() {
                not_found()
            } else {
                problem
            }
        })?;
    from_proto_explanation(part(answer.into_inner().explanation, "an explanation")?).map(Json)
}
