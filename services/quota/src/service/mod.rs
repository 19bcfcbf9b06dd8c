//! What quota does, one file a use case.

pub(crate) mod apply;
mod check_quota;
mod current_usage;
pub(crate) mod follow_ledger;
mod holdings;
mod ledger;
mod levels;
mod reconcile;

use octroi_kit::{db::Db, directory::Directory, link::Link};
use octroi_proto::usage::v1::usage_service_client::UsageServiceClient;

pub use self::follow_ledger::Used;
use self::{holdings::Holdings, reconcile::Waiting};
use crate::counters::Counters;

/// The use cases of quota. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    usage: UsageServiceClient<Link>,
    counters: Counters,
    holdings: Holdings,
    waiting: Waiting,
}

impl Service {
    /// A service over its database, its counters and its neighbours.
    pub fn new(db: &Db, directory: Directory, usage: UsageServiceClient<Link>, counters: Counters) -> Self {
        Self {
            db: db.clone(),
            usage,
            counters,
            holdings: Holdings::new(db.clone(), directory),
            waiting: Waiting::default(),
        }
    }
}
