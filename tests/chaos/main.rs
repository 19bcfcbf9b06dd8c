//! The short form of `make chaos-quota`: a few faults under load, with one seed.

use anyhow::{Result, ensure};
use octroi_tests::chaos::{
    run::run,
    scenarios::{self, SHORT},
    site::Site,
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
