//! Decisions while the ledger or the database is away: each limit says what happens then.

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
    fleet::{APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour, tell},
};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Status};

use crate::asks::{check_refusal, consume, decide, ledger_total, peek, refusal, standing, upsert_account};

const ACCOUNT: &str = "acme";
/// A hundred an hour: HARD with LEASE.
const LEASED: &str = "jobs.run";
/// A hundred an hour: HARD with DENY.
pub(crate) const DENIED: &str = "jobs.denied";
/// A hundred an hour: SOFT with ALLOW.
pub(crate) const ALLOWED: &str = "jobs.allowed";

pub(crate) async fn apply_catalog(fleet: &Fleet) -> Result<(Clients, Clients)> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let (mut metrics, mut limits) = (Vec::new(), Vec::new());
    for (slug, mode, policy) in [
        (LEASED, "hard", "lease"),
        (DENIED, "hard", "deny"),
        (ALLOWED, "soft", "allow"),
    ] {
        metrics.push(format!(
            "{{ slug: {slug}, kind: flow, aggregation: sum, unit: job, name: {{ en: Jobs, fr: Travaux }} }}"
        ));
        limits.push(format!(
            "{{ metric: {slug}, period: hour, amount: 100, mode: {mode}, unreachable: {policy} }}"
        ));
    }
    let document = catalog::with(&metrics, &limits)?;
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
            .check_quota(peek(ACCOUNT, &[(LEASED, 1)]))
            .await?;
        ensure!(look.get_ref().limits.len() == 1, "{look:?}");
        Ok(())
    })
    .await?;
    Ok((app, operator))
}

async fn ask(app: &Clients, id: &str, metric: &str, amount: i64) -> Result<CheckQuotaResponse, Status> {
    decide(app, consume(ACCOUNT, id, &[(metric, amount)])).await
}

/// A part of each limit comes into the memory of the replica.
async fn all_are_known(app: &Clients) -> Result<()> {
    // First the one that waits for the ledger as long as it takes: a fleet that has just started takes its time.
    for metric in [DENIED, LEASED, ALLOWED] {
        let taken = ask(app, &format!("first-{metric}"), metric, 1).await?;
        ensure!(taken.allowed && !taken.degraded, "{taken:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_ledger_is_away_each_limit_does_what_its_policy_says() -> Result<()> {
    tell(Fleet::builder(Topology::Split), while_the_ledger_is_away).await
}

async fn while_the_ledger_is_away(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    all_are_known(&app).await?;
    fleet.kill("usage").await?;

    let mut leased = 1;
    for number in 0..200 {
        let answer = ask(&app, &format!("l-{number}"), LEASED, 1).await;
        let Ok(answer) = answer else { break };
        if !answer.allowed {
            break;
        }
        ensure!(answer.degraded, "{answer:?}");
        leased += 1;
    }
    ensure!(
        leased == 100,
        "{leased}: the limit is kept, and all of it can be had"
    );
    let again = CheckQuotaRequest {
        repeat: true,
        ..consume(ACCOUNT, "l-0", &[(LEASED, 1)])
    };
    let again = decide(&app, again).await?;
    ensure!(again.allowed && again.repeated_request, "{again:?}");
    let answer = app
        .quota
        .clone()
        .check_quota(consume(ACCOUNT, "d-1", &[(DENIED, 1)]))
        .await;
    let away = refusal(Code::Unavailable, ErrorReason::DependencyUnavailable);
    check_refusal("a limit that denies", answer, away)?;
    for number in 0..10 {
        let answer = ask(&app, &format!("a-{number}"), ALLOWED, 20).await?;
        ensure!(answer.allowed && answer.degraded, "{answer:?}");
    }

    // What was answered outlives its process.
    fleet.kill("quota").await?;
    fleet.restart("usage").await?;
    fleet.restart("quota").await?;
    for (metric, amount) in [(LEASED, leased), (DENIED, 1), (ALLOWED, 201)] {
        eventually("the ledger has what was answered", async || {
            let total = ledger_total(&operator, ACCOUNT, metric).await?;
            ensure!(total.decided_amount == amount, "{amount} of {metric}: {total:?}");
            let hour = standing(&app, ACCOUNT, metric, Period::Hour).await?;
            ensure!(hour.used == amount, "{amount} of {metric}: {hour:?}");
            Ok(())
        })
        .await?;
    }
    let again = decide(&app, consume(ACCOUNT, "l-0", &[(LEASED, 1)])).await?;
    ensure!(again.allowed && again.repeated_request, "{again:?}");
    Ok(())
}

/// As many accounts as together have more events than one call of the ledger may have, after a few rounds.
const MANY: u32 = 2_600;
const ROUNDS: u32 = 5;
/// How many ask at the same time.
const AT_ONCE: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_is_answered_while_the_ledger_is_away_it_is_told_later() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).set("quota.slices.lease_ms", "600000");
    tell(fleet, much_is_answered_while_the_ledger_is_away).await
}

