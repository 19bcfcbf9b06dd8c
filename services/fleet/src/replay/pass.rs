//! One pass through a fleet: prepare, send, settle.

use anyhow::Context as _;
use octroi_core::MetricSlug;
use tokio::time::Instant;

use super::{
    args::Speed,
    check,
    feed::{Feed, Pace},
    fleet::{Failure, Fleet},
    prepare::{self, Subject, Subscription},
    progress::{Progress, say},
    report::Report,
    scan::Totals,
    send, settle,
    tally::Tally,
};

/// All that a pass needs.
pub struct Pass {
    /// Where it goes.
    pub fleet: Fleet,
    /// What is sent.
    pub feed: Feed,
    /// What the accounts are to have.
    pub subscription: Subscription,
    /// How fast.
    pub speed: Speed,
    /// Whether the quota is asked.
    pub check: bool,
}

impl Pass {
    /// Goes through it and fills the report.
    ///
    /// # Errors
    /// Where nothing could be sent.
    pub async fn run(self, report: &mut Report) -> anyhow::Result<()> {
        let metrics: Vec<MetricSlug> = self.feed.scan.totals.0.keys().cloned().collect();
        if metrics.is_empty() {
            // All amounts are 0: there is nothing to send, and nothing that the ledger could lack.
            report.ledger_totals = Some(Totals::default());
            return Ok(());
        }
        prepare::check_metrics(&self.fleet, &metrics).await?;
        let subjects = self.prepare().await?;
        let start = Instant::now();
        let (tally, unchanged) = self.send().await?;
        fill(report, tally, self.check);
        report.time(start.elapsed());
        if !unchanged {
            report.problem = Some("the file changed while it was replayed".to_owned());
        }
        if report.stopped.is_none() {
            say("waiting until the fleet has worked it off");
            if let Err(failure) = self.settle(report, &subjects, metrics).await {
                report.problem = Some(format!("{failure}, while its totals were asked for"));
            }
        }
        Ok(())
    }

    async fn prepare(&self) -> anyhow::Result<Vec<Subject>> {
        let accounts: Vec<_> = self.feed.accounts().into_iter().collect();
        let mut progress = Progress::start(
            "accounts ready",
            u64::try_from(accounts.len()).unwrap_or_default(),
        );
        let subjects =
            prepare::subjects(&self.fleet, accounts, &self.subscription, || progress.advance(1)).await;
        progress.finish();
        subjects
    }

    /// Answers whether the file still was what had been scanned, too.
    async fn send(&self) -> anyhow::Result<(Tally, bool)> {
        let first_at = self.feed.scan.first_at().unwrap_or_default();
        let first_at = first_at.checked_add(self.feed.shift).unwrap_or(first_at);
        let pace = Pace {
            start: Instant::now(),
            first_at,
            speed: self.speed,
        };
        let (entries, reading) = self.feed.clone().start();
        let names = &self.feed.names;
        let tally = if self.check {
            let mut progress = Progress::start(
                "lines asked",
                self.feed.scan.lines - self.feed.scan.malformed.count,
            );
            let tally = check::ask(&self.fleet, names, entries, pace, &mut progress).await;
            progress.finish();
            tally
        } else {
            let mut progress = Progress::start("events sent", self.feed.scan.totals.events());
            let tally = send::send(&self.fleet, names, entries, pace, &mut progress).await;
            progress.finish();
            tally
        };
        let unchanged = reading.await.context("reading the file ended early")??;
        Ok((tally, unchanged))
    }

    async fn settle(
        &self,
        report: &mut Report,
        subjects: &[Subject],
        metrics: Vec<MetricSlug>,
    ) -> Result<(), Failure> {
        report.rollup_lag_events = settle::rollups(&self.fleet, &metrics).await?;
        report.thresholds_crossed = settle::thresholds(&self.fleet, subjects).await?;
        if let Some((first, last)) = self.feed.scan.span {
            let moved = |at: jiff::Timestamp| at.checked_add(self.feed.shift).unwrap_or(at);
            let selection = settle::Selection {
                metrics,
                source: report.source.clone(),
                span: (moved(first), moved(last)),
            };
            report.ledger_totals = Some(settle::ledger_totals(&self.fleet, subjects, &selection).await?);
        }
        Ok(())
    }
}

fn fill(report: &mut Report, tally: Tally, check: bool) {
    report.sent = tally.sent;
    report.recorded = tally.recorded;
    report.duplicates = tally.duplicates;
    report.allowed = tally.allowed;
    report.denied = tally.denied;
    report.refused = tally.refused.count;
    report.refused_lines = tally.refused.first;
    report.allowed_totals = check.then_some(tally.allowed_totals);
    report.stopped = tally.stopped;
}
