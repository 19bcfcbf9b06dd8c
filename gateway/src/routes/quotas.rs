//! `/api/account/quotas`: where the account stands.

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::quota::v1::{GetCurrentUsageRequest, GetEntitlementsRequest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{LimitState, Stage, part, time},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    query::Query,
};

/// Where the account stands at each of its limits, and what it is entitled to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Quotas {
    /// The plan's slug.
    plan: String,
    plan_version: u32,
    /// The features that the plan turns on.
    features: Vec<String>,
    stage: Stage,
    /// Ordered by metric and period.
    limits: Vec<LimitState>,
    /// The instant this was true.
    as_of_time: Timestamp,
}

/// Where the account stands at each of its limits.
#[utoipa::path(
    get, path = "/api/account/quotas", operation_id = "getQuotas", tag = "account",
    params(("metrics" = Option<String>, Query, description = "Only these metrics, separated by commas.")),
    responses((status = 200, description = "The quotas.", body = Quotas))
)]
pub(crate) async fn quotas(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Quotas>, Problem> {
    let metrics = query.list("metrics");
    query.finish()?;
    let usage = caller.request(GetCurrentUsageRequest {
        account_id: caller.account_id(),
        metrics,
    });
    let entitlements = caller.request(GetEntitlementsRequest {
        account_id: caller.account_id(),
    });
    let (mut first, mut second) = (edge.quota(), edge.quota());
    let (usage, entitled) = futures::try_join!(
        first.get_current_usage(usage),
        second.get_entitlements(entitlements)
    )
    .map_err(|status| Problem::of("quota", &status, SAME_NAMES))?;
    let (usage, entitled) = (usage.into_inner(), entitled.into_inner());
    let entitlements = part(entitled.entitlements, "entitlements")?;
    Ok(Json(Quotas {
        plan: entitlements.plan,
        plan_version: entitlements.plan_version,
        features: entitlements.features,
        stage: Stage::from_proto(entitled.stage),
        limits: usage
            .limits
            .into_iter()
            .map(LimitState::from_proto)
            .collect::<Result<_, _>>()?,
        as_of_time: time(usage.as_of_time.as_ref())?,
    }))
}
