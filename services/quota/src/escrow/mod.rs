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

mod carver;
mod flush;
mod hot;
mod purse;
mod settler;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
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
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{carver::Carver, purse::Purses};
pub use self::{
    carver::{Ask, Carved, Terms},
    hot::QuickCheck,
};
use crate::{
    config::SlicesConfig,
    domain::{carve::Granted, decision::Level, holding::Revision, slice::SliceKind, window::WindowKey},
    error::Error,
    store::{self, Which},
};

/// How often a replica looks after its slices and those that nobody looks after.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// How old a slice of another replica must be before it is recalled, so that two replicas do not take turns.
const RECALL_AGE: SignedDuration = SignedDuration::from_millis(250);
/// How long a refusal is believed before the limit is looked at again.
const REFUSAL_FRESH: SignedDuration = SignedDuration::from_millis(50);

/// What is taken of one metric.
#[derive(Clone, Debug)]
pub struct Need {
    /// The metric.
    pub metric: MetricSlug,
    /// How much.
    pub amount: Units,
    /// The windows that must give it, with the most that each may grant.
    pub windows: Vec<(WindowKey, Option<Units>)>,
    /// No slice is spent after this, where something says so.
    pub until: Option<Timestamp>,
    /// Whether it is answered before the ledger has it: then every need of the check is.
    pub buffered: bool,
}

/// What became of taking.
#[derive(Debug)]
pub enum Taken {
    /// The slices that pay, a list a need, and where the account stands in each window after it.
    Yes {
        /// A list a need.
        charges: Vec<Vec<Charge>>,
        /// A level a window, need by need.
        levels: Vec<Level>,
    },
    /// Some window had no room. Where the account stands, nothing being taken.
    No {
        /// A level a window, need by need.
        levels: Vec<Level>,
    },
    /// The limits have changed since they were read.
    Stale,
}

/// The slices of this replica. Cloning shares them.
#[derive(Clone)]
pub struct Escrow(Arc<Inner>);

