//! Decisions that are answered once the ledger has them, beside the ledger alone.

use anyhow::Result;
use octroi_proto::quota::v1::CheckMode;

use super::{
    Accounts, Bench,
    catalog::{CALLS, FAR_LIMIT},
    lasting,
    rig::{Ledger, Rig, SERVER, names},
    rows,
};
use crate::bench::{
    load::{self, Case, Round},
    report::{Report, Unit},
    rounds::{self, ROUNDS_MIN, Series, Side},
    usage::Events,
};

/// So many that the ledger's commits are shared, and not so many that each has a row of its own.
const ACCOUNTS: Accounts<'_> = Accounts {
    name: "durable",
    count: 1_000,
    metric: CALLS,
    limit: FAR_LIMIT,
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Measured,
        |fleet| fleet,
    )?;
    let tracked = "tracked";
    for name in [ACCOUNTS.name, tracked] {
        rig.create_accounts(name, ACCOUNTS.count)?;
    }
    let mut consume = rig.checks(ACCOUNTS.name, ACCOUNTS.count, CALLS, CheckMode::Consume);
    rig.warm((ACCOUNTS.name, CALLS), ACCOUNTS.count, &mut consume)?;
    let mut events = Events::new(rig.next_run(), CALLS, &names(tracked, ACCOUNTS.count));
    let quota = Case {
        in_flight: 16,
        ..rig.quota_case()
    };
    let usage = Case {
        address: rig.fleet.address("usage"),
        ..quota.clone()
    };
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("TrackUsage", || load::run(&usage, &mut events)),
            Side::new("CONSUME, durable", || {
                rig.take(ACCOUNTS.name, CALLS, &quota, &mut consume)
            }),
        ],
    )?;
    let [track, decided] = &all;
    add_side(report, track)?;
    let lasted = lasting::run(&rig, &quota, &mut consume, &ACCOUNTS)?;
    let rate = decided.figure_against(track, Round::requests_per_s);
    let case = "CONSUME, durable: of TrackUsage";
    report.add_where(case, Unit::RequestsPerSecond, &rate, lasted.is_recorded())?;
    add_side(report, decided)?;
    lasted.add(report, &decided.name)?;
    report.note_rounds(&all);
    bench.over_admitted += ACCOUNTS.over_admitted(&rig)?;
    Ok(())
}

fn add_side(report: &mut Report, series: &Series) -> Result<()> {
    report.add(
        &series.name,
        Unit::RequestsPerSecond,
        &series.figure(Round::requests_per_s),
    )?;
    let cpu = series.figure(|round| round.cpu_us_per_request(SERVER));
    let case = format!("{}: CPU of quota", series.name);
    report.add(&case, Unit::CpuMicrosPerRequest, &cpu)?;
    rows::add_others(report, series)?;
    rows::add_latencies(report, series)
}
