//! Reserve and commit: two calls, a slice and an event.

use anyhow::Result;

use super::{
    Accounts, Bench,
    catalog::{CALLS, FAR_LIMIT},
    rig::{LIMITS, Ledger, Rig, names},
    rows,
};
use crate::bench::{
    load::{self, Case, Round},
    quota::Pairs,
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};
use octroi_proto::quota::v1::CheckMode;

const HELD: Accounts<'_> = Accounts {
    name: "held",
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
    rig.create_accounts(HELD.name, HELD.count)?;
    let mut known = rig.checks(HELD.name, HELD.count, CALLS, CheckMode::Consume);
    rig.warm((HELD.name, CALLS), HELD.count, &mut known)?;
    let floor = rig.floor_case();
    let quota = Case {
        connections: 1,
        in_flight: 64,
        ..rig.quota_case()
    };
    let mut to_floor = rig.checks(HELD.name, HELD.count, CALLS, CheckMode::Consume);
    let mut pairs = Pairs::new(rig.next_run(), CALLS, &names(HELD.name, HELD.count), LIMITS);
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("floor, beside holds", || load::run(&floor, &mut to_floor)),
            Side::new("reserve and commit", || {
                rig.take(HELD.name, CALLS, &quota, &mut pairs)
            }),
        ],
    )?;
    let [floor, pairs] = &all;
    let rate = pairs.figure_against(floor, Round::decisions_per_s);
    report.add("reserve and commit: of the floor", Unit::PairsPerSecond, &rate)?;
    rows::add_latencies(report, pairs)?;
    rows::add_others(report, pairs)?;
    report.note_rounds(&all);
    bench.over_admitted += HELD.over_admitted(&rig)?;
    Ok(())
}
