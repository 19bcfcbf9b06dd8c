//! The slices in the memory of this replica, by account and metric.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use octroi_core::{AccountId, Charge, MetricSlug, Units};

use super::{
    Need,
    need::Want,
    pocket::{CarveTurn, Pocket, Purse, Refusal},
    samples::Samples,
};
use crate::domain::{
    carve::Granted,
    decision::Level,
    holding::Revision,
    plan::Plan,
    slice::{Slice, common},
    wallet::Pending,
    window::WindowKey,
};

/// Parts with a lock of their own, so that accounts seldom wait for each other.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<AccountId, Purse>>;

/// Every account that this replica has slices of.
pub(super) struct Purses {
    pub(super) shards: Vec<Shard>,
    hasher: std::hash::RandomState,
    /// Whether this replica is about to end. It is looked at under the lock of an account, so that nothing is answered
    /// of it before the ledger has it once its slices were drained.
    closing: AtomicBool,
    /// How many parts were swept.
    pub(super) swept: AtomicUsize,
    /// What other accounts have that may have the same.
    samples: Samples,
    /// Whose slices have something that waits for the ledger, each once.
    dirty: Mutex<VecDeque<(AccountId, MetricSlug)>>,
}

impl Default for Purses {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: std::hash::RandomState::new(),
            closing: AtomicBool::new(false),
            swept: AtomicUsize::new(0),
            samples: Samples::default(),
            dirty: Mutex::default(),
        }
    }
}

/// What was taken: the slices that pay, a list a need, and where the account stands after it, need by need and window by
/// window. Where every need is buffered it is told to the ledger later, and there is nothing to charge now.
pub(super) type Payment = (Vec<Vec<Charge>>, Vec<Level>);

/// The first need that there is too little for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// Which.
    pub(super) index: usize,
    /// How much is missing.
    pub(super) amount: Units,
}

