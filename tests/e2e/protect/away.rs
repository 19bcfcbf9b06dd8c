//! What a route does while quota is away or slow, and what becomes of what it did.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use octroi_proto::common::v1::Period;
use octroi_tests::harness::fleet::{Fleet, OPERATOR, eventually, roomy_hour};

use super::site::{Answer, Site};
use crate::{
    asks::{ledger_total, standing, upsert_account},
    degraded::{ALLOWED, DENIED, apply_catalog},
};

/// Twice as long as a decision and a record may take together, and much shorter than quota is away.
const ANSWERED: Duration = Duration::from_secs(2);

impl Site {
    /// Expects a status of a route whose answer does not wait for quota to come back.
    async fn expect(&self, path: &str, account: &str, status: StatusCode) -> Result<Answer> {
        let answer = tokio::time::timeout(ANSWERED, self.get_as(path, Some(account))).await;
        let answer = answer.with_context(|| format!("{path} waits for quota"))??;
        ensure!(answer.status == status, "{path}: {answer:?}");
        Ok(answer)
    }

    async fn is_told(&self, account: &str, used: u64) -> Result<()> {
        eventually("the fleet knows what was done without it", async || {
            ensure!(self.quota.untold() == 0, "{} wait", self.quota.untold());
            let hour = standing(&self.app, account, ALLOWED, Period::Hour).await?;
            ensure!((hour.used, hour.held) == (used, 0), "{hour:?}");
            Ok(())
        })
        .await
    }
}

pub(super) async fn a_route_does_what_its_limits_say_while_quota_is_away(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    apply_catalog(fleet).await?;
    let site = Site::start(fleet).await?;
    upsert_account(&site.app, "unseen").await?;
    let acme = site.account.clone();
    for path in ["/denied", "/allowed"] {
        site.expect(path, &acme, StatusCode::OK).await?;
    }

    fleet.kill("quota").await?;
    // Twice as often as it takes until nobody is asked any more.
    for _ in 0..10 {
        let denied = site
            .expect("/denied", &acme, StatusCode::SERVICE_UNAVAILABLE)
            .await?;
        ensure!(denied.json()?["reason"] == "COUNTERS_UNREACHABLE", "{denied:?}");
        ensure!(denied.header("retry-after") == "1", "{denied:?}");
        site.expect("/allowed", &acme, StatusCode::OK).await?;
    }
    site.expect("/allowed-before", &acme, StatusCode::OK).await?;
    // Of an account that was never seen it is not known what its limits say.
    site.expect("/allowed", "unseen", StatusCode::SERVICE_UNAVAILABLE)
        .await?;
    site.expect("/soft", "unseen", StatusCode::OK).await?;
    ensure!(site.quota.untold() == 12, "{} wait", site.quota.untold());
    ensure!(
        site.quota.allowed_alone() == 12,
        "{} allowed",
        site.quota.allowed_alone()
    );

    fleet.restart("quota").await?;
    site.is_told(&acme, 12).await?;
    site.is_told("unseen", 1).await?;
    eventually("quota is asked again", async || {
        let denied = site.get("/denied").await?;
        ensure!(denied.status == StatusCode::OK, "{denied:?}");
        Ok(())
    })
    .await?;

    // Slow is as bad as away; and what it does all the same counts once.
    let quota = Pid::from_raw(fleet.pid("quota")?.cast_signed());
    kill(quota, Signal::SIGSTOP)?;
    for path in ["/allowed", "/allowed-before"] {
        site.expect(path, &acme, StatusCode::OK).await?;
    }
    site.expect("/denied", &acme, StatusCode::SERVICE_UNAVAILABLE)
        .await?;
    kill(quota, Signal::SIGCONT)?;
    site.is_told(&acme, 14).await?;
    let operator = fleet.clients(OPERATOR)?;
    let total = ledger_total(&operator, &acme, ALLOWED).await?;
    ensure!(total.decided_amount + total.direct_amount == 14, "{total:?}");
    eventually("what nobody waits for is given back", async || {
        let hour = standing(&site.app, &acme, DENIED, Period::Hour).await?;
        ensure!(hour.held == 0, "{hour:?}");
        Ok(())
    })
    .await
}

pub(super) async fn what_was_owed_outlives_the_program(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    apply_catalog(fleet).await?;
    let (dir, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let journal = dir.path().to_owned();
    let site = Site::start_with(fleet, |quota| quota.journal_dir(journal)).await?;
    let acme = site.account.clone();
    site.expect("/allowed", &acme, StatusCode::OK).await?;
    fleet.kill("quota").await?;
    for _ in 0..3 {
        site.expect("/allowed", &acme, StatusCode::OK).await?;
    }
    // As a crash leaves it. The program that did it goes on as well, and tells the same: it counts once.
    for entry in std::fs::read_dir(dir.path())? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        std::fs::copy(&path, copy.path().join(name))?;
    }
    let journal = copy.path().to_owned();
    let next = Site::start_with(fleet, |quota| quota.journal_dir(journal)).await?;
    ensure!(next.quota.untold() == 3, "{} wait", next.quota.untold());
    fleet.restart("quota").await?;
    next.is_told(&acme, 4).await?;
    site.is_told(&acme, 4).await
}