async fn much_is_answered_while_the_ledger_is_away(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let metric = "{ slug: clicks, kind: flow, aggregation: sum, recording: buffered, unit: click, \
                  name: { en: Clicks, fr: Clics } }";
    let limit = "{ metric: clicks, period: lifetime, amount: 1000, mode: hard, unreachable: lease }";
    let document = catalog::with(&[metric.to_owned()], &[limit.to_owned()])?;
    let request = ApplyCatalogRequest { document };
    operator.billing.clone().apply_catalog(request).await?;
    let everybody = || (0..MANY).map(|number| format!("account-{number}"));
    let created = everybody().map(|account| {
        let app = app.clone();
        async move { upsert_account(&app, &account).await }
    });
    stream::iter(created)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    eventually("quota has the catalog", async || {
        let look = decide(&app, peek("account-0", &[("clicks", 1)])).await?;
        ensure!(look.limits.len() == 1, "{look:?}");
        Ok(())
    })
    .await?;
    for round in 0..ROUNDS {
        if round == 1 {
            fleet.kill("usage").await?;
        }
        let clicks = everybody().map(|account| {
            let (app, id) = (app.clone(), format!("r-{round}"));
            async move { decide(&app, consume(&account, &id, &[("clicks", 1)])).await }
        });
        let answers: Vec<CheckQuotaResponse> = stream::iter(clicks)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let denied = answers.iter().find(|answer| !answer.allowed);
        ensure!(denied.is_none(), "{denied:?}");
    }
    fleet.restart("usage").await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("the ledger has all that was answered", async || {
        let told: Option<String> =
            sqlx::query_scalar("SELECT sum(amount)::text FROM usage.ledger WHERE metric = 'clicks'")
                .fetch_one(&mut session)
                .await?;
        ensure!(told == Some((MANY * ROUNDS).to_string()), "{told:?}");
        Ok(())
    })
    .await?;
    session.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_and_what_it_allowed_is_told_to_the_ledger() -> Result<()> {
    let fleet = Fleet::builder(Topology::Split).set("quota.slices.lease_ms", "2000");
    tell(fleet, a_lease_ends).await
}

async fn a_lease_ends(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = apply_catalog(fleet).await?;
    all_are_known(&app).await?;
    fleet.kill("usage").await?;
    let first = ask(&app, "l-1", LEASED, 2).await?;
    ensure!(first.allowed && first.degraded, "{first:?}");
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let answer = app
        .quota
        .clone()
        .check_quota(consume(ACCOUNT, "l-2", &[(LEASED, 1)]))
        .await;
    let away = refusal(Code::Unavailable, ErrorReason::DependencyUnavailable);
    check_refusal("after the lease", answer, away)?;
    fleet.restart("usage").await?;
    eventually("the ledger has what was answered", async || {
        let total = ledger_total(&operator, ACCOUNT, LEASED).await?;
        ensure!(total.decided_amount == 3, "{total:?}");
        Ok(())
    })
    .await?;
    let taken = eventually("the ledger is asked again", async || {
        Ok(ask(&app, "l-3", LEASED, 1).await?)
    })
    .await?;
    ensure!(taken.allowed && !taken.degraded, "{taken:?}");
    Ok(())
}
