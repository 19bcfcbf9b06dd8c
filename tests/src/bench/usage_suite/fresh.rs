//! How soon an event that was acknowledged is in the figures, and people are told that a threshold was crossed, while others
//! record at half of the most that can be recorded.
//!
//! The others come at a steady rate, whatever became of those before. Beside them an event of an account of its own is recorded
//! every so often, which crosses a threshold; from its answer on it is asked again and again for the account's figures and
//! for its notices.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use octroi_proto::{
    notification::v1::ListNoticesRequest,
    usage::v1::{GetUsageStatsRequest, Granularity, TrackUsageRequest, UsageEvent},
};
use sqlx::Connection as _;
use tokio::time::sleep;

use super::{
    Bench,
    catalog::{TIGHT, TIGHT_LIMIT},
    rig::{ACCOUNTS, Rig},
    wire::{BATCH, batch_case},
};
use crate::{
    bench::{
        histogram::Histogram,
        load::{self, Case, Round},
        report::{Report, Unit},
        rounds::{Figure, Series},
        usage::EventStream,
    },
    harness::fleet::{APPLICATION, Clients, OPERATOR, now},
};

/// How long the peak is looked for, and how long it is asked at half of it.
const PEAK: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(20);
/// Before that, the pipeline fills.
const WARM_UP: Duration = Duration::from_secs(2);
/// How many are probed, and how far apart.
const PROBES: u32 = 300;
const PROBE_EVERY: Duration = Duration::from_millis(60);
/// How often it is asked: what is found is late by up to this, or by a twentieth.
const ASK_EVERY: Duration = Duration::from_millis(15);
/// For so long it is asked; what is not seen by then counts as seen then.
const SEEN_MAX: Duration = Duration::from_secs(30);
/// The beginning of the names of accounts that are probed.
const PROBED: &str = "probed";
/// Units that cross a threshold: 80 in 100.
const AMOUNT: u64 = TIGHT_LIMIT * 80 / 100;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(&bench.runtime, &bench.cores, &bench.stores)?;
    rig.create_accounts(PROBED, PROBES)?;
    let mut stream = EventStream::new(rig.events("loaded", ACCOUNTS)?, BATCH);
    rig.books.execute("CHECKPOINT")?;
    let peak_case = Case {
        measured: PEAK,
        ..batch_case(&rig)
    };
    let peak = rig.record("loaded", &peak_case, &mut stream)?;
    let batches_per_s = peak.tally.answered / PEAK.as_secs() / 2;
    let case = Case {
        rate: Some(u32::try_from(batches_per_s)?.max(1)),
        warm_up: WARM_UP,
        measured: MEASURED,
        ..batch_case(&rig)
    };
    let (round, found) = while_it_runs(&rig, &case, &mut stream)?;
    rig.note("loaded", round.total.allowed, round.total.allowed);
    rig.note(PROBED, u64::from(PROBES), u64::from(PROBES) * AMOUNT);
    add(report, &peak, &round, &found)?;
    report.note_rounds([&Series {
        name: "at half of the peak".to_owned(),
        rounds: vec![round],
        void: 0,
    }]);
    bench.amiss += rig.amiss()? + untold(&rig)?;
    Ok(())
}

/// When what was recorded was seen.
#[derive(Debug, Default)]
struct Found {
    in_figures: Histogram,
    in_notices: Histogram,
}

fn add(report: &mut Report, peak: &Round, round: &Round, found: &Found) -> Result<()> {
    for (what, round) in [
        ("peak, beside probes", peak),
        ("half of the peak, beside probes", round),
    ] {
        let figure = Figure::of(round.decisions_per_s());
        report.add(what, Unit::EventsPerSecond, &figure)?;
    }
    for (what, histogram) in [("rollup", &found.in_figures), ("notice", &found.in_notices)] {
        for (quantile, per_mille) in [("p50", 500), ("p99", 990)] {
            let case = format!("acknowledged to {what}, at half of the peak: {quantile}");
            let seconds = histogram.quantile(per_mille).as_secs_f64();
            report.add(&case, Unit::Seconds, &Figure::of(seconds))?;
        }
    }
    Ok(())
}

