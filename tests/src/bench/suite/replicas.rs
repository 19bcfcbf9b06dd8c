//! Three replicas and one account: all of them spend one limit until it is gone.

use anyhow::{Result, ensure};
use octroi_proto::quota::v1::CheckMode;

use super::{
    Accounts, Bench,
    catalog::{CLICKS, FAR_LIMIT, SMALL, SMALL_LIMIT},
    rig::{Ledger, Rig},
};
use crate::bench::{
    load::{self, Case, Round},
    report::Unit,
    rounds::Figure,
};

const REPLICAS: [&str; 3] = ["quota", "quota-2", "quota-3"];

const SHARED: Accounts<'_> = Accounts {
    name: "shared",
    count: 1,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const SCARCE: Accounts<'_> = Accounts {
    name: "scarce",
    metric: SMALL,
    limit: SMALL_LIMIT,
    ..SHARED
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet.replicas("quota", REPLICAS.len()),
    )?;
    for of in [&SHARED, &SCARCE] {
        rig.create_accounts(of.name, 1)?;
    }
    let rounds = all_at_once(&rig, &SHARED)?;
    let rate = rounds.iter().map(Round::requests_per_s).sum::<f64>();
    let case = "CONSUME, three replicas and one account";
    bench
        .report
        .add(case, Unit::RequestsPerSecond, &Figure::of(rate))?;
    let p99 = rounds
        .iter()
        .map(|round| round.latency_us(990))
        .fold(0.0, f64::max);
    bench
        .report
        .add(&format!("{case}: p99"), Unit::Micros, &Figure::of(p99))?;

    let rounds = all_at_once(&rig, &SCARCE)?;
    ensure!(
        rounds.iter().any(|round| round.total.denied > 0),
        "the limit was not reached"
    );
    let left = SMALL_LIMIT.saturating_sub(rig.allowed(SCARCE.name, SMALL));
    let case = "three replicas and one account: units of the limit that nobody was given";
    bench.report.add(case, Unit::Units, &Figure::of(left as f64))?;
    for of in [&SHARED, &SCARCE] {
        bench.over_admitted += of.over_admitted(&rig)?;
    }
    Ok(())
}

/// Asks every replica at the same time.
fn all_at_once(rig: &Rig<'_>, of: &Accounts<'_>) -> Result<Vec<Round>> {
    let sides = REPLICAS.map(|replica| {
        let case = Case {
            address: rig.fleet.address(replica),
            connections: 3,
            meters: Vec::new(),
            ..rig.quota_case()
        };
        (case, rig.checks(of.name, of.count, of.metric, CheckMode::Consume))
    });
    let rounds: Vec<Result<Round>> = std::thread::scope(|scope| {
        let running: Vec<_> = sides
            .into_iter()
            .map(|(case, mut checks)| scope.spawn(move || load::run(&case, &mut checks)))
            .collect();
        let rounds = running.into_iter().map(|one| one.join());
        rounds
            .map(|round| round.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let rounds = rounds
        .into_iter()
        .map(|round| round.and_then(Round::good))
        .collect::<Result<Vec<Round>>>()?;
    for round in &rounds {
        rig.note(of.name, of.metric, round.total.allowed);
    }
    Ok(rounds)
}
