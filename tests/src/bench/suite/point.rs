//! One check a call, answered from memory: where the hot path shows.

use anyhow::Result;
use octroi_proto::quota::v1::CheckMode;

use super::{
    Accounts, Bench,
    catalog::{CLICKS, FAR_LIMIT},
    lasting,
    rig::{Ledger, Rig},
    rows,
};
use crate::bench::{
    load::{self, Round},
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};

const ONE: Accounts<'_> = Accounts {
    name: "one",
    count: 1,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const MANY: Accounts<'_> = Accounts {
    name: "many",
    count: 10_000,
    ..ONE
};

/// Everybody asks for one account.
pub(super) fn run_one_key(bench: &mut Bench) -> Result<()> {
    run(
        bench,
        &ONE,
        ["floor", "route", "PEEK, one key", "CONSUME, one key"],
    )
}

/// Everybody asks for another account.
pub(super) fn run_many_keys(bench: &mut Bench) -> Result<()> {
    let names = [
        "floor, beside 10,000 keys",
        "route, beside 10,000 keys",
        "PEEK, 10,000 keys",
        "CONSUME, 10,000 keys",
    ];
    run(bench, &MANY, names)
}

fn run(bench: &mut Bench, of: &Accounts<'_>, names: [&str; 4]) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet,
    )?;
    let checks = |mode| rig.checks(of.name, of.count, CLICKS, mode);
    rig.create_accounts(of.name, of.count)?;
    rig.warm((of.name, CLICKS), of.count, &mut checks(CheckMode::Consume))?;
    let [floor_case, route_case, quota] = [rig.floor_case(), rig.route_case(), rig.quota_case()];
    let mut to_floor = checks(CheckMode::Consume);
    let mut to_route = checks(CheckMode::Consume);
    let mut look = checks(CheckMode::Peek);
    let mut take = checks(CheckMode::Consume);
    let sides = [
        Side::new(names[0], || load::run(&floor_case, &mut to_floor)),
        Side::new(names[1], || load::run(&route_case, &mut to_route)),
        Side::new(names[2], || load::run(&quota, &mut look)),
        Side::new(names[3], || rig.take(of.name, CLICKS, &quota, &mut take)),
    ];
    let all = rounds::interleaved(ROUNDS_MIN, sides)?;
    let [floor, route, looked, took] = &all;
    rows::add_base(report, floor)?;
    rows::add_base(report, route)?;
    let of_floor = route.figure_against(floor, Round::requests_per_s);
    report.add(
        &format!("{}: of the floor", route.name),
        Unit::RequestsPerSecond,
        &of_floor,
    )?;
    rows::add_checks(report, looked, [floor, route], true)?;
    let lasted = lasting::run(&rig, &quota, &mut take, of)?;
    rows::add_checks(report, took, [floor, route], lasted.is_recorded())?;
    lasted.add(report, &took.name)?;
    report.note_rounds(&all);
    bench.over_admitted += of.over_admitted(&rig)?;
    Ok(())
}