/// Runs the case on a thread of its own and probes meanwhile.
fn while_it_runs(rig: &Rig<'_>, case: &Case, stream: &mut EventStream) -> Result<(Round, Found)> {
    let clients = {
        let _context = rig.runtime.enter();
        [rig.fleet.clients(APPLICATION)?, rig.fleet.clients(OPERATOR)?]
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| load::run(case, stream));
        let found = rig.runtime.block_on(async {
            sleep(WARM_UP).await;
            probe_all(&clients).await
        });
        let round = running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
            .good()
            .with_context(|| rig.fleet.log())?;
        Ok((round, found?))
    })
}

async fn probe_all(clients: &[Clients; 2]) -> Result<Found> {
    let probes = (0..PROBES).map(async |number| {
        sleep(PROBE_EVERY * number).await;
        probe(clients, format!("{PROBED}-{number}")).await
    });
    let mut found = Found::default();
    for [figures, notices] in try_join_all(probes).await? {
        found.in_figures.record(figures);
        found.in_notices.record(notices);
    }
    Ok(found)
}

/// Records one event of an account, and says how long after its answer it is in the figures and in the notices.
async fn probe([application, operator]: &[Clients; 2], account: String) -> Result<[Duration; 2]> {
    let event = UsageEvent {
        account_id: account.clone(),
        event_id: "probe".to_owned(),
        metric: TIGHT.to_owned(),
        amount: i64::try_from(AMOUNT)?,
        ..UsageEvent::default()
    };
    let request = TrackUsageRequest {
        event: Some(event),
        ..TrackUsageRequest::default()
    };
    application.usage.clone().track_usage(request).await?;
    let since = Instant::now();
    let figures = seen(since, async || is_in_figures(application, &account).await);
    let notices = seen(since, async || is_in_notices(operator, &account).await);
    let (figures, notices) = tokio::try_join!(figures, notices).context(account.clone())?;
    Ok([figures, notices])
}

/// Asks until it is there, and says how long after `since` that was known. What takes long is asked for less often: those who ask
/// must not become the load.
async fn seen(since: Instant, look: impl AsyncFn() -> Result<bool>) -> Result<Duration> {
    while !look().await? && since.elapsed() < SEEN_MAX {
        sleep(ASK_EVERY.max(since.elapsed() / 20)).await;
    }
    Ok(since.elapsed())
}

/// Accounts that were probed and that nobody was told about in the end.
fn untold(rig: &Rig<'_>) -> Result<u64> {
    const TOLD: &str = "SELECT count(DISTINCT account_id) FROM notification.notice WHERE account_id LIKE $1";
    let since = Instant::now();
    rig.runtime.block_on(async {
        let mut session = rig.books.session().await?;
        loop {
            let told: i64 = sqlx::query_scalar(TOLD)
                .bind(format!("{PROBED}-%"))
                .fetch_one(&mut session)
                .await?;
            let untold = i64::from(PROBES).abs_diff(told);
            if untold == 0 || since.elapsed() >= SEEN_MAX {
                session.close().await?;
                return Ok(untold);
            }
            sleep(ASK_EVERY).await;
        }
    })
}

async fn is_in_figures(application: &Clients, account: &str) -> Result<bool> {
    let at = |seconds| {
        Some(prost_types::Timestamp {
            seconds,
            ..prost_types::Timestamp::default()
        })
    };
    // Two days around now, cut where the rollups are, so that the ledger is not asked.
    let today = now().as_second() / 86_400 * 86_400;
    let request = GetUsageStatsRequest {
        account_id: account.to_owned(),
        metrics: vec![TIGHT.to_owned()],
        start_time: at(today - 86_400),
        end_time: at(today + 86_400),
        granularity: Granularity::Day.into(),
        zone: "UTC".to_owned(),
        ..GetUsageStatsRequest::default()
    };
    let answer = application.usage.clone().get_usage_stats(request).await?;
    let stats = answer.into_inner().stats.into_iter().next();
    Ok(stats.context("figures of one metric")?.total_events == 1)
}

async fn is_in_notices(operator: &Clients, account: &str) -> Result<bool> {
    let request = ListNoticesRequest {
        account_id: account.to_owned(),
        ..ListNoticesRequest::default()
    };
    let answer = operator.notification.clone().list_notices(request).await?;
    Ok(answer.into_inner().total_count > 0)
}
