//! Metrics whose decisions are answered before the ledger has them.

use anyhow::{Result, ensure};
use octroi_proto::{
    billing::v1::ApplyCatalogRequest, common::v1::Period, errors::v1::ErrorReason,
    quota::v1::CheckQuotaResponse,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour};
use tonic::{Code, Status};

use crate::{
    asks::{check_refusal, consume, ledger_total, peek, refusal, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(
    what_is_answered_at_once_is_in_the_ledger_soon_and_never_above_the_limit,
    a_request_that_comes_again_takes_nothing,
    what_a_replica_did_not_record_dies_with_it_and_stays_counted,
);

const ACCOUNT: &str = "acme";
const METRIC: &str = "clicks";
const LIMIT: u64 = 200;

/// Lets accounts without a subscription click so often an hour.
async fn apply_catalog(fleet: &Fleet) -> Result<(Clients, Clients)> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let metric = "metrics:
  - { slug: clicks, kind: flow, aggregation: sum, recording: buffered, unit: click, name: { en: Clicks, fr: Clics } }
";
    let limit = format!("{{ metric: {METRIC}, period: hour, amount: {LIMIT}, mode: hard }}");
    let (before, free) = octroi_fleet::seed::CATALOG
        .split_once("- slug: free")
        .unwrap_or_default();
    let free = free.replacen("limits:\n", &format!("limits:\n      - {limit}\n"), 1);
    let document = format!("{}- slug: free{free}", before.replacen("metrics:\n", metric, 1));
    operator
        .billing
        .clone()
        .apply_catalog(ApplyCatalogRequest { document })
        .await?;
    upsert_account(&app, ACCOUNT).await?;
    eventually("quota has the catalog", async || {
        let look = app
            .quota
            .clone()
            .check_quota(peek(ACCOUNT, &[(METRIC, 1)]))
            .await?;
        ensure!(look.get_ref().limits.len() == 1, "{look:?}");
        Ok(())
    })
    .await?;
    Ok((app, operator))
}

async fn click(app: &Clients, request_id: &str, amount: i64) -> Result<CheckQuotaResponse, Status> {
    let request = consume(ACCOUNT, request_id, &[(METRIC, amount)]);
    Ok(app.quota.clone().check_quota(request).await?.into_inner())
}

async fn what_is_answered_at_once_is_in_the_ledger_soon_and_never_above_the_limit(
    fleet: &mut Fleet,
) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    // More ask than the limit allows, at the same time.
    let clicks = (0..LIMIT + 100).map(|number| {
        let app = app.clone();
        async move { click(&app, &format!("r-{number}"), 1).await }
    });
    let answers = futures::future::try_join_all(clicks).await?;
    let allowed = answers.iter().filter(|answer| answer.allowed).count();
    ensure!(allowed == usize::try_from(LIMIT)?, "{allowed} were allowed");
    let used = standing(&app, ACCOUNT, METRIC, Period::Hour).await?;
    ensure!((used.used, used.remaining) == (LIMIT, 0), "{used:?}");
    eventually("the ledger has what was allowed", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(
            (total.decided_amount, total.charged_amount, total.direct_amount) == (LIMIT, LIMIT, 0),
            "{total:?}"
        );
        Ok(())
    })
    .await
}

async fn a_request_that_comes_again_takes_nothing(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    for _ in 0..3 {
        let answer = click(&app, "r-1", 3).await?;
        ensure!(answer.allowed, "{answer:?}");
    }
    let other = app
        .quota
        .clone()
        .check_quota(consume(ACCOUNT, "r-1", &[(METRIC, 4)]))
        .await;
    let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
    check_refusal("another content", other, expected)?;
    let all = click(&app, "r-2", i64::try_from(LIMIT)? - 3).await?;
    ensure!(all.allowed, "{all:?}");
    let denied = click(&app, "r-3", 1).await?;
    ensure!(!denied.allowed && denied.remaining_of_first() == 0, "{denied:?}");
    let again = click(&app, "r-3", 1).await?;
    ensure!(!again.allowed && again.repeated_request, "{again:?}");
    eventually("the ledger has it once", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(total.decided_amount == LIMIT, "{total:?}");
        Ok(())
    })
    .await
}

trait First {
    fn remaining_of_first(&self) -> u64;
}

impl First for CheckQuotaResponse {
    fn remaining_of_first(&self) -> u64 {
        self.limits.first().map_or(u64::MAX, |limit| limit.remaining)
    }
}

async fn what_a_replica_did_not_record_dies_with_it_and_stays_counted(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    let first = click(&app, "r-1", 10).await?;
    ensure!(first.allowed, "{first:?}");
    fleet.kill("quota").await?;
    fleet.restart("quota").await?;

    // Whatever of the slice was not spent or not recorded is not sold again.
    let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
    ensure!([0, 10].contains(&total.decided_amount), "{total:?}");
    let mut allowed = 0;
    for number in 0..LIMIT {
        allowed += u64::from(click(&app, &format!("r-after-{number}"), 1).await?.allowed);
    }
    ensure!(allowed <= LIMIT - 10, "{allowed} of {} after 10", LIMIT);
    let stranded = LIMIT - 10 - allowed;
    ensure!(
        stranded <= LIMIT / 4,
        "{stranded} are stranded: more than the slice of the dead replica"
    );
    Ok(())
}
