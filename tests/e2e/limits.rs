//! Which limits an account has, and what replaces them for it alone.

mod consumers;
mod replaced;
mod thresholds;

use anyhow::{Context as _, Result};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{
        ClearLimitOverrideRequest, ClearLimitOverrideResponse, LimitOverride, LimitSource, ListLimitsRequest,
        SetLimitOverrideRequest, SetLimitOverrideResponse,
    },
};
use octroi_tests::harness::fleet::{Clients, Fleet, Topology, tell};
use tonic::{Response, Status};

pub(crate) use self::replaced::apply;
use self::{
    consumers::sixteen_consumers_tell_each_share_once,
    replaced::{
        a_ceiling_gives_way_to_an_override_above_it, an_override_ends_at_its_time,
        an_override_holds_at_once_until_it_is_cleared, replicas_share_what_was_replaced,
    },
    thresholds::a_limit_that_changes_tells_only_of_shares_that_were_not_passed,
};
use crate::story::both_topologies;

both_topologies!(
    a_ceiling_gives_way_to_an_override_above_it,
    a_limit_that_changes_tells_only_of_shares_that_were_not_passed,
    an_override_ends_at_its_time,
    an_override_holds_at_once_until_it_is_cleared,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_acts_on_every_replica_within_a_second() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).replicas("quota", 2);
    tell(fleet, replicas_share_what_was_replaced).await
}

const ACCOUNT: &str = "acme";
/// With two consumers each.
const REPLICAS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_consumers_tell_each_share_of_a_limit_once_and_again_after_an_upgrade() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).replicas("quota", REPLICAS);
    tell(fleet, sixteen_consumers_tell_each_share_once).await
}

/// 60 an hour, where nothing was bought.
const METRIC: &str = "api.requests";

/// Replaces a limit by this amount, until it is cleared.
fn to(metric: &str, period: Period, amount: u64) -> SetLimitOverrideRequest {
    SetLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: metric.to_owned(),
        period: period.into(),
        r#override: Some(LimitOverride {
            amount,
            ..LimitOverride::default()
        }),
    }
}

async fn set(
    operator: &Clients,
    request: SetLimitOverrideRequest,
) -> Result<Response<SetLimitOverrideResponse>, Status> {
    operator.quota.clone().set_limit_override(request).await
}

async fn clear(
    operator: &Clients,
    metric: &str,
    period: Period,
) -> Result<Response<ClearLimitOverrideResponse>, Status> {
    let request = ClearLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: metric.to_owned(),
        period: period.into(),
    };
    operator.quota.clone().clear_limit_override(request).await
}

async fn list(clients: &Clients) -> Result<Vec<LimitSource>> {
    let request = ListLimitsRequest {
        account_id: ACCOUNT.to_owned(),
    };
    Ok(clients
        .quota
        .clone()
        .list_limits(request)
        .await?
        .into_inner()
        .limits)
}

/// The amount that holds, the plan's, the one that replaces it, and the share that the stage leaves.
type Made = (u64, u64, Option<u64>, u32);

fn made(source: &LimitSource) -> Result<Made> {
    let limit = source.limit.as_ref().context("no limit")?;
    let replaced = source.r#override.as_ref().map(|replaced| replaced.amount);
    Ok((
        limit.amount,
        source.plan_amount,
        replaced,
        source.stage_factor_percent,
    ))
}

async fn made_of(clients: &Clients, metric: &str, period: Period) -> Result<Made> {
    let limits = list(clients).await?;
    let is_meant = |source: &&LimitSource| {
        (source.limit.as_ref()).is_some_and(|limit| limit.metric == metric && limit.period() == period)
    };
    made(limits.iter().find(is_meant).context("no such limit")?)
}
