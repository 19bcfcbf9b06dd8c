//! Metrics whose decisions are answered before the ledger has them.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use octroi_proto::{
    billing::v1::ApplyCatalogRequest,
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaRequest, CheckQuotaResponse},
};
use octroi_tests::harness::{
    catalog,
    fleet::{APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour, tell, within},
};
use tonic::{Code, Status};

use crate::{
    asks::{check_refusal, consume, decide, ledger_total, peek, refusal, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(
    what_is_answered_at_once_is_in_the_ledger_soon_and_never_above_the_limit,
    a_request_that_comes_again_takes_nothing,
    what_a_replica_did_not_record_dies_with_it_and_stays_counted,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_replica_set_aside_is_had_soon() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).replicas("quota", 2);
    tell(fleet, what_one_set_aside_the_other_has).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_carved_for_a_check_of_both_kinds_is_sold_once() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).replicas("quota", 2);
    tell(fleet, what_both_kinds_asked_for_is_sold_once).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_reaches_another_replica_is_known_there() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).replicas("quota", 2);
    tell(fleet, what_one_answered_the_other_knows).await
}

const ACCOUNT: &str = "acme";
const METRIC: &str = "clicks";
const LIMIT: u64 = 200;
/// How many ask at the same time.
const AT_ONCE: usize = 64;

/// Lets accounts without a subscription click so often an hour.
pub(crate) async fn apply_catalog(fleet: &Fleet) -> Result<(Clients, Clients)> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let metric = format!(
        "{{ slug: {METRIC}, kind: flow, aggregation: sum, recording: buffered, unit: click, \
         name: {{ en: Clicks, fr: Clics }} }}"
    );
    let limit = format!("{{ metric: {METRIC}, period: hour, amount: {LIMIT}, mode: hard }}");
    let document = catalog::with(&[metric], &[limit])?;
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
    decide(app, consume(ACCOUNT, request_id, &[(METRIC, amount)])).await
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
    let answers: Vec<CheckQuotaResponse> = stream::iter(clicks)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
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

async fn what_both_kinds_asked_for_is_sold_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (first, operator) = apply_catalog(fleet).await?;
    let second = fleet.clients_at(APPLICATION, "quota-2")?;
    // It is answered once the ledger has it; what is carved for it is left at the first replica.
    let both = consume(ACCOUNT, "both", &[(METRIC, 1), ("api.requests", 1)]);
    let taken = decide(&first, both).await?;
    ensure!(taken.allowed, "{taken:?}");
    let mut allowed = 1;
    for number in 0..2 * LIMIT {
        let app = if number % 3 == 0 { &second } else { &first };
        allowed += u64::from(click(app, &format!("r-{number}"), 1).await?.allowed);
    }
    ensure!(allowed <= LIMIT, "{allowed} of {LIMIT} were allowed");
    eventually(
        "the ledger has what was allowed, all of it paid by slices",
        async || {
            let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
            ensure!(
                (total.decided_amount, total.charged_amount) == (allowed, allowed),
                "{allowed}: {total:?}"
            );
            Ok(())
        },
    )
    .await
}

async fn what_one_answered_the_other_knows(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    let other = fleet.clients_at(APPLICATION, "quota-2")?;
    for number in 0..20 {
        let taken = click(&app, &format!("r-{number}"), 2).await?;
        ensure!(taken.allowed && !taken.repeated_request, "{taken:?}");
    }
    let repeat = |request_id: &str, amount: i64| CheckQuotaRequest {
        repeat: true,
        ..consume(ACCOUNT, request_id, &[(METRIC, amount)])
    };
    // Within a moment, and promised after 100 ms.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for number in 0..20 {
        let again = decide(&other, repeat(&format!("r-{number}"), 2)).await?;
        ensure!(again.allowed && again.repeated_request, "{again:?}");
    }
    let reused = other.quota.clone().check_quota(repeat("r-1", 3)).await;
    check_refusal(
        "another amount",
        reused,
        refusal(Code::AlreadyExists, ErrorReason::RequestIdReused),
    )?;
    let new = decide(&other, repeat("r-new", 2)).await?;
    ensure!(new.allowed && !new.repeated_request, "{new:?}");
    eventually("the ledger has each once", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(total.decided_amount == 42, "{total:?}");
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

async fn what_one_set_aside_the_other_has(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (first, operator) = apply_catalog(fleet).await?;
    let second = fleet.clients_at(APPLICATION, "quota-2")?;
    // The first has a share of the limit from now on, and asks no more.
    let clicked = click(&first, "r-first", 1).await?;
    ensure!(clicked.allowed, "{clicked:?}");
    let (mut allowed, mut denied, mut number) = (1, 0, 0);
    // Slices that nobody touches are kept for half a minute: that is not waited for.
    let soon = Duration::from_secs(10);
    within(soon, "the second has all of the rest", async || {
        while allowed < LIMIT {
            number += 1;
            let answer = click(&second, &format!("r-{number}"), 1).await?;
            if !answer.allowed {
                denied += 1;
                anyhow::bail!("denied after {allowed}");
            }
            allowed += 1;
        }
        Ok(())
    })
    .await?;
    ensure!(denied > 0, "the first had set nothing aside");
    let beyond = click(&second, "r-beyond", 1).await?;
    ensure!(!beyond.allowed, "{beyond:?}");
    eventually("the ledger has the limit, and no more", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(total.decided_amount == LIMIT, "{total:?}");
        Ok(())
    })
    .await
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
