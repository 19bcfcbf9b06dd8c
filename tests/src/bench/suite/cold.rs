//! Accounts that the replica has never seen: each request is the first of another.

use anyhow::{Result, ensure};
use octroi_proto::quota::v1::CheckMode;

use super::{
    Accounts, Bench,
    catalog::{CLICKS, FAR_LIMIT},
    lasting::settle,
    rig::{Ledger, Rig},
    rows,
};
use crate::bench::{
    load::{self, Case, Round},
    report::Unit,
    rounds::{self, Figure, ROUNDS_MIN, Side},
};

/// More than can be asked for in all rounds, so that none comes twice.
const COLD: Accounts<'_> = Accounts {
    name: "cold",
    count: 400_000,
    metric: CLICKS,
    limit: FAR_LIMIT,
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet,
    )?;
    rig.create_accounts(COLD.name, COLD.count)?;
    let quota = Case {
        // 5,000 a second have this many open where each takes 13 ms.
        connections: 8,
        in_flight: 8,
        ..rig.quota_case()
    };
    let floor = rig.floor_case();
    let mut checks = rig.checks(COLD.name, COLD.count, CLICKS, CheckMode::Consume);
    let mut to_floor = rig.checks(COLD.name, COLD.count, CLICKS, CheckMode::Consume);
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("floor, beside cold accounts", || load::run(&floor, &mut to_floor)),
            Side::new("CONSUME, cold account", || {
                rig.take(COLD.name, CLICKS, &quota, &mut checks)
            }),
        ],
    )?;
    let asked = rig.allowed(COLD.name, CLICKS);
    ensure!(
        asked <= u64::from(COLD.count),
        "{asked} requests are more than {} accounts",
        COLD.count
    );
    let [floor, cold] = &all;
    let (missing, _) = settle(&rig, &COLD)?;
    let rate = cold.figure(Round::requests_per_s);
    report.add_where(&cold.name, Unit::AccountsPerSecond, &rate, missing == 0)?;
    let of_floor = cold.figure_against(floor, Round::requests_per_s);
    report.add(
        "CONSUME, cold account: of the floor",
        Unit::AccountsPerSecond,
        &of_floor,
    )?;
    rows::add_latencies(report, cold)?;
    rows::add_others(report, cold)?;
    let case = "CONSUME, cold account: not in the ledger 10 s later";
    report.add(case, Unit::Units, &Figure::of(missing as f64))?;
    report.note_rounds(&all);
    bench.over_admitted += COLD.over_admitted(&rig)?;
    Ok(())
}
