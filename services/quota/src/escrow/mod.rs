//! How a limit is kept: slices of it are carved here, spent in the memory of replicas, and charged by the ledger in
//! the commit of the events that they pay for (`docs/decisions/0005-escrow.md`).
//!
//! From top to bottom:
//! 1. **Carve** ([`carver`]): one transaction over the windows of a metric. Where every window has room, a slice of
//!    all of them is written down, and counts at its cap from then on.
//! 2. **Spend** ([`purse`], `domain/wallet.rs`): a check takes its amounts from slices in memory, all or nothing.
//! 3. **Charge** (usage): the events go to the ledger with the slices that pay. The ledger takes an event only where
//!    each of its slices is open and has room, in the event's own transaction. Only then is the caller answered.
//! 4. **Settle** ([`settler`]): *close* a slice, *seal* it in the ledger, which answers what was charged, and *apply*
//!    that to the windows, which have the rest of the cap back. Anybody may settle any slice at any time: who still
//!    spends a sealed one is refused by the ledger and carves another.
//!
//! Everything above the two databases is a hint that may be lost.

mod ahead;
mod carver;
mod clean;
mod flush;
mod gone;
mod hot;
mod level_reader;
mod levels;
mod need;
mod pocket;
mod purse;
mod retiring;
mod samples;
mod settler;
mod size;
mod unanswered;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units};
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    link::Link,
};
use octroi_proto::usage::v1::usage_service_client::UsageServiceClient;
use tokio::sync::OnceCell;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    carver::{Answer, Carver},
    flush::Outgoing,
    level_reader::LevelReader,
    need::Want,
    purse::{Missing, Payment, Purses},
    settler::Settling,
    unanswered::{Unanswered, Waiting},
};
pub use self::{
    carver::{Ask, Carved, Terms},
    clean::TOLD_KNOWN,
    hot::{Quick, QuickCheck},
    need::{Need, Taken},
};
use crate::{
    cache::{Cache, Part},
    config::SlicesConfig,
    domain::{carve::Granted, holding::Revision, slice::SliceKind, window::WindowKey},
    error::Error,
    store::{self, SliceRow, Which},
};

/// How often a replica looks after its slices and those that nobody looks after.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// How old a slice of another replica must be before it is recalled, so that two replicas do not take turns.
const RECALL_AGE: SignedDuration = SignedDuration::from_millis(250);
/// How long a refusal is believed before the limit is looked at again.
const REFUSAL_FRESH: SignedDuration = SignedDuration::from_millis(50);

/// The slices of this replica. Cloning shares them.
#[derive(Clone)]
pub struct Escrow(Arc<Inner>);

struct Inner {
    db: Db,
    usage: UsageServiceClient<Link>,
    cache: Cache,
    carver: Carver,
    level_reader: LevelReader,
    settling: Settling,
    purses: Purses,
    unanswered: Unanswered,
    config: SlicesConfig,
    /// This process, since it started.
    replica: Uuid,
    /// Whether the others knew of it before it had anything.
    announced: OnceCell<()>,
    /// Tells what was answered to the ledger before its time.
    flush_now: tokio::sync::Notify,
    /// Whoever tells the ledger has it, with what it was told and did not take.
    unsent: tokio::sync::Mutex<Vec<Outgoing>>,
    /// The ledger was told something.
    told: tokio::sync::Notify,
    /// How many events the ledger was told.
    flushes: AtomicU64,
    /// Since when the ledger cannot be told what was answered, in microseconds since the Unix epoch; 0 where it can.
    away_since_us: AtomicI64,
    /// Until when it is believed that no limit changed unnoticed, in microseconds since the Unix epoch.
    believed_until_us: AtomicI64,
    /// The version of the catalog that was in force when limits were looked at last.
    catalog: AtomicU64,
    /// Those who carve.
    carving: TaskTracker,
}

impl std::fmt::Debug for Escrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Escrow")
            .field("replica", &self.0.replica)
            .finish_non_exhaustive()
    }
}

