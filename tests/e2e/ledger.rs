//! What was acknowledged is in the ledger, once, whatever happened in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use jiff::SignedDuration;
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        TrackUsageBatchRequest, TrackUsageRequest, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, PATIENCE, eventually, now};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use crate::{
    asks::{check_refusal, event, ledger_total, refusal, upsert_account},
    story::both_topologies,
};

both_topologies!(
    two_thousand_events_from_eight_callers_count_once_each,
    nothing_acknowledged_is_lost_or_doubled_by_a_kill,
    usage_of_many_hours_is_followed_whatever_the_planner_believes,
);

const ACCOUNT: &str = "acme";
const METRIC: &str = "llm.tokens_in";
const EVENTS: u32 = 2_000;
const CALLERS: u32 = 8;
const BATCH: usize = 50;

fn event_id(index: u32) -> String {
    format!("e-{index}")
}

/// Not two of one amount beside each other, so that a sum tells which are missing.
fn amount(index: u32) -> i64 {
    i64::from(index % 97 + 1)
}

fn numbered(index: u32) -> UsageEvent {
    event(ACCOUNT, &event_id(index), METRIC, amount(index))
}

fn sum(indices: impl IntoIterator<Item = u32>) -> u64 {
    indices
        .into_iter()
        .map(|index| amount(index).unsigned_abs())
        .sum()
}

/// What one caller sends: its own share and its neighbour's, in an order of its own.
fn share_of(caller: u32) -> Vec<u32> {
    // Odd and no multiple of 5, so that every step lands elsewhere.
    let stride = 7 + 10 * caller;
    (0..EVENTS)
        .map(|step| (step * stride + caller) % EVENTS)
        .filter(|index| index % CALLERS == caller || index % CALLERS == (caller + 1) % CALLERS)
        .collect()
}

async fn send(app: &Clients, indices: &[u32]) -> Result<Vec<u32>> {
    let events = indices.iter().map(|index| numbered(*index)).collect();
    let request = TrackUsageBatchRequest {
        events,
        ..TrackUsageBatchRequest::default()
    };
    let results = app
        .usage
        .clone()
        .track_usage_batch(request)
        .await?
        .into_inner()
        .results;
    ensure!(
        results.len() == indices.len(),
        "{} results of {}",
        results.len(),
        indices.len()
    );
    let mut acknowledged = Vec::new();
    for (index, result) in indices.iter().zip(results) {
        match result.outcome.context("a result without outcome")? {
            Outcome::Recorded(_) => acknowledged.push(*index),
            Outcome::Error(error) => bail!("event {index} was refused: {error:?}"),
        }
    }
    Ok(acknowledged)
}

