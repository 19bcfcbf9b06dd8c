//! What usage does, one file a use case.

mod apply_catalog;
mod catalog;
mod commit;
mod correct;
mod get_event;
mod ledger_totals;
mod list_events;
mod months;
mod seal_slices;
mod stats;
mod track;
mod watermark;

use std::sync::Arc;

use octroi_kit::{db::Db, directory::Directory, outbox::Wake};

use self::{catalog::Catalog, commit::Committer, months::Months};
pub use self::{
    correct::{Corrections, Made},
    get_event::EventView,
    ledger_totals::LedgerTotals,
    stats::{StatsQuery, UsageStats},
    track::{Batch, Recorded},
};
use crate::config;

/// The use cases of usage. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    directory: Directory,
    catalog: Arc<Catalog>,
    months: Arc<Months>,
    committer: Committer,
    wake: Wake,
}

impl Service {
    /// A service over its database; commits wake the outbox's relay.
    pub fn new(db: &Db, directory: Directory, wake: &Wake, ledger: &config::Ledger) -> Self {
        Self {
            db: db.clone(),
            directory,
            catalog: Arc::new(Catalog::new(db.clone())),
            months: Arc::new(Months::new(db.clone(), ledger.months_kept)),
            committer: Committer::start(db, wake, ledger),
            wake: wake.clone(),
        }
    }
}