impl Escrow {
    /// No slices yet, over quota's schema and the ledger.
    pub fn new(db: &Db, usage: UsageServiceClient<Link>, cache: Cache, config: SlicesConfig) -> Self {
        Self(Arc::new_cyclic(|inner| Inner {
            settling: settler::start(inner.clone()),
            db: db.clone(),
            usage,
            cache,
            carver: Carver::start(db),
            level_reader: LevelReader::start(db),
            purses: Purses::default(),
            unanswered: Unanswered::default(),
            config,
            replica: Uuid::new_v4(),
            announced: OnceCell::new(),
            flush_now: tokio::sync::Notify::new(),
            unsent: tokio::sync::Mutex::default(),
            told: tokio::sync::Notify::new(),
            flushes: AtomicU64::new(0),
            away_since_us: AtomicI64::new(0),
            believed_until_us: AtomicI64::new(0),
            catalog: AtomicU64::new(0),
            carving: TaskTracker::new(),
        }))
    }

    /// Takes every need for use at `at`, or none; where the memory of this replica has too little, another slice is
    /// carved, and before a denial what others do not spend is recalled.
    ///
    /// # Errors
    /// [`Error::Database`] where nothing is left in memory and the limits cannot be reached.
    pub async fn take(
        &self,
        account: &AccountId,
        needs: &[Need],
        revision: Revision,
        at: Timestamp,
    ) -> Result<Taken, Error> {
        let want = Want {
            account,
            needs,
            revision,
            at,
        };
        // Each pass takes, or finds that there is less than before: others carve what was recalled.
        for _ in 0..self.0.config.tries_max {
            let now = self.0.db.clock().now();
            let missing = match self.0.purses.take(&want, now) {
                Ok((charges, levels)) => return Ok(Taken::Yes { charges, levels }),
                Err(missing) => missing,
            };
            let Some(need) = needs.get(missing.index) else {
                break;
            };
            if self
                .0
                .purses
                .refused(account, &need.metric, (at, missing.amount), now - REFUSAL_FRESH)
            {
                return Ok(self.no(account, needs, &[], now));
            }
            if let Some(taken) = self.take_in_turn(&want, need, &missing).await? {
                return Ok(taken);
            }
        }
        // Others took what was carved each time; there is no saying that the limit is full.
        Err(Error::Overloaded)
    }

    /// Carves what is missing once it is the caller's turn, and takes; none where it is worth another try.
    async fn take_in_turn(
        &self,
        want: &Want<'_>,
        need: &Need,
        missing: &Missing,
    ) -> Result<Option<Taken>, Error> {
        let account = want.account;
        let turn = self.0.purses.turn(account, &need.metric);
        let _turn = turn.lock.lock().await;
        // Whoever had the turn before may have carved enough for this one as well.
        let now = self.0.db.clock().now();
        let amount = match self.0.purses.take(want, now) {
            Ok((charges, levels)) => return Ok(Some(Taken::Yes { charges, levels })),
            Err(again) if again.index == missing.index => again.amount,
            Err(_) => return Ok(None),
        };
        // Or found that there is no more: each of those who wait need not find that out again.
        if (self.0.purses).refused(account, &need.metric, (want.at, amount), now - REFUSAL_FRESH) {
            return Ok(Some(self.no(account, want.needs, &[], now)));
        }
        self.wait_for_room(account, need, amount).await;
        let changes = self.0.purses.changes(account, &need.metric);
        match self.carve_for(want, need, amount).await? {
            (_, Some((charges, levels))) => Ok(Some(Taken::Yes { charges, levels })),
            (Carved::Slice(_), None) => Ok(None),
            (Carved::Stale(revision), None) => Ok(Some(Taken::Stale(revision))),
            // Its id is new and it comes alone.
            (Carved::Exists | Carved::Withheld, None) => Err(Error::Database(DatabaseError::Aborted)),
            (Carved::Full(granted), None) => {
                if self.recall(account, &need.metric).await? {
                    return Ok(None);
                }
                (self.0.purses).refuse(account, need, amount, (changes, self.0.db.clock().now()));
                Ok(Some(self.no(account, want.needs, &granted, now)))
            }
        }
    }

