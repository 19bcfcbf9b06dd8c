//! One caller, who waits for each answer, beside one connection that commits each row.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, rig::Rig, rows};
use crate::bench::{
    load::{Case, Round},
    naive::Naive,
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(&bench.runtime, &bench.cores, &bench.stores)?;
    let mut naive = Naive::create(&bench.runtime, &bench.stores)?;
    let case = Case {
        connections: 1,
        in_flight: 1,
        measured: Duration::from_millis(1_500),
        ..rig.case()
    };
    // One account, which usage knows after the first call: what an unknown one costs is the account service's.
    let mut events = rig.events("alone", 1)?;
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("INSERT alone", || naive.insert_alone(rig.runtime)),
            Side::new("TrackUsage, one caller alone", || {
                rig.record("alone", &case, &mut events)
            }),
        ],
    )?;
    let [insert, track] = &all;
    let figure = track.figure_against(insert, |round: &Round| round.latency_us(500));
    let case = format!("{}: of {}", track.name, insert.name);
    report.add(&case, Unit::Micros, &figure)?;
    for series in [insert, track] {
        rows::add_latencies(report, series)?;
    }
    report.note_rounds(&all);
    bench.amiss += rig.amiss()?;
    Ok(())
}
