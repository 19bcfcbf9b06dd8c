//! One pass through a fleet: prepare, send, settle.

use anyhow::Context as _;
use octroi_core::MetricSlug;
use tokio::time::Instant;

use super::{
    args::Speed,
    check,
    feed::{Feed, Pace},
    fleet::{Failure, Fleet},
    mapping::Accounts,
    prepare::{self, Subject, Subscription},
    progress::{Progress, say},
    report::Report,
    scan::Totals,
    send,
    settle::{self, Selection, Waits},
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
    /// How long the fleet has to work it off.
    pub waits: Waits,
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
        if self.check && self.shares_accounts() {
            let before =
                settle::ledger_totals(&self.fleet, &subjects, &self.selection(report, &metrics)).await?;
            report.ledger_totals_before = Some(before);
        }
        let start = Instant::now();
        let (tally, unchanged) = self.send().await?;
        fill(report, tally, self.check);
        report.time(start.elapsed());
        if !unchanged {
            report.problem = Some("the file changed while it was replayed".to_owned());
        }
        if report.stopped.is_none() {
            say("waiting until the fleet has worked it off");
            if let Err(failure) = self.settle(report, &subjects, &metrics).await {
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
            let mut progress = Progress::start("lines asked", self.feed.scan.counting_lines);
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
        metrics: &[MetricSlug],
    ) -> Result<(), Failure> {
        report.rollup_lag_events = settle::rollups(&self.fleet, metrics, self.waits).await?;
        let crossed = settle::thresholds(&self.fleet, subjects, self.waits).await?;
        report.thresholds_crossed = crossed.count;
        report.thresholds_incomplete = !crossed.settled || report.rollup_lag_events > 0;
        let selection = self.selection(report, metrics);
        report.ledger_totals = Some(settle::ledger_totals(&self.fleet, subjects, &selection).await?);
        Ok(())
    }

    /// Whether the ledger may have what other runs recorded of the same accounts under the same source.
    fn shares_accounts(&self) -> bool {
        matches!(self.feed.layout.mapping.accounts, Accounts::Column(_))
    }

    /// The events that the file can have made.
    fn selection(&self, report: &Report, metrics: &[MetricSlug]) -> Selection {
        let (first, last) = self.feed.scan.span.unwrap_or_default();
        let moved = |at: jiff::Timestamp| at.checked_add(self.feed.shift).unwrap_or(at);
        Selection {
            metrics: metrics.to_vec(),
            source: report.source.clone(),
            span: (moved(first), moved(last)),
        }
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
    if check {
        report.allowed_totals = Some(tally.allowed_totals);
        report.recorded_totals = Some(tally.recorded_totals);
        report.unsure_totals = Some(tally.unsure_totals);
    }
    report.stopped = tally.stopped;
}