    /// Carves a slice for a need, and takes all that is wanted before anybody else does, where there is enough then.
    async fn carve_for(
        &self,
        want: &Want<'_>,
        need: &Need,
        missing: Units,
    ) -> Result<(Carved, Option<Payment>), Error> {
        let (account, revision) = (want.account, want.revision);
        // The end of the process waits for it, so that it gives back what is carved meanwhile.
        let _carving = self.0.carving.token();
        if need.kept && self.is_closing() {
            // Asked again, it is decided elsewhere, or once the ledger has it.
            return Err(Error::Database(DatabaseError::Stopping));
        }
        let now = self.0.db.clock().now();
        let most = self.want(account, need, missing, now);
        let ask = Ask {
            account: account.clone(),
            metric: need.metric.clone(),
            kind: SliceKind::Replica,
            kept: need.kept,
            need: missing,
            want: most,
            windows: need.windows.clone(),
            revision,
            terms: Terms::Natural { until: need.until },
            id: SliceId::new(Uuid::new_v4()),
            owner: self.0.replica,
            content_hash: None,
        };
        let waiting = self.0.unanswered.waits_for(&ask, now);
        let mut carved = self.carve(vec![ask], false).await?;
        let answer = carved.pop().ok_or(DatabaseError::Aborted)?;
        waiting.answered();
        let now = self.0.db.clock().now();
        self.0.purses.see(account, &need.metric, &answer.granted, now);
        let mut spent = None;
        if let Carved::Slice(slice) = &answer.carved {
            metrics::counter!("octroi_quota_slices_total", "outcome" => "carved").increment(1);
            spent = self.0.purses.add(slice.clone(), want, now);
        }
        Ok((answer.carved, spent))
    }

    fn no(
        &self,
        account: &AccountId,
        needs: &[Need],
        granted: &[(WindowKey, Granted)],
        now: Timestamp,
    ) -> Taken {
        Taken::No {
            levels: self.0.purses.levels_denied(account, needs, granted, now),
        }
    }

    /// Carves, once the others know of this replica: they settle what it has where it dies.
    async fn carve(&self, asks: Vec<Ask>, all_or_nothing: bool) -> Result<Vec<Answer>, Error> {
        self.0.announced.get_or_try_init(|| self.be_seen()).await?;
        self.0.carver.carve(asks, all_or_nothing).await
    }

