//! The short form of `make chaos-quota` and `make chaos-usage`: a few faults under load, with one seed.

use anyhow::{Result, ensure};
use octroi_tests::chaos::{
    run::run,
    scenarios::{self, SHORT},
    site::Site,
    usage::{
        self,
        scenarios::{SHORT as SHORT_OF_USAGE, SHORT_EVENTS},
        site::UsageSite,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_passed_and_nothing_is_lost_while_things_break() -> Result<()> {
    let mut site = Site::start().await?;
    let all = scenarios::all();
    for scenario in all.iter().filter(|scenario| SHORT.contains(&scenario.name)) {
        let outcome = run(&mut site, scenario, 1).await?;
        ensure!(outcome.violations() == 0, "{:?}", outcome.verdicts);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_recorded_once_while_things_break() -> Result<()> {
    let mut site = UsageSite::start().await?;
    let all = usage::scenarios::all();
    for scenario in all
        .iter()
        .filter(|scenario| SHORT_OF_USAGE.contains(&scenario.name))
    {
        let outcome = usage::run::run(&mut site, scenario, 1, Some(SHORT_EVENTS)).await?;
        ensure!(outcome.violations() == 0, "{:?}", outcome.verdicts);
    }
    Ok(())
}