impl Purses {
    /// Lets nothing more be answered before the ledger has it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn shard(&self, account: &AccountId) -> &Shard {
        self.shard_of(account.as_str())
    }

    fn shard_of(&self, account: &str) -> &Shard {
        let place = usize::try_from(self.hasher.hash_one(account) % SHARDS as u64).unwrap_or(0);
        // There are SHARDS of them.
        self.shards
            .get(place)
            .unwrap_or_else(|| unreachable!("a place below SHARDS"))
    }

    pub(super) fn with<T>(&self, account: &AccountId, work: impl FnOnce(&mut Purse) -> T) -> T {
        let mut shard = self.shard(account).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(purse) = shard.get_mut(account) {
            return work(purse);
        }
        work(shard.entry(account.clone()).or_default())
    }

    pub(super) fn read<T>(&self, account: &AccountId, work: impl FnOnce(&mut Purse) -> T) -> Option<T> {
        let mut shard = self.shard(account).lock().unwrap_or_else(PoisonError::into_inner);
        shard.get_mut(account).map(work)
    }

    /// Takes every need or none.
    pub(super) fn take(&self, want: &Want<'_>, now: Timestamp) -> Result<Payment, Missing> {
        self.with(want.account, |purse| self.take_from(purse, want, now))
    }

    fn take_from(&self, purse: &mut Purse, want: &Want<'_>, now: Timestamp) -> Result<Payment, Missing> {
        let (account, needs, at) = (want.account, want.needs, want.at);
        if self.is_closing()
            && let Some(index) = needs.iter().position(|need| need.kept)
        {
            let amount = Units::ONE;
            return Err(Missing { index, amount });
        }
        for need in needs {
            purse.pocket(&need.metric).wallet.follow(want.revision);
        }
        if let Some(missing) = purse.missing(needs, at, now) {
            return Err(missing);
        }
        let mut charges = Vec::with_capacity(needs.len());
        for need in needs {
            charges.push(self.take_one(account, purse, need, at, now));
        }
        Ok((charges, purse.levels(needs)))
    }

    /// Takes a need that there is enough for.
    fn take_one(
        &self,
        account: &AccountId,
        purse: &mut Purse,
        need: &Need,
        at: Timestamp,
        now: Timestamp,
    ) -> Vec<Charge> {
        if need.windows.is_empty() {
            // Nothing limits it.
            return Vec::new();
        }
        let pocket = purse.pocket(&need.metric);
        if !need.buffered {
            return pocket.wallet.take(need.amount, at, now).unwrap_or_default();
        }
        pocket.carve_ended();
        if pocket
            .wallet
            .take_buffered(need.amount, at, now)
            .is_some_and(|spent| spent.is_first)
        {
            self.soil(account, need.metric.clone());
        }
        Vec::new()
    }

    /// Notes that slices of a metric have something that waits for the ledger.
    pub(super) fn soil(&self, account: &AccountId, metric: MetricSlug) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push_back((account.clone(), metric));
    }

    /// Works on what there is of an account, if there is anything.
    pub(super) fn quick<T>(
        &self,
        account: &str,
        work: impl FnOnce(&AccountId, &mut Purse) -> Option<T>,
    ) -> Option<T> {
        let mut shard = self
            .shard_of(account)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The key is needed where something waits for the ledger; looking it up with the value costs nothing more.
        let (account, _) = shard.get_key_value(account)?;
        let account = account.clone();
        work(&account, shard.get_mut(&account)?)
    }

    pub(super) fn drop_older_plan(&self, account: &AccountId, revision: u64) {
        self.read(account, |purse| {
            if purse
                .plan
                .as_ref()
                .is_some_and(|plan| plan.revision.account < revision)
            {
                purse.plan = None;
            }
        });
    }

    /// Whether a plan of this revision is remembered that holds at `at`.
    pub(super) fn has_plan(&self, account: &AccountId, revision: Revision, at: Timestamp) -> bool {
        let holds = |purse: &mut Purse| {
            let plan = purse.plan.as_ref();
            plan.is_some_and(|plan| plan.revision == revision && at < plan.valid_until)
        };
        self.read(account, holds).unwrap_or(false)
    }

    pub(super) fn set_plan(&self, account: &AccountId, plan: Plan) {
        let plan = self.samples.share(plan);
        self.with(account, |purse| purse.plan = Some(Arc::new(plan)));
    }

    /// What waits for the ledger, of about `max` slices: it is on its way from now on.
    pub(super) fn start_flush(&self, max: usize) -> Vec<Pending> {
        let mut flush = Vec::new();
        while flush.len() < max {
            let next = self
                .dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((account, metric)) = next else { break };
            self.read(&account, |purse| {
                if let Some(pocket) = purse.pockets.get_mut(metric.as_str()) {
                    flush.extend(pocket.wallet.start_flush());
                }
            });
        }
        flush
    }

    /// What was on its way is in the ledger.
    pub(super) fn end_flush(&self, Pending { slice, amount, .. }: &Pending) {
        self.read(&slice.account, |purse| {
            if let Some(pocket) = purse.pockets.get_mut(slice.metric.as_str()) {
                pocket.wallet.end_flush(slice.id, *amount);
            }
        });
    }

    /// How many metrics of accounts wait for the ledger.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The lock of whoever carves for a metric.
    pub(super) fn turn(&self, account: &AccountId, metric: &MetricSlug) -> Arc<CarveTurn> {
        self.with(account, |purse| purse.pocket(metric).turn())
    }

    /// Works on what there is of a metric.
    pub(super) fn with_pocket<T>(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        work: impl FnOnce(&mut Pocket) -> T,
    ) -> T {
        self.with(account, |purse| work(purse.pocket(metric)))
    }

    /// Adds a slice that was carved for `want`, and takes that before anybody else does, where there is enough for all of
    /// it.
    pub(super) fn add(&self, slice: Slice, want: &Want<'_>, now: Timestamp) -> Option<Payment> {
        self.with(want.account, |purse| {
            let pocket = purse.pocket(&slice.metric);
            pocket.look_again();
            pocket.wallet.add(slice, want.revision, now);
            let spent = self
                .take_from(purse, want, now)
                .ok()
                .filter(|_| !want.needs.is_empty());
            for pocket in purse.pockets.values_mut() {
                pocket.carve_ended();
            }
            spent
        })
    }

    pub(super) fn see(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        granted: &[(WindowKey, Granted)],
        now: Timestamp,
    ) {
        self.with(account, |purse| {
            let wallet = &mut purse.pocket(metric).wallet;
            for (key, granted) in granted {
                wallet.see(key, *granted, now);
            }
        });
    }

    pub(super) fn put_back(&self, account: &AccountId, needs: &[Need], charges: &[Vec<Charge>]) {
        self.with(account, |purse| {
            for (need, taken) in needs.iter().zip(charges) {
                purse.pocket(&need.metric).wallet.put_back(taken);
            }
        });
    }

    /// Whether as little as `amount` for use at `at` was refused since `since`, so that nobody need ask again.
    pub(super) fn refused(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        (at, amount): (Timestamp, Units),
        since: Timestamp,
    ) -> bool {
        self.with(account, |purse| {
            let refusal = purse.pocket(metric).refused();
            refusal.is_some_and(|refusal| refusal.at > since && refusal.is_of(at, amount))
        })
    }

    /// How often something became free by now.
    pub(super) fn changes(&self, account: &AccountId, metric: &MetricSlug) -> u64 {
        self.with(account, |purse| purse.pocket(metric).carves().changes)
    }

    /// Notes that a carve was refused which began when so much had become free. Where more has since, that is not
    /// believed.
    pub(super) fn refuse(
        &self,
        account: &AccountId,
        need: &Need,
        amount: Units,
        (changes, now): (u64, Timestamp),
    ) {
        let covers = common(need.windows.iter().map(|(key, _)| key));
        self.with(account, |purse| {
            let refusal = Refusal {
                at: now,
                least: amount,
                covers,
            };
            purse.pocket(&need.metric).refuse(refusal, changes);
        });
    }

    /// Notes that it is known what became of what was taken.
    pub(super) fn finish(&self, account: &AccountId, charges: &[Vec<Charge>]) {
        self.read(account, |purse| {
            for pocket in purse.pockets.values_mut() {
                for taken in charges {
                    pocket.wallet.finish(taken);
                }
            }
        });
    }

    /// Believes no refusal of before.
    pub(super) fn look_again(&self, account: &AccountId) {
        self.read(account, |purse| {
            for pocket in purse.pockets.values_mut() {
                pocket.look_again();
            }
        });
    }

    /// Forgets a slice that is settled, and sees what its windows have granted since.
    pub(super) fn settled(
        &self,
        slice: &Slice,
        granted: &HashMap<(AccountId, WindowKey), Granted>,
        now: Timestamp,
    ) {
        self.read(&slice.account, |purse| {
            let Some(pocket) = purse.pockets.get_mut(slice.metric.as_str()) else {
                return;
            };
            pocket.wallet.forget(&[slice.id]);
            pocket.look_again();
            for key in &slice.windows {
                if let Some(granted) = granted.get(&(slice.account.clone(), key.clone())) {
                    pocket.wallet.see(key, *granted, now);
                }
            }
        });
    }

    /// Where the account stands in windows that were looked at since `since`; none where one was not.
    pub(super) fn levels(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        since: Timestamp,
    ) -> Option<Vec<Level>> {
        self.read(account, |purse| {
            (keys.iter())
                .map(|key| purse.pockets.get(key.metric.as_str())?.wallet.level(key, since))
                .collect::<Option<Vec<Level>>>()
        })?
    }

    /// Where the account stands in windows that were just looked at; none where `is_of_now` says that its slices are
    /// others by now.
    pub(super) fn levels_after(
        &self,
        account: &AccountId,
        granted: &[(WindowKey, Granted)],
        now: Timestamp,
        is_of_now: impl FnOnce(&Purse) -> bool,
    ) -> Option<Vec<Level>> {
        self.with(account, |purse| {
            if !is_of_now(purse) {
                return None;
            }
            let level = |(key, granted): &(WindowKey, Granted)| {
                let wallet = &mut purse.pocket(&key.metric).wallet;
                wallet.see(key, *granted, now);
                wallet.level_given(key, granted)
            };
            Some(granted.iter().map(level).collect())
        })
    }

    /// Where the account stands in every window of needs that were denied. `granted` was just looked at.
    pub(super) fn levels_denied(
        &self,
        account: &AccountId,
        needs: &[Need],
        granted: &[(WindowKey, Granted)],
        now: Timestamp,
    ) -> Vec<Level> {
        self.with(account, |purse| {
            for (key, granted) in granted {
                purse.pocket(&key.metric).wallet.see(key, *granted, now);
            }
            let level = |purse: &Purse, key: &WindowKey| {
                let pocket = purse.pockets.get(key.metric.as_str())?;
                pocket.wallet.level_denied(key)
            };
            let windows = needs.iter().flat_map(|need| &need.windows);
            windows
                .map(|(key, _)| level(purse, key).unwrap_or_default())
                .collect()
        })
    }
}
