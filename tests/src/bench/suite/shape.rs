//! What the runtimes of a server cost: one a core beside what `#[tokio::main]` makes, with nothing else changed.

use anyhow::Result;
use octroi_proto::quota::v1::CheckMode;

use super::rig::{LIMITS, SERVER, names};
use super::{Bench, rows};
use crate::bench::{
    cpu::Meter,
    floor::{Floor, Shape},
    load::{self, Case},
    pin::Cores,
    quota::Checks,
    report::Unit,
    rounds::{self, ROUNDS_MIN, Side},
};
use std::time::Duration;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    // Stealing needs somebody to steal from, so these two have every core, and the generator shares one of them. It
    // is CPU time that is compared, which does not mind who waits for whom.
    let all = bench.cores.all();
    let floors = [
        Floor::start(Shape::PerCore, &all)?,
        Floor::start(Shape::WorkStealing, &all)?,
    ];
    let case = |floor: &Floor| Case {
        warm_up: Duration::from_millis(500),
        meters: vec![Meter::process(SERVER, floor.pid())],
        cores: Some(Cores {
            server: all.clone(),
            generator: bench.cores.generator,
        }),
        ..Case::new(floor.address)
    };
    let cases = floors.each_ref().map(case);
    let checks = |run| Checks::new(run, "bench.clicks", &names("one", 1), CheckMode::Consume, LIMITS);
    let (mut first, mut second) = (checks(1), checks(2));
    let series = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("floor, a runtime a core", || load::run(&cases[0], &mut first)),
            Side::new("floor, #[tokio::main]", || load::run(&cases[1], &mut second)),
        ],
    )?;
    let [per_core, stealing] = &series;
    for one in &series {
        rows::add_base(&mut bench.report, one)?;
    }
    let cpu = per_core.figure_against(stealing, |round| round.cpu_us_per_request(SERVER));
    let case = "floor, a runtime a core: CPU of #[tokio::main]";
    bench.report.add(case, Unit::CpuMicrosPerRequest, &cpu)?;
    bench.report.note_rounds(&series);
    Ok(())
}
