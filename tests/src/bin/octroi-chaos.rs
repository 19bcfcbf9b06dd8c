//! Breaks things under load and says what held: `octroi-chaos [scenario…]`. `SEEDS` says how many seeds (1); what is in
//! the report already is not run again.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use octroi_tests::chaos::{
    report::{Report, print_head},
    run::run,
    scenarios::{self, Scenario},
    site::Site,
};

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?;
    runtime.block_on(all())
}

/// The scenarios that were named, or all.
fn wanted() -> Result<Vec<Scenario>> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let mut all = scenarios::all();
    for name in &named {
        let known = all.iter().any(|scenario| scenario.name == name);
        ensure!(known, "there is no scenario {name}");
    }
    all.retain(|scenario| named.is_empty() || named.iter().any(|name| name == scenario.name));
    Ok(all)
}

fn seeds() -> Result<u64> {
    match std::env::var_os("SEEDS") {
        Some(seeds) => seeds.to_string_lossy().parse().context("SEEDS is a number"),
        None => Ok(1),
    }
}

async fn all() -> Result<ExitCode> {
    let (wanted, seeds) = (wanted()?, seeds()?);
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
    let mut report = Report::open(dir.join("quota.json"))?;
    let mut site = None;
    print_head();
    for seed in 1..=seeds {
        for scenario in &wanted {
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
    let (runs, violations) = report.totals();
    println!("{runs} runs, {violations} violations");
    Ok(if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