    /// Carves slices that are not for the memory of this replica: all of them or none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn carve_all(&self, asks: Vec<Ask>) -> Result<Vec<Carved>, Error> {
        let named: Vec<_> = asks
            .iter()
            .map(|ask| (ask.account.clone(), ask.metric.clone()))
            .collect();
        let now = self.0.db.clock().now();
        // A hold is found again by its request; nothing leads to any other slice but its id.
        let lost = |ask: &&Ask| ask.kind != SliceKind::Hold;
        let waiting: Vec<_> = (asks.iter().filter(lost))
            .map(|ask| self.0.unanswered.waits_for(ask, now))
            .collect();
        let answers = self.carve(asks, true).await?;
        waiting.into_iter().for_each(Waiting::answered);
        let changed: BTreeSet<AccountId> = named.iter().map(|(account, _)| account.clone()).collect();
        self.windows_changed(changed).await;
        let now = self.0.db.clock().now();
        for ((account, metric), answer) in named.iter().zip(&answers) {
            self.0.purses.see(account, metric, &answer.granted, now);
        }
        Ok(answers.into_iter().map(|answer| answer.carved).collect())
    }

    /// Forgets copies of what windows have granted.
    pub async fn windows_changed(&self, accounts: BTreeSet<AccountId>) {
        let accounts: Vec<AccountId> = accounts.into_iter().collect();
        self.0.cache.forget(&accounts, &[Part::Usage]).await;
    }

    /// This process, as slices know it.
    #[must_use]
    pub fn replica(&self) -> Uuid {
        self.0.replica
    }

    /// Gives back what was taken and surely not charged.
    pub fn put_back(&self, account: &AccountId, needs: &[Need], charges: &[Vec<Charge>]) {
        self.0.purses.put_back(account, needs, charges);
    }

    /// Notes that it is known what became of what was taken.
    pub fn finish(&self, account: &AccountId, charges: &[Vec<Charge>]) {
        self.0.purses.finish(account, charges);
    }

    /// Notes that what was taken is in the journal, or, once the ledger has it, not any more.
    pub fn owe(&self, account: &AccountId, charges: &[Charge], owed: bool) {
        self.0.purses.owe(account, charges, owed);
    }

    /// Spends nothing more of slices of which it is not known what was charged, and settles them.
    pub fn retire(&self, account: &AccountId, slices: &[SliceId]) {
        let ready = self.0.purses.retire(account, slices);
        self.settle_later(ready);
    }

    /// How long limits with the policy LEASE go on with what was carved.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.0.config.lease_ms)
    }

    /// Settles what this replica and others have of a metric, so that it can be held. Answers whether there was
    /// anything.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn recall_all(&self, account: &AccountId, metric: &MetricSlug) -> Result<bool, Error> {
        let now = self.0.db.clock().now();
        // Who is denied comes often; what was carved since the last time is as new as what others were just given.
        self.0.purses.with_pocket(account, metric, |pocket| {
            let carves = pocket.carves();
            if carves.recalled_at < now - RECALL_AGE {
                carves.recalled_at = now;
                pocket.wallet.retire_all();
            }
        });
        self.recall(account, metric).await
    }

    /// Believes no refusal of before: something was given back.
    pub fn look_again(&self, account: &AccountId) {
        self.0.purses.look_again(account);
    }

    /// Settles what others have of a metric and were not given a moment ago. Answers whether there was anything.
    async fn recall(&self, account: &AccountId, metric: &MetricSlug) -> Result<bool, Error> {
        let now = self.0.db.clock().now();
        let (asked, of, own) = (account.clone(), metric.clone(), self.0.replica);
        let others = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let which = Which::Others {
                        account: &asked,
                        metric: &of,
                        own,
                        carved_before: now - RECALL_AGE,
                    };
                    // What only its owner may settle it is asked for; whoever comes a moment later finds it.
                    store::recall_slices(connection, &asked, &of, own, now - RECALL_AGE).await?;
                    store::list_slices(connection, which).await
                })
            })
            .await?;
        // Own ones that are retired but not settled count at their caps too. What was answered of them is told first.
        self.wait_until_told(account, metric).await;
        let own = self.0.purses.retired(account, metric);
        let lost = self.0.unanswered.of_metric(account, metric);
        let ids: Vec<SliceId> = others
            .iter()
            .map(|row| row.slice.id)
            .chain(own)
            .chain(lost)
            .collect();
        if ids.is_empty() {
            return Ok(false);
        }
        metrics::counter!("octroi_quota_recalls_total").increment(1);
        Ok(self.settle(&ids).await? > 0)
    }

    /// Settles the slices that replicas have of an account, so that its limits of now hold for all of them.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached; the sweep of each replica does it then.
    pub async fn settle_account(&self, account: &AccountId) -> Result<(), Error> {
        self.0.purses.retire_all(account);
        let asked = account.clone();
        let rows = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::list_slices(connection, Which::OfAccount(&asked)).await })
            })
            .await?;
        self.0.flush_now.notify_one();
        let ids: Vec<SliceId> = (rows.iter().filter(|row| self.may_settle(row)))
            .map(|row| row.slice.id)
            .collect();
        if !ids.is_empty() {
            self.settle(&ids).await?;
        }
        Ok(())
    }

    /// Whether nothing that this replica answered or is about to would be lost with a slice: of others' slices it has
    /// answered nothing.
    fn may_settle(&self, row: &SliceRow) -> bool {
        row.owner != self.0.replica || self.0.purses.may_settle(&row.slice)
    }

    /// Spends nothing more of slices of an account that were carved from limits before `revision`; the next sweep settles
    /// them.
    pub fn follow(&self, account: &AccountId, revision: Revision) {
        self.0.purses.follow(account, revision);
    }

    /// Looks after slices until `stop`: says that this replica lives, settles what is spent, idle, past its time or
    /// nobody's, and returns its own at the end.
    pub async fn sweep(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(error = %error, "slices could not be looked after, and wait");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
        }
        self.return_slices().await;
    }

    /// Gives back every slice of this replica, after what it answered is in the ledger.
    async fn return_slices(&self) {
        self.0.purses.close();
        self.0.carving.close();
        self.0.carving.wait().await;
        self.0.purses.drain();
        if !self.flush_all().await {
            tracing::warn!("what was answered could not be recorded; its slices stay counted");
        }
        let ids = self.0.purses.drain();
        if let Err(error) = self.settle(&ids).await {
            tracing::warn!(error = %error, slices = ids.len(), "slices are left to the other replicas");
        }
    }
}