async fn two_thousand_events_from_eight_callers_count_once_each(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let everything: BTreeSet<u32> = (0..CALLERS).flat_map(share_of).collect();
    ensure!(
        everything.len() == usize::try_from(EVENTS)?,
        "the callers leave some out"
    );

    let callers = (0..CALLERS).map(async |caller| {
        let connection = fleet.clients(APPLICATION)?;
        for batch in share_of(caller).chunks(BATCH) {
            send(&connection, batch).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(callers).await?;
    exactly_these_are_in_the_ledger(fleet, &operator, &everything).await?;

    let mut other = numbered(7);
    other.amount += 1;
    let request = |event| TrackUsageRequest {
        event: Some(event),
        backfill: false,
    };
    let answer = app.usage.clone().track_usage(request(other)).await;
    check_refusal(
        "another amount",
        answer,
        refusal(Code::AlreadyExists, ErrorReason::EventIdReused),
    )?;
    let again = app
        .usage
        .clone()
        .track_usage(request(numbered(7)))
        .await?
        .into_inner();
    ensure!(again.duplicate, "the same content is a duplicate: {again:?}");
    // Another source has event ids of its own.
    let mut theirs = numbered(7);
    theirs.source = "importer".to_owned();
    let recorded = app.usage.clone().track_usage(request(theirs)).await?.into_inner();
    ensure!(!recorded.duplicate, "{recorded:?}");
    let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
    ensure!(total.direct_amount == sum(0..EVENTS) + sum([7]), "{total:?}");
    Ok(())
}

/// Ledger, sums and what was sent are the same.
async fn exactly_these_are_in_the_ledger(
    fleet: &Fleet,
    operator: &Clients,
    sent: &BTreeSet<u32>,
) -> Result<()> {
    let expected = sum(sent.iter().copied());
    let total = ledger_total(operator, ACCOUNT, METRIC).await?;
    ensure!(
        total.events == u64::try_from(sent.len())?,
        "{} events of {}",
        total.events,
        sent.len()
    );
    ensure!(
        (total.direct_amount, total.decided_amount) == (expected, 0),
        "{total:?} instead of {expected}"
    );
    let rows = ledger(fleet).await?;
    let wanted: BTreeMap<String, i64> = sent
        .iter()
        .map(|index| (event_id(*index), amount(*index)))
        .collect();
    ensure!(rows == wanted, "other rows than were sent");
    eventually("the sums have caught up", async || {
        let total = ledger_total(operator, ACCOUNT, METRIC).await?;
        ensure!(
            total.rollup_amount == expected,
            "{} of {expected}",
            total.rollup_amount
        );
        Ok(())
    })
    .await
}

/// The rows themselves, asked without any service.
pub(crate) async fn ledger(fleet: &Fleet) -> Result<BTreeMap<String, i64>> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT event_id, amount FROM usage.ledger WHERE account_id = $1")
            .bind(ACCOUNT)
            .fetch_all(&mut session)
            .await?;
    session.close().await?;
    let count = rows.len();
    let by_id: BTreeMap<String, i64> = rows.into_iter().collect();
    ensure!(by_id.len() == count, "an event is there twice");
    Ok(by_id)
}

/// What was acknowledged, over all callers.
#[derive(Default)]
struct Log(Mutex<BTreeSet<u32>>);

impl Log {
    fn add(&self, acknowledged: Vec<u32>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(acknowledged);
    }

    fn read(&self) -> BTreeSet<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn nothing_acknowledged_is_lost_or_doubled_by_a_kill(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let log = Log::default();
    // Each sends until everything is acknowledged, through whatever happens to the service.
    let connections = (0..CALLERS)
        .map(|_| fleet.clients(APPLICATION))
        .collect::<Result<Vec<_>>>()?;
    let callers = (0..).zip(&connections).map(async |(caller, connection)| {
        for batch in share_of(caller).chunks(BATCH) {
            let acknowledged = eventually("the batch is acknowledged", async || {
                send(connection, batch).await
            })
            .await?;
            log.add(acknowledged);
        }
        anyhow::Ok(())
    });
    tokio::try_join!(try_join_all(callers), kill_in_the_middle(fleet, &log))?;
    let everything: BTreeSet<u32> = (0..EVENTS).collect();
    ensure!(log.read() == everything, "some were never acknowledged");
    exactly_these_are_in_the_ledger(fleet, &operator, &everything).await
}

async fn kill_in_the_middle(fleet: &mut Fleet, log: &Log) -> Result<()> {
    let some = usize::try_from(EVENTS / 4)?;
    let waiting = async {
        while log.read().len() < some {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .context("nothing is acknowledged")?;
    // What was acknowledged before the kill must be there although nobody is left to write it.
    let before = log.read();
    fleet.kill("usage").await?;
    let rows = ledger(fleet).await?;
    let lost: Vec<&u32> = before
        .iter()
        .filter(|index| !rows.contains_key(&event_id(**index)))
        .collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(
        rows.len() < usize::try_from(EVENTS)?,
        "the kill came too late to interrupt anything"
    );
    fleet.restart("usage").await
}

/// How many hours one batch is spread over.
const HOURS: u32 = 800;
/// What has a limit an hour.
const HOURLY: &str = "api.requests";

/// The database plans a statement for tables as they were when they were last analyzed, and may keep the plan. What joins
/// windows with what changes them, each as often as there are others, would take minutes here.
async fn usage_of_many_hours_is_followed_whatever_the_planner_believes(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    send_by_the_hour(&app, "first", 1).await?;
    followed(&mut session, 1).await?;
    for statement in [
        "ALTER TABLE quota.quota_window SET (autovacuum_enabled = false)",
        "ANALYZE quota.quota_window",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database()); END $$",
    ] {
        sqlx::query(statement).execute(&mut session).await?;
    }
    for service in ["quota", "usage"] {
        fleet.stop(service).await?;
        fleet.restart(service).await?;
    }
    let few = eventually("quota and usage are back", async || {
        send_by_the_hour(&app, "few", 1).await
    });
    few.await?;
    followed(&mut session, 2).await?;
    send_by_the_hour(&app, "new", HOURS).await?;
    followed(&mut session, 2 + HOURS).await?;
    // Now every window is there already.
    send_by_the_hour(&app, "again", HOURS).await?;
    followed(&mut session, 2 + 2 * HOURS).await?;
    session.close().await?;
    Ok(())
}

/// One unit in each of the last hours.
async fn send_by_the_hour(app: &Clients, name: &str, hours: u32) -> Result<()> {
    let now = now();
    let events = (0..hours).map(|ago| UsageEvent {
        event_time: Some(to_proto_time(now - SignedDuration::from_hours(ago.into()))),
        ..event(ACCOUNT, &format!("{name}-{ago}"), HOURLY, 1)
    });
    let request = TrackUsageBatchRequest {
        events: events.collect(),
        backfill: true,
        ..TrackUsageBatchRequest::default()
    };
    let answer = app.usage.clone().track_usage_batch(request).await?.into_inner();
    let recorded = |result: &&TrackUsageResult| matches!(result.outcome, Some(Outcome::Recorded(_)));
    let recorded = answer.results.iter().filter(recorded).count();
    ensure!(
        recorded == usize::try_from(hours)?,
        "{recorded} of {hours} are recorded"
    );
    Ok(())
}

/// The windows of hours know of this much use.
async fn followed(session: &mut PgConnection, expected: u32) -> Result<()> {
    eventually("the windows know of it", async || {
        let used: Option<String> = sqlx::query_scalar(
            "SELECT sum(used)::text FROM quota.quota_window WHERE account_id = $1 AND metric = $2 AND period = 'hour'",
        )
        .bind(ACCOUNT)
        .bind(HOURLY)
        .fetch_one(&mut *session)
        .await?;
        ensure!(used == Some(expected.to_string()), "{used:?} of {expected}");
        Ok(())
    })
    .await
}
