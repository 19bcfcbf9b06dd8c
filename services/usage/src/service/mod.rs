//! What usage does, one file a use case.

mod apply_catalog;
mod catalog;
mod commit;
mod correct;
mod create_usage_report;
mod download_usage_report;
mod forecast_usage;
mod generate_usage_report;
mod get_event;
mod ledger_totals;
mod list_anomalies;
mod list_events;
mod look;
mod months;
mod reports;
mod run_usage_reports;
mod seal_slices;
mod stats;
mod stream_usage_report;
mod track;
mod usage_report_jobs;
mod watermark;

use std::sync::Arc;

use jiff::Timestamp;
use octroi_kit::{db::Db, directory::Directory, outbox::Wake};

use self::{catalog::Catalog, commit::Committer, months::Months, reports::Reports};
pub use self::{
    correct::{Corrections, Made},
    forecast_usage::Forecasts,
    generate_usage_report::ReportPage,
    get_event::EventView,
    ledger_totals::LedgerTotals,
    stats::{StatsQuery, UsageStats},
    track::{Batch, Recorded},
};
use crate::config::Config;

/// The use cases of usage. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    directory: Directory,
    catalog: Arc<Catalog>,
    months: Arc<Months>,
    committer: Committer,
    wake: Wake,
    reports: Arc<Reports>,
}

impl Service {
    /// A service over its database; commits wake the outbox's relay.
    pub fn new(db: &Db, directory: Directory, wake: &Wake, config: &Config) -> Self {
        let ledger = &config.ledger;
        Self {
            db: db.clone(),
            directory,
            catalog: Arc::new(Catalog::new(db.clone())),
            months: Arc::new(Months::new(db.clone(), ledger.months_kept)),
            committer: Committer::start(db, wake, ledger),
            wake: wake.clone(),
            reports: Arc::new(Reports::new(&config.reports)),
        }
    }

    /// The present of the primary.
    pub fn now(&self) -> Timestamp {
        self.db.clock().now()
    }
}
