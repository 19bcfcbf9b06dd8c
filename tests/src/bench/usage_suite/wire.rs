//! Recording over gRPC by many: streams, batches and single events.

use anyhow::Result;

use super::{
    Bench, lasting,
    rig::{ACCOUNTS, Rig},
    rows::{self, Floors},
};
use crate::bench::{
    load::{Case, Round},
    naive::Naive,
    report::{Report, Unit},
    rounds::{self, Figure, ROUNDS_MIN, Side},
    usage::{EventBatches, EventStream},
};

/// Events of a batch.
pub(super) const BATCH: u32 = 100;

const STREAM: &str = "TrackUsageStream, batches of 100";

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(&bench.runtime, &bench.cores, &bench.stores)?;
    let naive = Naive::create(&bench.runtime, &bench.stores)?;
    rig.books.execute("CHECKPOINT")?;
    many(&rig, naive, report)?.add(report, STREAM)?;
    bench.amiss += rig.amiss()?;
    Ok(())
}

/// Batches that are open on each of eight connections: enough events to fill the largest commit more than twice. A build that is not
/// for speed would be at such a commit for longer than others wait for a connection.
const OPEN: u32 = if cfg!(debug_assertions) { 4 } else { 32 };

/// Usage, asked to record batches.
pub(super) fn batch_case(rig: &Rig<'_>) -> Case {
    Case {
        connections: 8,
        in_flight: OPEN,
        ..rig.case()
    }
}

/// So many callers that their commits are shared.
fn many(rig: &Rig<'_>, naive: Naive, report: &mut Report) -> Result<lasting::Lasted> {
    let naive = std::cell::RefCell::new(naive);
    let batches = batch_case(rig);
    let singles = Case {
        // Below the 200 calls that a connection may have open.
        in_flight: 192,
        ..batches.clone()
    };
    let mut streamed = EventStream::new(rig.events("streamed", ACCOUNTS)?, BATCH);
    let mut again = EventStream::new(rig.events("again", ACCOUNTS)?.some_again(), BATCH);
    let mut batched = EventBatches::new(rig.events("batched", ACCOUNTS)?, BATCH);
    let mut single = rig.events("single", ACCOUNTS)?;
    let mut commits = Commits::default();
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("pgbench", || naive.borrow_mut().pgbench()),
            Side::new("COPY", || naive.borrow_mut().copy(rig.runtime)),
            Side::new(STREAM, || {
                commits.while_it_runs(rig, || rig.record("streamed", &batches, &mut streamed))
            }),
            Side::new("TrackUsageStream, a tenth sent again", || {
                rig.record("again", &batches, &mut again)
            }),
            Side::new("TrackUsageBatch of 100", || {
                rig.record("batched", &batches, &mut batched)
            }),
            Side::new("TrackUsage, 1,536 in flight", || {
                rig.record("single", &singles, &mut single)
            }),
        ],
    )?;
    let [pgbench, copy, stream, some_again, batch, unary] = &all;
    let lasted = lasting::run(rig, "streamed", &batches, &mut streamed)?;
    let floors = Floors { pgbench, copy };
    floors.add(report)?;
    for (series, accounts) in [(stream, "streamed"), (batch, "batched"), (unary, "single")] {
        floors.add_case(report, series, lasted.keeps_up())?;
        rows::add_costs(report, series)?;
        rows::add_latencies(report, series)?;
        rows::add_summed_after(report, &series.name, &rig.summed_after(accounts))?;
    }
    let case = format!("{}: events a commit", stream.name);
    report.add(&case, Unit::Units, &commits.figure())?;
    let rate = some_again.figure_against(stream, Round::decisions_per_s);
    let case = format!("{}: of the same without", some_again.name);
    report.add(&case, Unit::EventsPerSecond, &rate)?;
    let repeats: u64 = some_again.rounds.iter().map(|round| round.total.denied).sum();
    let case = format!("{}: events that were there", some_again.name);
    report.add(&case, Unit::Units, &Figure::of(repeats as f64))?;
    report.note_rounds(&all);
    Ok(lasted)
}

/// How many events a commit of the ledger had, by usage's own metrics.
#[derive(Debug, Default)]
struct Commits {
    means: Vec<f64>,
}

impl Commits {
    #[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
    fn while_it_runs(&mut self, rig: &Rig<'_>, run: impl FnOnce() -> Result<Round>) -> Result<Round> {
        let count = || -> Result<[f64; 2]> {
            Ok([
                rig.metric("octroi_usage_commit_events_sum")?,
                rig.metric("octroi_usage_commit_events_count")?,
            ])
        };
        let [events_before, commits_before] = count()?;
        let round = run()?;
        let [events, commits] = count()?;
        self.means
            .push((events - events_before) / (commits - commits_before));
        Ok(round)
    }

    fn figure(&self) -> Figure {
        Figure::all(self.means.iter().copied())
    }
}
