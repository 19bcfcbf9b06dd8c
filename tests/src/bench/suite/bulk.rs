//! Many checks a call, and streams: what is left of a call's price.

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
    load::{self, Case, Round},
    quota::{Batches, Stream},
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};

const BATCH: u32 = 100;

const BATCHED: Accounts<'_> = Accounts {
    name: "batched",
    count: 1_000,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const STREAMED: Accounts<'_> = Accounts {
    name: "streamed",
    ..BATCHED
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
    let checks = |of: &Accounts<'_>| rig.checks(of.name, of.count, CLICKS, CheckMode::Consume);
    for of in [&BATCHED, &STREAMED] {
        rig.create_accounts(of.name, of.count)?;
        rig.warm((of.name, CLICKS), of.count, &mut checks(of))?;
    }
    let [floor, quota] = [rig.floor_case(), rig.quota_case()];
    let batch_case = Case {
        connections: 4,
        in_flight: 8,
        ..quota.clone()
    };
    let stream_case = Case {
        connections: 4,
        in_flight: 256,
        ..quota
    };
    let mut to_floor = checks(&BATCHED);
    let mut batches = Batches::new(checks(&BATCHED), BATCH);
    let mut stream = Stream::new(checks(&STREAMED));
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("floor, beside batches", || load::run(&floor, &mut to_floor)),
            Side::new("CONSUME, batches of 100", || {
                rig.take(BATCHED.name, CLICKS, &batch_case, &mut batches)
            }),
            Side::new("CONSUME, stream", || {
                rig.take(STREAMED.name, CLICKS, &stream_case, &mut stream)
            }),
        ],
    )?;
    let [floor, batched, streamed] = &all;
    rows::add_base(report, floor)?;
    let lasted = [
        lasting::run(&rig, &batch_case, &mut batches, &BATCHED)?,
        lasting::run(&rig, &stream_case, &mut stream, &STREAMED)?,
    ];
    for ((series, accounts), lasted) in [(batched, &BATCHED), (streamed, &STREAMED)]
        .into_iter()
        .zip(lasted)
    {
        let rate = series.figure_against(floor, Round::decisions_per_s);
        let case = format!("{}: of the floor", series.name);
        report.add_where(&case, Unit::DecisionsPerSecond, &rate, lasted.is_recorded())?;
        rows::add_latencies(report, series)?;
        rows::add_others(report, series)?;
        lasted.add(report, &series.name)?;
        bench.over_admitted += accounts.over_admitted(&rig)?;
    }
    report.note_rounds(&all);
    Ok(())
}
