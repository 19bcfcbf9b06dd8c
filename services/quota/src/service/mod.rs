//! What quota does, one file a use case.

pub(crate) mod apply;
mod check_in_memory;
mod check_quota;
mod commit_hold;
mod current_usage;
pub(crate) mod follow_ledger;
mod holdings;
mod holds;
mod ledger;
mod overrides;
mod unpermitted;

use std::sync::Arc;

use octroi_core::AccountId;
use octroi_kit::{db::Db, directory::Directory, link::Link};
use octroi_proto::usage::v1::usage_service_client::UsageServiceClient;
use tokio_util::sync::CancellationToken;

use self::holdings::Holdings;
pub use self::{commit_hold::Commit, follow_ledger::Used, holds::Reservation};
use crate::{
    answers::{Answers, InProcess, Turns, seen::Seen},
    escrow::Escrow,
};

/// The use cases of quota. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    usage: UsageServiceClient<Link>,
    escrow: Escrow,
    holdings: Holdings,
    /// Answers of this process.
    recent: InProcess,
    /// Answers of all replicas.
    answers: Answers,
    turns: Turns,
    /// Requests that were answered before the ledger had them.
    seen: Arc<Seen>,
}

impl Service {
    /// A service over its database, its slices and its neighbours.
    pub fn new(
        db: &Db,
        directory: Directory,
        usage: UsageServiceClient<Link>,
        escrow: Escrow,
        answers: Answers,
    ) -> Self {
        Self {
            db: db.clone(),
            usage,
            escrow,
            holdings: Holdings::new(db.clone(), directory),
            recent: InProcess::default(),
            answers,
            turns: Turns::default(),
            seen: Arc::default(),
        }
    }

    /// Looks for changes of limits until `stop`.
    pub async fn watch_limits(self, stop: CancellationToken) {
        self.holdings.watch(self.escrow.clone(), stop).await;
    }

    /// What was changed of accounts by events acts at once.
    pub async fn limits_changed(&self, account: &AccountId) {
        self.changed(account).await;
    }
}
