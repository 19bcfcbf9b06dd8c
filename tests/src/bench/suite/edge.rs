//! Near a limit, and beyond it.

use anyhow::{Result, ensure};
use octroi_proto::quota::v1::{CheckItem, CheckMode, CheckQuotaBatchRequest, CheckQuotaRequest};

use super::{
    Accounts, Bench,
    catalog::{CLICKS, FAR_LIMIT, ONCE, SMALL, SMALL_LIMIT, TIGHT, TIGHT_LIMIT},
    rig::{Ledger, Rig, SERVER},
    rows,
};
use crate::bench::{
    load::{self, Round},
    quota::Turn,
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};
use crate::harness::fleet::APPLICATION;

const FAR: Accounts<'_> = Accounts {
    name: "far",
    count: 1,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const NEAR: Accounts<'_> = Accounts {
    name: "near",
    count: 100,
    metric: TIGHT,
    limit: TIGHT_LIMIT,
};
const NEAR_SMALL: Accounts<'_> = Accounts {
    name: "near-small",
    count: 3_000,
    metric: SMALL,
    limit: SMALL_LIMIT,
};
const SPENT: Accounts<'_> = Accounts {
    name: "spent",
    count: 1,
    metric: ONCE,
    limit: 1,
};

/// What is left of a limit where it is asked: a twentieth.
fn left(of: &Accounts<'_>) -> u64 {
    of.limit / 20
}

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet,
    )?;
    for of in [&FAR, &NEAR, &NEAR_SMALL, &SPENT] {
        rig.create_accounts(of.name, of.count)?;
    }
    rig.warm(
        (FAR.name, CLICKS),
        1,
        &mut rig.checks(FAR.name, 1, CLICKS, CheckMode::Consume),
    )?;
    for of in [&NEAR, &NEAR_SMALL] {
        take_at_once(&rig, of, of.limit - left(of))?;
    }
    take_at_once(&rig, &SPENT, 1)?;

    let [route, quota] = [rig.route_case(), rig.quota_case()];
    let mut to_route = rig.checks(FAR.name, 1, CLICKS, CheckMode::Consume);
    let mut far = rig.checks(FAR.name, 1, CLICKS, CheckMode::Consume);
    let mut near = rig
        .checks(NEAR.name, NEAR.count, TIGHT, CheckMode::Consume)
        .in_turn(Turn::Stay(left(&NEAR)));
    let mut near_small = rig
        .checks(NEAR_SMALL.name, NEAR_SMALL.count, SMALL, CheckMode::Consume)
        .in_turn(Turn::Stay(left(&NEAR_SMALL)));
    let mut denied = rig.checks(SPENT.name, 1, ONCE, CheckMode::Consume);
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("route, beside the edge", || load::run(&route, &mut to_route)),
            Side::new("CONSUME, far from the limit", || {
                rig.take(FAR.name, CLICKS, &quota, &mut far)
            }),
            Side::new("CONSUME, 95 to 100 % of the limit", || {
                rig.take(NEAR.name, TIGHT, &quota, &mut near)
            }),
            Side::new("CONSUME, 95 to 100 % of a limit of 20,000", || {
                rig.take(NEAR_SMALL.name, SMALL, &quota, &mut near_small)
            }),
            Side::new("CONSUME, denied", || {
                rig.take(SPENT.name, ONCE, &quota, &mut denied)
            }),
        ],
    )?;
    let [route, far, near, near_small, denied] = &all;
    for series in [near, near_small] {
        ensure!(
            series.rounds.iter().all(|round| round.total.denied == 0),
            "a round near the limit went beyond it"
        );
    }
    ensure!(
        denied.rounds.iter().all(|round| round.total.allowed == 0),
        "a round beyond the limit was allowed something"
    );
    for series in [far, near, near_small] {
        let rate = series.figure_against(route, Round::requests_per_s);
        report.add(
            &format!("{}: of the route", series.name),
            Unit::RequestsPerSecond,
            &rate,
        )?;
        let cpu = series.figure_against(route, |round| round.cpu_us_per_request(SERVER));
        report.add(
            &format!("{}: CPU of the route", series.name),
            Unit::CpuMicrosPerRequest,
            &cpu,
        )?;
        rows::add_latencies(report, series)?;
    }
    let rate = denied.figure_against(far, Round::requests_per_s);
    report.add("CONSUME, denied: of the allowed", Unit::RequestsPerSecond, &rate)?;
    let cpu = denied.figure_against(far, |round| round.cpu_us_per_request(SERVER));
    report.add(
        "CONSUME, denied: CPU of the allowed",
        Unit::CpuMicrosPerRequest,
        &cpu,
    )?;
    rows::add_latencies(report, denied)?;
    report.note_rounds(&all);

    go_beyond(&rig)?;
    for of in [&FAR, &NEAR, &NEAR_SMALL, &SPENT] {
        bench.over_admitted += of.over_admitted(&rig)?;
    }
    Ok(())
}

/// Has each account take so much in one check.
fn take_at_once(rig: &Rig<'_>, of: &Accounts<'_>, amount: u64) -> Result<()> {
    // A link is made in the runtime that it will use.
    let context = rig.runtime.enter();
    let mut quota = rig.fleet.clients(APPLICATION)?.quota;
    drop(context);
    let check = |number: u32| CheckQuotaRequest {
        account_id: format!("{}-{number}", of.name),
        items: vec![CheckItem {
            metric: of.metric.to_owned(),
            amount: i64::try_from(amount).unwrap_or(i64::MAX),
        }],
        mode: CheckMode::Consume.into(),
        request_id: "at-once".to_owned(),
        ..CheckQuotaRequest::default()
    };
    let numbers: Vec<u32> = (0..of.count).collect();
    for some in numbers.chunks(100) {
        let requests = some.iter().copied().map(check).collect();
        let batch = CheckQuotaBatchRequest { requests };
        let answer = rig.runtime.block_on(quota.check_quota_batch(batch))?.into_inner();
        let is_allowed = |result: &octroi_proto::quota::v1::CheckQuotaResult| {
            use octroi_proto::quota::v1::check_quota_result::Outcome;
            matches!(&result.outcome, Some(Outcome::Decision(decision)) if decision.allowed)
        };
        ensure!(
            answer.results.iter().all(is_allowed),
            "{amount} at once are refused"
        );
        rig.note(of.name, of.metric, amount * answer.results.len() as u64);
    }
    Ok(())
}

/// Asks accounts for more than they have left, so that each of them is asked beyond its limit by many at once.
fn go_beyond(rig: &Rig<'_>) -> Result<()> {
    let of = &NEAR_SMALL;
    let mut checks = rig
        .checks(of.name, of.count, of.metric, CheckMode::Consume)
        // Half as much again as it ever had left.
        .in_turn(Turn::Stay(left(of) + left(of) / 2));
    let round = rig
        .take(of.name, of.metric, &rig.quota_case(), &mut checks)?
        .good()?;
    ensure!(round.total.denied > 0, "nothing went beyond the limit");
    Ok(())
}
