//! What a layer on a route costs beside the call that it makes, with one request in flight.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Accounts, Bench,
    catalog::{CALLS, CLICKS, FAR_LIMIT},
    rig::{Ledger, Rig},
};
use crate::{
    bench::{
        counted,
        layer::{self, Program, Work},
        pin,
        report::{Report, Unit},
        rounds::{Against, Figure, ROUNDS_MIN, Spread},
    },
    harness::fleet::APPLICATION,
};

const TAKEN: Accounts<'_> = Accounts {
    name: "layer",
    count: 1,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const HELD: Accounts<'_> = Accounts {
    metric: CALLS,
    ..TAKEN
};
const ACCOUNT: &str = "layer-0";

/// A comparison: what is done through a layer, what it is compared with, and how often a round does it.
struct Pair {
    of: &'static Accounts<'static>,
    name: &'static str,
    base: &'static str,
    layered: Work,
    alone: Work,
    times: u32,
}

const PAIRS: [Pair; 2] = [
    Pair {
        of: &TAKEN,
        name: "layer, taken before",
        base: "call",
        layered: Work::Route,
        alone: Work::Call,
        times: 5_000,
    },
    Pair {
        of: &HELD,
        name: "layer, held and committed",
        base: "calls",
        layered: Work::HeldRoute,
        alone: Work::Calls,
        times: 100,
    },
];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet,
    )?;
    rig.create_accounts(TAKEN.name, TAKEN.count)?;
    // The program is on the core of whoever asks.
    pin::on(&[bench.cores.generator], || compare(&rig, report))??;
    let counts = pin::on(&[bench.cores.generator], || count(&rig))??;
    add_counts(report, counts)?;
    for pair in &PAIRS {
        rig.note(pair.of.name, pair.of.metric, 2 * layer::counted_requests());
        bench.over_admitted += pair.of.over_admitted(&rig)?;
    }
    Ok(())
}

fn compare(rig: &Rig<'_>, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let address = rig.fleet.address("quota").to_string();
    let token = rig.fleet.token(APPLICATION)?;
    let mut program = {
        let _context = runtime.enter();
        Program::new(&address, &token, ACCOUNT, [CLICKS, CALLS])?
    };
    let mut measure = |pair: &Pair, work| -> Result<Duration> {
        let time = runtime.block_on(program.run(work, pair.times))?;
        rig.note(pair.of.name, pair.of.metric, u64::from(pair.times));
        Ok(time / pair.times)
    };
    for pair in &PAIRS {
        // The first ones make connections and windows.
        measure(pair, pair.alone)?;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS_MIN {
            // Each begins in turn.
            rounds.push(if round % 2 == 0 {
                let alone = measure(pair, pair.alone)?;
                (alone, measure(pair, pair.layered)?)
            } else {
                let layered = measure(pair, pair.layered)?;
                (measure(pair, pair.alone)?, layered)
            });
        }
        let case = format!("{}: of the {}", pair.name, pair.base);
        report.add(&case, Unit::Micros, &figure(&rounds))?;
    }
    Ok(())
}

#[expect(clippy::float_arithmetic, reason = "a ratio is a quotient, for people")]
fn figure(rounds: &[(Duration, Duration)]) -> Figure {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    Figure {
        value: Spread::of(rounds.iter().map(|(_, layered)| us(*layered))),
        against: Some(Against {
            baseline: Spread::of(rounds.iter().map(|(alone, _)| us(*alone))),
            ratio: Spread::of(rounds.iter().map(|(alone, layered)| us(*layered) / us(*alone))),
        }),
    }
}

/// Pieces of memory a request, of each kind of work.
fn count(rig: &Rig<'_>) -> Result<[f64; 5]> {
    let us = std::env::current_exe()?;
    let program = us.parent().unwrap_or(Path::new("")).join(counted::PROGRAM);
    let token_file = rig.fleet.token_file(APPLICATION);
    let token_file = token_file.to_str().context("a path that is not text")?;
    let arguments = layer::arguments(rig.fleet.address("quota"), token_file, ACCOUNT, [CLICKS, CALLS]);
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    layer::read_counts(&String::from_utf8(output.stdout)?)
}

#[expect(clippy::float_arithmetic, reason = "a figure for people")]
fn add_counts(report: &mut Report, [bare, call, route, calls, held_route]: [f64; 5]) -> Result<()> {
    let mut add = |case: &str, count| report.add(case, Unit::AllocationsPerRequest, &Figure::of(count));
    add("layer: allocations of the route without it", bare)?;
    add("layer: allocations of the call alone", call)?;
    add("layer: allocations of the calls alone", calls)?;
    add(
        "layer, taken before: allocations beyond the call",
        route - bare - call,
    )?;
    add(
        "layer, held and committed: allocations beyond the calls",
        held_route - bare - calls,
    )
}
