//! Breaks things under load and says what held: `octroi-chaos [quota | usage] [scenario…]`, where quota is what is
//! meant by default. `SEEDS` says how many seeds (1); what is in the report already is not run again. `EVENTS` says how
//! many events a run of usage has, instead of its own number.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use octroi_tests::chaos::{
    report::{Report, print_head},
    run::run,
    scenarios,
    site::Site,
    usage,
};

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?;
    runtime.block_on(all())
}

/// The places of the scenarios that were named, or of all.
fn wanted(all: &[&str], named: &[String]) -> Result<Vec<usize>> {
    for name in named {
        ensure!(all.contains(&name.as_str()), "there is no scenario {name}");
    }
    let is_wanted = |name: &str| named.is_empty() || named.iter().any(|one| one == name);
    Ok((0..all.len())
        .filter(|place| all.get(*place).is_some_and(|name| is_wanted(name)))
        .collect())
}

/// A number that the surroundings may give.
fn number(variable: &str) -> Result<Option<u64>> {
    let given = std::env::var_os(variable).filter(|given| !given.is_empty());
    let read = |given: std::ffi::OsString| given.to_string_lossy().parse();
    given
        .map(read)
        .transpose()
        .with_context(|| format!("{variable} is a number"))
}

async fn all() -> Result<ExitCode> {
    let mut named: Vec<String> = std::env::args().skip(1).collect();
    let suite = named
        .first()
        .filter(|name| ["quota", "usage"].contains(&name.as_str()))
        .cloned();
    named.drain(..usize::from(suite.is_some()));
    let suite = suite.as_deref().unwrap_or("quota");
    let seeds = number("SEEDS")?.unwrap_or(1);
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
    let mut report = Report::open(dir.join(format!("{suite}.json")))?;
    match suite {
        "usage" => all_of_usage(&mut report, &named, seeds, &dir).await?,
        _ => all_of_quota(&mut report, &named, seeds, &dir).await?,
    }
    let (runs, violations) = report.totals();
    println!("{runs} runs, {violations} violations");
    Ok(if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn all_of_quota(report: &mut Report, named: &[String], seeds: u64, dir: &Path) -> Result<()> {
    let scenarios = scenarios::all();
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let wanted = wanted(&names, named)?;
    let mut site = None;
    print_head();
    for seed in 1..=seeds {
        for scenario in wanted.iter().filter_map(|place| scenarios.get(*place)) {
            if report.has(scenario.name, seed) {
                continue;
            }
            let mut ready = match site.take() {
                Some(ready) => ready,
                None => Site::start().await?,
            };
            let is_met = match run(&mut ready, scenario, seed).await {
                Ok(outcome) => report.add(&outcome)?,
                Err(error) => report.add_failure(scenario.name, seed, &error)?,
            };
            if is_met {
                site = Some(ready);
            } else {
                // What is not as it should be is not the fault of the next, which has a site of its own.
                ready.keep_logs(&dir.join(format!("{}-{seed}", scenario.name)))?;
            }
        }
    }
    Ok(())
}

async fn all_of_usage(report: &mut Report, named: &[String], seeds: u64, dir: &Path) -> Result<()> {
    let scenarios = usage::scenarios::all();
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let wanted = wanted(&names, named)?;
    let events = number("EVENTS")?.map(usize::try_from).transpose()?;
    let mut site = None;
    usage::report::print_head();
    for seed in 1..=seeds {
        for scenario in wanted.iter().filter_map(|place| scenarios.get(*place)) {
            if report.has(scenario.name, seed) {
                continue;
            }
            let mut ready = match site.take() {
                Some(ready) => ready,
                None => usage::site::UsageSite::start().await?,
            };
            let is_met = match usage::run::run(&mut ready, scenario, seed, events).await {
                Ok(outcome) => {
                    outcome.print();
                    report.add_verdicts((scenario.name, seed), outcome.acknowledged(), &outcome.verdicts)?
                }
                Err(error) => report.add_failure(scenario.name, seed, &error)?,
            };
            if is_met {
                site = Some(ready);
            } else {
                let logs = dir.join(format!("usage-{}-{seed}", scenario.name));
                ready.site.keep_logs(&logs)?;
            }
        }
    }
    Ok(())
}
