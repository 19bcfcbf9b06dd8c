//! How long a hold lives, and what becomes of what it held.

use anyhow::{Context as _, Result, ensure};
use octroi_tests::harness::fleet::{Fleet, OPERATOR, eventually, now, roomy_hour};
use sqlx::{Connection as _, PgConnection};

use super::{EXPORTS, Holder, REQUESTS, Recorded, check_commit, check_ended};
use crate::asks::{consume, decide, ledger_total};

pub(super) async fn a_hold_that_ends_gives_its_units_back(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    when_it_is_released(fleet).await?;
    when_it_expires(fleet).await?;
    a_late_commit_is_recorded_as_far_as_there_is_room_and_beyond(fleet).await
}

async fn when_it_is_released(fleet: &Fleet) -> Result<()> {
    let acme = Holder::new(fleet, "acme").await?;
    let hold = acme.hold("h-1", &[(REQUESTS, 60), (EXPORTS, 2)]).await?;
    let denied = decide(&acme.app, consume(acme.account, "r-1", &[(REQUESTS, 1)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    for repeated in [false, true] {
        let released = acme.release(&hold).await?.into_inner();
        ensure!(released.repeated_request == repeated, "{released:?}");
        // Whoever asks next has them.
        for metric in [REQUESTS, EXPORTS] {
            let hour = acme.hour(metric).await?;
            ensure!((hour.used, hour.held) == (0, 0), "{hour:?}");
        }
    }
    let taken = decide(&acme.app, consume(acme.account, "r-2", &[(REQUESTS, 50)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    check_ended("a renewal", acme.renew(&hold, 60).await, "released")?;
    Ok(())
}

async fn when_it_expires(fleet: &Fleet) -> Result<()> {
    let brief = Holder::new(fleet, "brief").await?;
    let hold = brief.hold_for("h-1", &[(REQUESTS, 60)], 1).await?;
    let taken = eventually("the units are given back", async || {
        let id = format!("r-{}", now());
        let taken = decide(&brief.app, consume(brief.account, &id, &[(REQUESTS, 60)])).await?;
        ensure!(taken.allowed, "{taken:?}");
        Ok(taken)
    })
    .await?;
    ensure!(taken.limits.iter().all(|limit| limit.held == 0), "{taken:?}");
    check_ended("a renewal", brief.renew(&hold, 60).await, "expired")?;
    let released = brief.release(&hold).await?.into_inner();
    ensure!(released.repeated_request, "{released:?}");
    Ok(())
}

async fn a_late_commit_is_recorded_as_far_as_there_is_room_and_beyond(fleet: &Fleet) -> Result<()> {
    let late = Holder::new(fleet, "late").await?;
    let hold = late.hold("h-1", &[(REQUESTS, 10), (EXPORTS, 1)]).await?;
    late.release(&hold).await?;
    let committed = Recorded::late(&[(REQUESTS, 10, 0), (EXPORTS, 1, 0)]);
    check_commit("with room", late.commit(&hold, &[]).await, &committed)?;
    let committed = committed.again();
    check_commit("again", late.commit(&hold, &[]).await, &committed)?;
    check_ended("a release", late.release(&hold).await, "committed")?;
    late.comes_to(REQUESTS, (10, 0, 50)).await?;

    let hold = late.hold_for("h-2", &[(REQUESTS, 20)], 1).await?;
    late.comes_to(REQUESTS, (10, 0, 50)).await?;
    let taken = decide(&late.app, consume(late.account, "r-1", &[(REQUESTS, 45)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let committed = Recorded::late(&[(REQUESTS, 20, 15)]);
    check_commit("with some room", late.commit(&hold, &[]).await, &committed)?;
    let committed = committed.again();
    check_commit("again", late.commit(&hold, &[]).await, &committed)?;
    late.comes_to(REQUESTS, (75, 0, 0)).await?;
    let total = ledger_total(&fleet.clients(OPERATOR)?, late.account, REQUESTS).await?;
    ensure!(
        (total.decided_amount, total.charged_amount) == (75, 60),
        "{total:?}"
    );

    is_followed(fleet, late.account, 75).await?;
    let full = late.hour(REQUESTS).await?;
    ensure!(
        (full.used, full.overage) == (75, 15),
        "what was told at once is not told again: {full:?}"
    );
    let denied = decide(&late.app, consume(late.account, "r-2", &[(REQUESTS, 1)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    Ok(())
}

/// Waits until the bus has told the hour of this much.
async fn is_followed(fleet: &Fleet, account: &str, amount: i64) -> Result<()> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("the window has followed the ledger", async || {
        let followed: i64 = sqlx::query_scalar(
            "SELECT used::bigint FROM quota.quota_window WHERE account_id = $1 AND metric = $2 AND period = 'hour'",
        )
        .bind(account)
        .bind(REQUESTS)
        .fetch_one(&mut session)
        .await?;
        ensure!(followed == amount, "{followed}");
        Ok(())
    })
    .await
}

pub(super) async fn a_hold_lives_as_long_as_it_is_renewed(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let renewed = acme.hold_for("h-1", &[(REQUESTS, 10)], 4).await?;
    let until = acme.renew(&renewed, 120).await?.into_inner().expire_time;
    let until = until.context("no time")?.seconds - now().as_second();
    ensure!((100..=121).contains(&until), "it lives for {until} s more");
    // A shorter time does not take back what was promised.
    let again = acme.renew(&renewed, 1).await?.into_inner().expire_time;
    let again = again.context("no time")?.seconds - now().as_second();
    ensure!((100..=121).contains(&again), "it lives for {again} s more");

    // This one ends after the other would have.
    acme.hold_for("h-2", &[(REQUESTS, 20)], 4).await?;
    acme.comes_to(REQUESTS, (0, 10, 50)).await?;
    let committed = Recorded::in_time(&[(REQUESTS, 10, 0)]);
    check_commit("in its time", acme.commit(&renewed, &[]).await, &committed)
}

pub(super) async fn a_hold_outlives_the_quota_service(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let committed = acme.hold("h-1", &[(REQUESTS, 30)]).await?;
    let released = acme.hold("h-2", &[(REQUESTS, 20)]).await?;
    let renewed = acme.hold("h-3", &[(REQUESTS, 10)]).await?;

    fleet.kill("quota").await?;
    fleet.restart("quota").await?;

    let hour = acme.hour(REQUESTS).await?;
    ensure!((hour.held, hour.remaining) == (60, 0), "{hour:?}");
    let denied = decide(&acme.app, consume(acme.account, "r-1", &[(REQUESTS, 1)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    let whole = Recorded::in_time(&[(REQUESTS, 30, 0)]);
    check_commit("after the kill", acme.commit(&committed, &[]).await, &whole)?;
    acme.release(&released).await?;
    acme.renew(&renewed, 60).await?;
    acme.comes_to(REQUESTS, (30, 10, 20)).await
}

/// The kill may come before what was held is settled, and nobody is left who remembers that.
pub(super) async fn a_hold_that_was_committed_ends_whatever_becomes_of_the_quota_service(
    fleet: &mut Fleet,
) -> Result<()> {
    const DAY_S: i64 = 24 * 3_600;
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let mut holds = Vec::new();
    for number in 0..5 {
        let id = format!("h-{number}");
        holds.push(acme.hold_for(&id, &[(REQUESTS, 10)], DAY_S).await?);
    }
    // Nothing is settled as long as somebody has the rows, and whoever would is killed.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut lock = session.begin().await?;
    let locked = sqlx::query("SELECT id FROM quota.slice WHERE kind = 'hold' FOR UPDATE");
    ensure!(locked.execute(&mut *lock).await?.rows_affected() == 5);
    let commits = holds.iter().map(|hold| acme.commit(hold, &[]));
    for committed in futures::future::join_all(commits).await {
        committed?;
    }
    let hour = acme.hour(REQUESTS).await?;
    ensure!((hour.used, hour.held) == (0, 50), "{hour:?}");
    fleet.kill("quota").await?;
    lock.rollback().await?;
    fleet.restart("quota").await?;
    acme.comes_to(REQUESTS, (50, 0, 10)).await?;
    check_ended("a renewal", acme.renew(&holds[0], 60).await, "committed")?;
    Ok(())
}
