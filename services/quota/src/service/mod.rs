//! What quota does, one file a use case.

pub(crate) mod apply;
mod back_to_normal;
mod check_in_memory;
mod check_quota;
mod commit_hold;
mod current_usage;
mod degraded;
mod explain_decision;
pub(crate) mod follow_corrections;
pub(crate) mod follow_ledger;
mod hold_rows;
mod holdings;
mod holds;
mod ledger;
mod ledger_calls;
mod overrides;
mod pay_commit;
mod question;
mod repeats;
mod unpermitted;
mod window_teller;

use std::sync::Arc;

use octroi_core::AccountId;
use octroi_journal::Journal;
use octroi_kit::{db::Db, directory::Directory, link::Link};
use octroi_proto::usage::v1::{TrackUsageBatchRequest, usage_service_client::UsageServiceClient};
use tokio_util::sync::CancellationToken;

pub use self::{
    commit_hold::Commit,
    explain_decision::{Explanation, Named},
    follow_ledger::Used,
    holds::Reservation,
};
use self::{
    degraded::Reach, hold_rows::HoldReader, holdings::Holdings, ledger_calls::LedgerCalls,
    window_teller::WindowTeller,
};
use crate::{
    answers::{Answers, InProcess, RequestKey, seen::Seen},
    cache::Cache,
    decisions::Decisions,
    escrow::Escrow,
    turns::Turns,
};

/// The use cases of quota. Cloning shares it.
#[derive(Clone)]
pub struct Service {
    db: Db,
    usage: UsageServiceClient<Link>,
    ledger_calls: LedgerCalls,
    escrow: Escrow,
    holdings: Holdings,
    hold_reader: HoldReader,
    window_teller: WindowTeller,
    /// Answers of this process.
    recent: InProcess,
    /// Answers of all replicas.
    answers: Answers,
    cache: Cache,
    journal: Journal<TrackUsageBatchRequest>,
    /// Whether the ledger is away.
    reach: Arc<Reach>,
    turns: Turns<(AccountId, RequestKey)>,
    /// Requests that were answered before the ledger had them.
    seen: Arc<Seen>,
    /// Decisions, to explain them.
    decisions: Decisions,
}

/// What is kept beside the database.
#[derive(Debug)]
pub struct Memories {
    /// Answers of all replicas.
    pub answers: Answers,
    /// Copies of what the database says.
    pub cache: Cache,
    /// Decisions that the ledger must hear of yet.
    pub journal: Journal<TrackUsageBatchRequest>,
    /// Decisions, to explain them.
    pub decisions: Decisions,
    /// Requests that were answered before the ledger had them.
    pub seen: Seen,
}

impl Service {
    /// A service over its database, its slices and its neighbours.
    pub fn new(
        db: &Db,
        directory: Directory,
        usage: UsageServiceClient<Link>,
        escrow: Escrow,
        memories: Memories,
    ) -> Self {
        Self {
            db: db.clone(),
            ledger_calls: LedgerCalls::start(usage.clone()),
            usage,
            escrow,
            holdings: Holdings::new(db.clone(), directory, memories.cache.clone()),
            hold_reader: HoldReader::start(db),
            window_teller: WindowTeller::start(db),
            recent: InProcess::default(),
            answers: memories.answers,
            cache: memories.cache,
            journal: memories.journal,
            reach: Arc::default(),
            turns: Turns::default(),
            seen: Arc::new(memories.seen),
            decisions: memories.decisions,
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
