//! What quota does, one file a use case.

pub(crate) mod apply;
mod check_quota;
mod current_usage;
pub(crate) mod follow_ledger;
mod holdings;
mod ledger;
mod levels;
mod reconcile;

use std::{sync::Arc, time::Duration};

use octroi_kit::{db::Db, directory::Directory, link::Link};
use octroi_proto::usage::v1::usage_service_client::UsageServiceClient;
use tokio::sync::Semaphore;

pub use self::follow_ledger::Used;
use self::{holdings::Holdings, reconcile::Waiting};
use crate::{config::Config, counters::Counters};

/// Sums of the ledger for cold windows that may run at once.
const SEEDS_AT_ONCE: usize = 4;

/// The use cases of quota. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    usage: UsageServiceClient<Link>,
    counters: Counters,
    holdings: Holdings,
    waiting: Waiting,
    /// Sums of the ledger for cold windows that may run at once; the ledger has commits to do.
    seeding: Arc<Semaphore>,
}

impl Service {
    /// A service over its database, its counters and its neighbours.
    pub fn new(
        config: &Config,
        db: &Db,
        directory: Directory,
        usage: UsageServiceClient<Link>,
        counters: Counters,
    ) -> Self {
        Self {
            db: db.clone(),
            usage,
            counters,
            holdings: Holdings::new(db.clone(), directory),
            waiting: Waiting::new(Duration::from_millis(config.reconcile_after_ms)),
            seeding: Arc::new(Semaphore::new(SEEDS_AT_ONCE)),
        }
    }
}
