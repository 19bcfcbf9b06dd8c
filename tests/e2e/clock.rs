//! The test clock of a sandbox: moved for all services at once, and by nobody anywhere else.

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{
        CheckQuotaResponse, CommitHoldRequest, DenialReason, ReleaseHoldRequest, ReturnQuotaRequest,
    },
    usage::v1::{TrackUsageRequest, UsageEvent},
};
use octroi_tests::harness::{
    backends,
    fleet::{
        APPLICATION, Call, Clients, Ended, Fleet, OPERATOR, Topology, eventually, now, roomy_hour, tell,
    },
};

use sqlx::{Connection as _, PgConnection};

use crate::asks::{consume, event, items, ledger_total, limit_of, reserve, standing, upsert_account};

mod one_process {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_window_is_free_again_once_the_clock_was_moved() -> Result<()> {
        let sandbox = Fleet::builder(Topology::OneProcess).set("sandbox", "true");
        tell(
            sandbox,
            super::a_full_window_is_free_again_once_the_clock_was_moved,
        )
        .await
    }
}

mod split {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_window_is_free_again_once_the_clock_was_moved() -> Result<()> {
        let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
        tell(
            sandbox,
            super::a_full_window_is_free_again_once_the_clock_was_moved,
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_long_ago_is_forgotten() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
    tell(sandbox, a_hold_that_ended_is_kept_and_then_deleted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_may_come_weeks_late() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
    tell(sandbox, a_commit_that_comes_weeks_late_is_recorded).await
}

async fn a_commit_that_comes_weeks_late_is_recorded(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, "acme").await?;
    let reserved = (app.quota.clone())
        .reserve_quota(reserve("acme", "h-1", &[("exports.run", 1)]))
        .await?
        .into_inner();
    in_the_sandbox(fleet, &["move", "480h"]).await?;
    all_services_have_the_time(&app, now() + 480.hours()).await?;
    let commit = CommitHoldRequest {
        account_id: "acme".to_owned(),
        hold_id: reserved.hold_id,
        items: items(&[("exports.run", 1)]),
    };
    let committed = app.quota.clone().commit_hold(commit).await?.into_inner();
    ensure!(committed.late && !committed.repeated_request, "{committed:?}");
    let total = ledger_total(&operator, "acme", "exports.run").await?;
    ensure!(
        (total.decided_amount, total.charged_amount) == (1, 1),
        "{total:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_long_ago_is_given_back_once() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
    tell(sandbox, a_return_that_comes_again_after_weeks_returns_nothing).await
}

async fn a_return_that_comes_again_after_weeks_returns_nothing(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    // 25 may be held, where nothing was bought.
    let take = async |request_id: &str, amount: i64| -> Result<bool> {
        let request = consume("acme", request_id, &[("personas.stored", amount)]);
        Ok(app.quota.clone().check_quota(request).await?.into_inner().allowed)
    };
    let request = ReturnQuotaRequest {
        account_id: "acme".to_owned(),
        items: items(&[("personas.stored", 5)]),
        request_id: "b-1".to_owned(),
    };
    ensure!(take("t-1", 25).await?, "all of it");
    app.quota.clone().return_quota(request.clone()).await?;
    ensure!(take("t-2", 5).await?, "what was given back");
    in_the_sandbox(fleet, &["move", "1200h"]).await?;
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("quota has forgotten that it told its windows", async || {
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM quota.applied_event")
            .fetch_one(&mut session)
            .await?;
        ensure!(known == 0, "{known}");
        Ok(())
    })
    .await?;
    session.close().await?;
    let again = eventually("quota answers again", async || {
        Ok(app
            .quota
            .clone()
            .return_quota(request.clone())
            .await?
            .into_inner())
    })
    .await?;
    ensure!(again.repeated_request, "{again:?}");
    ensure!(!take("t-3", 1).await?, "all of it is held");
    Ok(())
}

/// A call of `octroi clock` where the fleet's databases are.
fn clock(fleet: &Fleet, arguments: &[&str]) -> Result<Call> {
    let call = fleet.operator_call("clock", &[&["clock"], arguments].concat())?;
    Ok(backends::SERVICES.into_iter().fold(call, |call, service| {
        call.set(&format!("{service}.database.url"), fleet.database().url(service))
    }))
}

/// The same in a sandbox; it succeeds.
pub(crate) async fn in_the_sandbox(fleet: &Fleet, arguments: &[&str]) -> Result<Ended> {
    let call = clock(fleet, arguments)?.set("sandbox", "true");
    call.ends().await?.succeeded()
}

async fn decide(app: &Clients, request_id: &str) -> Result<CheckQuotaResponse> {
    let request = consume("acme", request_id, &[("exports.run", 1)]);
    Ok(app.quota.clone().check_quota(request).await?.into_inner())
}

/// Slices of holds that ended.
async fn ended_holds(fleet: &Fleet) -> Result<i64> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let count =
        sqlx::query_scalar("SELECT count(*) FROM quota.slice WHERE kind = 'hold' AND state = 'sealed'")
            .fetch_one(&mut session)
            .await?;
    session.close().await?;
    Ok(count)
}

async fn a_hold_that_ended_is_kept_and_then_deleted(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    let reserved = (app.quota.clone())
        .reserve_quota(reserve("acme", "h-1", &[("exports.run", 1)]))
        .await?
        .into_inner();
    let release = ReleaseHoldRequest {
        account_id: "acme".to_owned(),
        hold_id: reserved.hold_id,
    };
    app.quota.clone().release_hold(release).await?;
    eventually("the hold has ended", async || {
        ensure!(ended_holds(fleet).await? == 1);
        Ok(())
    })
    .await?;
    // It is looked for what is old when a process begins, and from time to time.
    for (later, left) in [("720h", 1), ("2400h", 0)] {
        in_the_sandbox(fleet, &["move", later]).await?;
        fleet.stop("quota").await?;
        fleet.restart("quota").await?;
        eventually("what is old is deleted, and nothing else", async || {
            let count = ended_holds(fleet).await?;
            ensure!(count == left, "{count}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn a_full_window_is_free_again_once_the_clock_was_moved(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    for request_id in ["r-1", "r-2"] {
        let taken = decide(&app, request_id).await?;
        ensure!(taken.allowed, "{taken:?}");
    }
    let full = decide(&app, "r-3").await?;
    ensure!(
        !full.allowed && full.reason() == DenialReason::QuotaExceeded,
        "{full:?}"
    );
    let end = limit_of(&full.limits, "exports.run", Period::Hour)?.window_end_time;

    nobody_moves_the_clock_outside_of_a_sandbox(fleet).await?;
    let still = decide(&app, "r-4").await?;
    ensure!(!still.allowed, "{still:?}");

    // Another hour, and another day.
    let moved = in_the_sandbox(fleet, &["move", "25h"]).await?;
    for service in backends::SERVICES {
        let line = moved.stdout.lines().find(|line| line.starts_with(service));
        let line = line.with_context(|| format!("{service} is not shown: {}", moved.stdout))?;
        ensure!(line.ends_with("25h ahead of the primary"), "{line}");
    }
    all_services_have_the_time(&app, now() + 25.hours()).await?;
    let free = decide(&app, "r-5").await?;
    ensure!(free.allowed, "{free:?}");
    let hour = limit_of(&free.limits, "exports.run", Period::Hour)?;
    ensure!(
        (hour.used, hour.remaining) == (1, 1)
            && hour.window_start_time.map(|at| at.seconds) > end.map(|at| at.seconds),
        "{hour:?} after {end:?}"
    );

    // A process that starts has the moved clock from its first answer on.
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    let full = eventually("quota answers again", async || decide(&app, "r-6").await).await?;
    ensure!(full.allowed, "{full:?}");
    let over = decide(&app, "r-7").await?;
    ensure!(!over.allowed, "{over:?}");

    in_the_sandbox(fleet, &["reset"]).await?;
    let shown = in_the_sandbox(fleet, &["show"]).await?;
    ensure!(
        shown.stdout.lines().count() == backends::SERVICES.len()
            && shown
                .stdout
                .lines()
                .all(|line| line.ends_with("the primary's time")),
        "{}",
        shown.stdout
    );
    eventually("the first window is the present one", async || {
        let hour = standing(&app, "acme", "exports.run", Period::Hour).await?;
        ensure!(hour.window_end_time == end && hour.used == 2, "{hour:?}");
        Ok(())
    })
    .await?;
    let back = decide(&app, "r-8").await?;
    ensure!(!back.allowed, "{back:?}");
    Ok(())
}

/// The ledger takes an event of the moved present, and quota's windows contain it.
pub(crate) async fn all_services_have_the_time(app: &Clients, at: Timestamp) -> Result<()> {
    let request = TrackUsageRequest {
        event: Some(UsageEvent {
            event_time: Some(prost_types::Timestamp {
                seconds: at.as_second(),
                nanos: 0,
            }),
            ..event("acme", &format!("clock-{at}"), "llm.requests", 1)
        }),
        ..TrackUsageRequest::default()
    };
    eventually("the ledger's clock was moved", async || {
        Ok(app.usage.clone().track_usage(request.clone()).await?)
    })
    .await?;
    eventually("quota's clock was moved", async || {
        let hour = standing(app, "acme", "exports.run", Period::Hour).await?;
        let start = hour.window_start_time.context("a window without a start")?;
        ensure!(start.seconds > at.as_second() - 2 * 3_600, "{hour:?}");
        Ok(())
    })
    .await
}

async fn nobody_moves_the_clock_outside_of_a_sandbox(fleet: &Fleet) -> Result<()> {
    let live = clock(fleet, &["move", "25h"])?
        .set("sandbox", "true")
        .set("billing.payments.stripe_secret_key", "sk_live_1");
    for (call, key, code) in [
        (clock(fleet, &["move", "25h"])?, "OCTROI_SANDBOX", 64),
        (clock(fleet, &["show"])?, "OCTROI_SANDBOX", 64),
        (live, "OCTROI_BILLING__PAYMENTS__STRIPE_SECRET_KEY", 64),
        (
            clock(fleet, &["move", "soon"])?.set("sandbox", "true"),
            "neither a duration",
            1,
        ),
    ] {
        let ended = call.ends().await?;
        ensure!(
            ended.code == Some(code) && ended.stderr.contains(key) && ended.stdout.is_empty(),
            "{ended:?}"
        );
    }
    let shown = in_the_sandbox(fleet, &["show"]).await?;
    ensure!(
        shown
            .stdout
            .lines()
            .all(|line| line.ends_with("the primary's time")),
        "{}",
        shown.stdout
    );
    Ok(())
}
