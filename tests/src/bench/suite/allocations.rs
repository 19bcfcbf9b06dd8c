//! How often the hot path asks for memory.

use anyhow::{Context as _, Result};
use octroi_proto::quota::v1::CheckMode;

use super::{
    Accounts, Bench,
    catalog::{CLICKS, FAR_LIMIT},
    rig::{Ledger, Rig},
};
use crate::bench::{
    counted,
    load::{self, Case},
    report::Unit,
    rounds::Figure,
    route::Route,
    traffic::Traffic,
};

const ONE: Accounts<'_> = Accounts {
    name: "one",
    count: 1,
    metric: CLICKS,
    limit: FAR_LIMIT,
};
const MANY: Accounts<'_> = Accounts {
    name: "many",
    count: 1_000,
    ..ONE
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| fleet.program(counted::PROGRAM),
    )?;
    let us = std::env::current_exe()?;
    let program = us
        .parent()
        .context("a program lies in a directory")?
        .join(counted::PROGRAM);
    let route = Route::start(&program, &bench.cores.server)?;
    let checks = |of: &Accounts<'_>, mode| rig.checks(of.name, of.count, CLICKS, mode);
    for of in [&ONE, &MANY] {
        rig.create_accounts(of.name, of.count)?;
        rig.warm((of.name, CLICKS), of.count, &mut checks(of, CheckMode::Consume))?;
    }
    let quota_case = rig.quota_case();
    let route_case = Case {
        address: route.address,
        token: Some(route.token.clone()),
        meters: Vec::new(),
        ..quota_case.clone()
    };
    let report = &mut bench.report;
    let mut add = |name: &str, pid, case: &Case, of: &Accounts<'_>, mode| -> Result<()> {
        let (figure, allowed) = per_request(pid, case, &mut checks(of, mode))?;
        if mode == CheckMode::Consume && pid == rig.quota_pid {
            rig.note(of.name, CLICKS, allowed);
        }
        report.add(
            &format!("{name}: allocations"),
            Unit::AllocationsPerRequest,
            &Figure::of(figure),
        )
    };
    add("route", route.pid(), &route_case, &ONE, CheckMode::Consume)?;
    for (of, keys) in [(&ONE, "one key"), (&MANY, "1,000 keys")] {
        for (mode, name) in [(CheckMode::Peek, "PEEK"), (CheckMode::Consume, "CONSUME")] {
            add(&format!("{name}, {keys}"), rig.quota_pid, &quota_case, of, mode)?;
        }
    }
    for of in [&ONE, &MANY] {
        bench.over_admitted += of.over_admitted(&rig)?;
    }
    for pid in [route.pid(), rig.quota_pid] {
        counted::forget(pid);
    }
    Ok(())
}

/// Pieces of memory for each answer, with what the process asks for by itself in the same time; and what was allowed.
#[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
fn per_request<T: Traffic + Send>(pid: u32, case: &Case, traffic: &mut T) -> Result<(f64, u64)> {
    // The first calls of a connection fill its tables.
    let warmed = load::run(case, traffic)?.good()?;
    let before = counted::count(pid)?;
    let round = load::run(case, traffic)?.good()?;
    let after = counted::count(pid)?;
    let per_request = (after - before) as f64 / round.total.answered as f64;
    Ok((per_request, warmed.total.allowed + round.total.allowed))
}
