//! What is counted of a request, by how it ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::StatusCode;
use octroi_tests::harness::fleet::{Fleet, OPERATOR, eventually, roomy_hour, within};

use super::site::{BYTES, EXPORTS, REQUESTS, Site};
use crate::asks::ledger_total;

impl Site {
    /// Waits until the hour has this much used and held.
    pub(super) async fn comes_to(&self, metric: &str, expected: (u64, u64)) -> Result<()> {
        eventually("the limit knows how the request ended", async || {
            let hour = self.hour(metric).await?;
            ensure!(
                (hour.used, hour.held) == expected,
                "expected {expected:?}: {hour:?}"
            );
            Ok(())
        })
        .await
    }
}

pub(super) async fn a_request_is_counted_by_what_becomes_of_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let site = Site::start(fleet).await?;
    // Looked at, and nothing taken.
    ensure!(site.get("/look").await?.status == StatusCode::OK);
    site.comes_to(EXPORTS, (0, 0)).await?;
    // Failed.
    let failed = site.get("/fails").await?;
    ensure!(failed.status == StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
    let hour = site.hour(EXPORTS).await?;
    ensure!(
        (hour.used, hour.held) == (0, 0),
        "it is free with the answer: {hour:?}"
    );
    // Ended by a bug.
    let panicked = site.get("/panics").await?;
    ensure!(
        panicked.status == StatusCode::INTERNAL_SERVER_ERROR,
        "{panicked:?}"
    );
    site.comes_to(EXPORTS, (0, 0)).await?;
    // Left in the middle.
    let left = tokio::time::timeout(Duration::from_millis(500), site.get("/slow")).await;
    ensure!(left.is_err(), "{left:?}");
    within(Duration::from_secs(1), "what was held is free", async || {
        let hour = site.hour(EXPORTS).await?;
        ensure!((hour.used, hour.held) == (0, 0), "{hour:?}");
        Ok(())
    })
    .await?;
    ensure!(site.handled() == 4, "{} reached a handler", site.handled());

    // Longer than it was held for: it lives as long as the handler.
    let (renewed, held) = tokio::join!(site.get("/renewed"), async {
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        site.hour(EXPORTS).await
    });
    let (renewed, held) = (renewed?, held?);
    ensure!(renewed.status == StatusCode::OK, "{renewed:?}");
    ensure!(
        (held.used, held.held) == (0, 1),
        "a hold of a second is renewed: {held:?}"
    );
    site.comes_to(EXPORTS, (1, 0)).await?;
    // Counted before, whatever becomes of it.
    let before = site.get("/before").await?;
    ensure!(before.status == StatusCode::INTERNAL_SERVER_ERROR, "{before:?}");
    site.comes_to(EXPORTS, (2, 0)).await?;
    let operator = fleet.clients(OPERATOR)?;
    let total = ledger_total(&operator, &site.account, EXPORTS).await?;
    ensure!(
        (total.decided_amount, total.charged_amount, total.events) == (2, 2, 2),
        "{total:?}"
    );

    a_request_that_comes_again_is_counted_once(&site).await
}

async fn a_request_that_comes_again_is_counted_once(site: &Site) -> Result<()> {
    let keyed = async |key: &str, what: &str| {
        let headers = [("idempotency-key", key), ("x-what", what)];
        site.send("/keyed", Some(&site.account), &headers).await
    };
    // What failed is not counted, however often it comes.
    for _ in 0..2 {
        let failed = keyed("order-1", "fails").await?;
        ensure!(failed.status == StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
        site.comes_to(REQUESTS, (0, 0)).await?;
    }
    // One after the other, and two at the same time of which one fails.
    for what in ["", "", "slow"] {
        let (answer, failed) = tokio::join!(keyed("order-1", what), keyed("order-1", "fails"));
        ensure!(answer?.status == StatusCode::OK);
        ensure!(failed?.status == StatusCode::INTERNAL_SERVER_ERROR);
        site.comes_to(REQUESTS, (1, 0)).await?;
    }
    ensure!(keyed("order-2", "").await?.status == StatusCode::OK);
    site.comes_to(REQUESTS, (2, 0)).await?;
    let handled = site.handled();
    let nameless = keyed("two words", "").await?;
    ensure!(nameless.status == StatusCode::BAD_REQUEST, "{nameless:?}");
    ensure!(
        site.handled() == handled,
        "what could not be recorded is not done"
    );
    Ok(())
}

pub(super) async fn what_is_metered_is_counted_as_it_was_used(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let site = Site::start(fleet).await?;
    let asked = site
        .send("/asked", Some(&site.account), &[("x-amount", "4")])
        .await?;
    ensure!(asked.status == StatusCode::OK, "{asked:?}");
    site.comes_to(REQUESTS, (4, 0)).await?;
    let nothing = site.get("/asked").await?;
    ensure!(nothing.status == StatusCode::OK, "{nothing:?}");
    site.comes_to(REQUESTS, (4, 0)).await?;
    // Of a body whose length is said before, and of one without a byte, each metric is counted.
    for path in ["/sized", "/silent"] {
        let exports = site.hour(EXPORTS).await?.used;
        let answer = site.get(path).await?;
        ensure!(answer.status.is_success(), "{path}: {answer:?}");
        site.comes_to(EXPORTS, (exports + 1, 0)).await?;
    }
    let operator = fleet.clients(OPERATOR)?;
    let total = ledger_total(&operator, &site.account, BYTES).await?;
    ensure!((total.decided_amount, total.events) == (10, 1), "{total:?}");
    // A body that breaks off has several metrics, of which one was used by then.
    let broken = site.get("/breaks").await;
    ensure!(
        broken.map_or(true, |answer| answer.body.is_empty()),
        "its body breaks off"
    );
    site.comes_to(REQUESTS, (6, 0)).await?;
    ensure!(site.get("/answered").await?.status == StatusCode::OK);
    site.comes_to(REQUESTS, (13, 0)).await?;
    // With the last byte, because who reads that is answered.
    ensure!(site.get("/rows").await?.status == StatusCode::OK);
    let operator = fleet.clients(OPERATOR)?;
    let total = ledger_total(&operator, &site.account, REQUESTS).await?;
    ensure!(total.decided_amount == 18, "{total:?}");
    // What was used by then was used.
    let request = reqwest::Client::new()
        .get(format!("http://{}/endless", site.address))
        .header("x-account-id", &site.account);
    let mut answer = request.send().await?;
    let mut read = 0;
    while read < 6 {
        read += answer.chunk().await?.map_or(0, |piece| piece.len());
    }
    drop(answer);
    site.comes_to(REQUESTS, (21, 0)).await?;

    ensure!(site.get("/bytes").await?.status == StatusCode::OK);
    eventually("the bytes are counted", async || {
        let total = ledger_total(&operator, &site.account, BYTES).await?;
        ensure!((total.decided_amount, total.events) == (12_355, 2), "{total:?}");
        Ok(())
    })
    .await
}