struct Inner {
    db: Db,
    usage: UsageServiceClient<Link>,
    carver: Carver,
    purses: Purses,
    config: SlicesConfig,
    /// This process, since it started.
    replica: Uuid,
    /// Tells what was answered to the ledger before its time.
    flush_now: tokio::sync::Notify,
    /// How many events the ledger was told.
    flushes: AtomicU64,
    /// Until when it is believed that no limit changed unnoticed, in microseconds since the Unix epoch.
    believed_until_us: AtomicI64,
    /// The version of the catalog that was in force when limits were looked at last.
    catalog: AtomicU64,
    /// Whether this replica is about to end.
    closing: AtomicBool,
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
    pub fn new(db: &Db, usage: UsageServiceClient<Link>, config: SlicesConfig) -> Self {
        Self(Arc::new(Inner {
            db: db.clone(),
            usage,
            carver: Carver::start(db),
            purses: Purses::default(),
            config,
            replica: Uuid::new_v4(),
            flush_now: tokio::sync::Notify::new(),
            flushes: AtomicU64::new(0),
            believed_until_us: AtomicI64::new(0),
            catalog: AtomicU64::new(0),
            closing: AtomicBool::new(false),
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
        // Each pass either takes, carves something, or ends; others may spend between two passes.
        for _ in 0..self.0.config.tries_max {
            let now = self.0.db.clock().now();
            let missing = match self.0.purses.take(account, needs, at, now) {
                Ok((charges, levels)) => return Ok(Taken::Yes { charges, levels }),
                Err(missing) => missing,
            };
            let Some(need) = needs.get(missing.index) else {
                break;
            };
            if self
                .0
                .purses
                .refused(account, &need.metric, missing.amount, now - REFUSAL_FRESH)
            {
                return Ok(self.no(account, needs, &[], now));
            }
            let turn = self.0.purses.turn(account, &need.metric);
            let _turn = turn.lock().await;
            // Whoever had the turn before may have carved enough for this one as well.
            if self.0.purses.left(account, &need.metric, at, now) >= need.amount {
                continue;
            }
            match self.carve_for(account, need, revision, missing.amount).await? {
                Carved::Slice(_) => {}
                Carved::Stale => return Ok(Taken::Stale),
                // Its id is new and it comes alone.
                Carved::Exists | Carved::Withheld => return Err(Error::Database(DatabaseError::Aborted)),
                Carved::Full(granted) => {
                    if self.recall(account, &need.metric).await? {
                        continue;
                    }
                    self.0
                        .purses
                        .refuse(account, &need.metric, missing.amount, self.0.db.clock().now());
                    return Ok(self.no(account, needs, &granted, now));
                }
            }
        }
        let now = self.0.db.clock().now();
        Ok(self.no(account, needs, &[], now))
    }

    async fn carve_for(
        &self,
        account: &AccountId,
        need: &Need,
        revision: Revision,
        missing: Units,
    ) -> Result<Carved, Error> {
        let ask = Ask {
            account: account.clone(),
            metric: need.metric.clone(),
            kind: SliceKind::Replica,
            buffered: need.buffered,
            need: missing,
            want: self.want(need).max(missing),
            windows: need.windows.clone(),
            revision,
            terms: Terms::Natural { until: need.until },
            id: SliceId::new(Uuid::new_v4()),
            owner: self.0.replica,
        };
        let mut carved = self.0.carver.carve(vec![ask], false).await?;
        let answer = carved.pop().ok_or(DatabaseError::Aborted)?;
        let now = self.0.db.clock().now();
        self.0.purses.see(account, &need.metric, &answer.granted, now);
        if let Carved::Slice(slice) = &answer.carved {
            metrics::counter!("octroi_quota_slices_total", "outcome" => "carved").increment(1);
            self.0.purses.add(slice.clone(), now);
        }
        Ok(answer.carved)
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

    /// Carves slices that are not for the memory of this replica: all of them or none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn carve_all(&self, asks: Vec<Ask>) -> Result<Vec<Carved>, Error> {
        let named: Vec<_> = asks
            .iter()
            .map(|ask| (ask.account.clone(), ask.metric.clone()))
            .collect();
        let answers = self.0.carver.carve(asks, true).await?;
        let now = self.0.db.clock().now();
        for ((account, metric), answer) in named.iter().zip(&answers) {
            self.0.purses.see(account, metric, &answer.granted, now);
        }
        Ok(answers.into_iter().map(|answer| answer.carved).collect())
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

    /// Spends nothing more of slices that the ledger refused, or of which it is not known what was charged, and
    /// settles them.
    pub fn retire(&self, account: &AccountId, slices: &[SliceId]) {
        let ready = self.0.purses.retire(account, slices);
        self.settle_later(ready);
    }

    /// How much a slice may have beyond what is needed: a buffered one is lost to its windows where this replica dies.
    fn want(&self, need: &Need) -> Units {
        let config = &self.0.config;
        let most = if need.buffered {
            config.buffered_units_max
        } else {
            config.units_max
        };
        Units::new(most).unwrap_or(Units::MAX)
    }

    /// Settles what this replica and others have of a metric, so that it can be held. Answers whether there was
    /// anything.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn recall_all(&self, account: &AccountId, metric: &MetricSlug) -> Result<bool, Error> {
        self.0.purses.retire_metric(account, metric);
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
                    store::list_slices(connection, which).await
                })
            })
            .await?;
        // Own ones that are retired but not settled count at their caps too.
        let own = self.0.purses.retired(account, metric);
        let ids: Vec<SliceId> = others.iter().map(|row| row.slice.id).chain(own).collect();
        if ids.is_empty() {
            return Ok(false);
        }
        metrics::counter!("octroi_quota_recalls_total").increment(1);
        Ok(self.settle(&ids).await? > 0)
    }

    /// Where the account stands in windows; those that were looked at since `since` are not looked up again.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn levels(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        since: Timestamp,
    ) -> Result<Vec<Level>, Error> {
        if let Some(levels) = self.0.purses.levels(account, keys, since) {
            return Ok(levels);
        }
        let windows: Vec<_> = keys.iter().map(|key| (account.clone(), key.clone())).collect();
        let found = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::find_windows(connection, &windows).await })
            })
            .await?;
        let now = self.0.db.clock().now();
        let granted: Vec<(WindowKey, Granted)> = (keys.iter())
            .map(|key| {
                let granted = found.get(&(account.clone(), key.clone())).copied();
                (key.clone(), granted.unwrap_or_default())
            })
            .collect();
        Ok(self.0.purses.levels_after(account, &granted, now))
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
        let ids: Vec<SliceId> = rows.iter().map(|row| row.slice.id).collect();
        if !ids.is_empty() {
            self.settle(&ids).await?;
        }
        Ok(())
    }

    /// Spends nothing more of the slices of an account; the next sweep settles them.
    pub fn retire_account(&self, account: &AccountId) {
        self.0.purses.retire_all(account);
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
        self.0.closing.store(true, Ordering::Relaxed);
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
