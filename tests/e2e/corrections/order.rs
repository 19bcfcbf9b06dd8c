//! Corrections that come before what they correct, or after a limit that began later than it, or together.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::SignedDuration;
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    common::v1::{Limit, Period, Stage},
    usage::v1::{Correction, TrackUsageBatchRequest, UsageEvent},
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, now, roomy_hour};
use sqlx::{Connection as _, PgConnection};

use super::{ACCOUNT, amend, amend_all, limits::limit_to_ten, made, view};
use crate::{
    asks::{consume, decide, event, standing, upsert_account},
    limits::apply,
};

const METRIC: &str = "api.requests";
/// Windows are locked in the order of their accounts, and this one is waited for first.
const OTHER: &str = "abacus";

async fn track(app: &Clients, events: Vec<UsageEvent>) -> Result<()> {
    let request = TrackUsageBatchRequest {
        events,
        all_or_nothing: true,
        ..TrackUsageBatchRequest::default()
    };
    app.usage.clone().track_usage_batch(request).await?;
    Ok(())
}

async fn used_is(app: &Clients, account: &str, used: u64) -> Result<()> {
    eventually("the window follows", async || {
        let standing = standing(app, account, METRIC, Period::Hour).await?;
        ensure!(standing.used == used, "{used} are used: {standing:?}");
        Ok(())
    })
    .await
}

pub(super) async fn a_correction_that_overtakes_its_event_waits_for_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    upsert_account(&app, OTHER).await?;
    limit_to_ten(&operator).await?;
    track(
        &app,
        vec![event(ACCOUNT, "e-0", METRIC, 4), event(OTHER, "o-0", METRIC, 1)],
    )
    .await?;
    used_is(&app, ACCOUNT, 4).await?;
    used_is(&app, OTHER, 1).await?;

    // A commit that quota cannot follow, because it waits for the window of another account in it.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut lock = session.begin().await?;
    sqlx::query("SELECT FROM quota.quota_window WHERE account_id = $1 FOR UPDATE")
        .bind(OTHER)
        .execute(&mut *lock)
        .await?;
    track(
        &app,
        vec![event(ACCOUNT, "e-1", METRIC, 6), event(OTHER, "o-1", METRIC, 1)],
    )
    .await?;
    made(amend_all(&app, vec![amend("c-1", "e-1", 1)], false).await?)?;
    // One of what was followed, which nothing holds up, comes through; with the other one nothing would be used.
    made(amend_all(&app, vec![amend("c-2", "e-0", 3)], false).await?)?;
    used_is(&app, ACCOUNT, 3).await?;
    let takes_all = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 8)])).await?;
    ensure!(!takes_all.allowed, "three of ten are used: {takes_all:?}");

    lock.rollback().await?;
    session.close().await?;
    used_is(&app, ACCOUNT, 4).await?;
    used_is(&app, OTHER, 2).await?;
    let takes = async |id: &str, amount: i64| {
        Ok::<bool, anyhow::Error>(
            decide(&app, consume(ACCOUNT, id, &[(METRIC, amount)]))
                .await?
                .allowed,
        )
    };
    ensure!(!takes("r-2", 7).await? && takes("r-3", 6).await?);
    Ok(())
}

/// Whether quota has followed an event.
async fn followed(fleet: &Fleet, event_id: &str) -> Result<()> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("quota follows the event", async || {
        let followed: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM quota.inbox JOIN usage.ledger USING (message_id)
                            WHERE consumer = 'quota.usage' AND event_id = $1)",
        )
        .bind(event_id)
        .fetch_one(&mut session)
        .await?;
        ensure!(followed, "{event_id}");
        Ok(())
    })
    .await
}

pub(super) async fn what_never_counted_in_a_window_does_not_come_back_to_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, billing) = (fleet.clients(APPLICATION)?, fleet.clients("billing")?);
    upsert_account(&app, ACCOUNT).await?;
    let mut hours: Vec<Limit> = Vec::new();
    apply(&app, &billing, 1, Stage::Current, |limits| {
        let is_hour = |limit: &Limit| limit.metric == METRIC && limit.period() == Period::Hour;
        hours = limits.iter().filter(|limit| is_hour(limit)).cloned().collect();
        limits.retain(|limit| !is_hour(limit));
    })
    .await?;
    ensure!(hours.len() == 1, "the plan has a limit an hour: {hours:?}");
    track(&app, vec![event(ACCOUNT, "before", METRIC, 5)]).await?;
    followed(fleet, "before").await?;

    apply(&app, &billing, 2, Stage::Current, |limits| {
        limits.extend(hours.clone())
    })
    .await?;
    let mut late = event(ACCOUNT, "late", METRIC, 7);
    late.event_time = Some(to_proto_time(now() - SignedDuration::from_hours(1)));
    track(&app, vec![event(ACCOUNT, "e-1", METRIC, 8), late]).await?;
    used_is(&app, ACCOUNT, 8).await?;
    let amendments = vec![
        amend("c-1", "before", 1),
        amend("c-2", "late", 1),
        amend("c-3", "e-1", 6),
    ];
    made(amend_all(&app, amendments, false).await?)?;
    used_is(&app, ACCOUNT, 6).await?;

    // A limit that was gone for a while counts what came since it is back.
    apply(&app, &billing, 3, Stage::Current, |limits| {
        limits.retain(|limit| limit.metric != METRIC || limit.period() != Period::Hour);
    })
    .await?;
    track(&app, vec![event(ACCOUNT, "between", METRIC, 5)]).await?;
    followed(fleet, "between").await?;
    apply(&app, &billing, 4, Stage::Current, |limits| {
        limits.extend(hours.clone())
    })
    .await?;
    track(&app, vec![event(ACCOUNT, "e-2", METRIC, 3)]).await?;
    used_is(&app, ACCOUNT, 9).await?;
    let amendments = vec![amend("c-4", "between", 1), amend("c-5", "e-2", 1)];
    made(amend_all(&app, amendments, false).await?)?;
    used_is(&app, ACCOUNT, 7).await
}

pub(super) async fn of_corrections_made_at_once_each_finds_the_one_before_it(
    fleet: &mut Fleet,
) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    track(
        &app,
        vec![
            event(ACCOUNT, "e-0", METRIC, 1),
            event(ACCOUNT, "e-1", METRIC, 20),
        ],
    )
    .await?;
    let calls = (1..=16).map(|amount: i64| {
        let amendment = amend(&format!("c-{amount}"), "e-1", amount);
        let app = app.clone();
        async move { made(amend_all(&app, vec![amendment], false).await?) }
    });
    let made = try_join_all(calls).await?;
    let revision = |correction: &Correction| Some(correction.after.as_ref()?.revision);
    let mut revisions: Vec<Option<u32>> = made.iter().flatten().map(revision).collect();
    revisions.sort_unstable();
    ensure!(
        revisions == (1..=16).map(Some).collect::<Vec<_>>(),
        "{revisions:?}"
    );
    let viewed = view(&app, "e-1").await?;
    let event = viewed.event.context("no event")?;
    let last = event.standing.context("no standing")?;
    ensure!(last.revision == 16 && !last.voided, "{last:?}");
    used_is(&app, ACCOUNT, 1 + last.amount).await
}
