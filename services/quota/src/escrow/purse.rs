//! The slices in the memory of this replica, by account and metric.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units};

use super::Need;
use crate::domain::{
    carve::Granted,
    decision::Level,
    plan::Plan,
    slice::Slice,
    wallet::{Pending, Wallet},
    window::WindowKey,
};

/// Parts with a lock of their own, so that accounts seldom wait for each other.
const SHARDS: usize = 64;

/// What a replica has of one metric of an account.
#[derive(Debug, Default)]
pub(super) struct Pocket {
    pub(super) wallet: Wallet,
    /// Whoever carves has it, so that those who wait find what was carved.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// When so much was refused last.
    pub(super) refused: Option<(Timestamp, Units)>,
}

/// What a replica has of an account.
#[derive(Debug, Default)]
pub(super) struct Purse {
    pub(super) pockets: HashMap<MetricSlug, Pocket>,
    /// What holds for it, where that is remembered.
    pub(super) plan: Option<Arc<Plan>>,
}

impl Purse {
    fn pocket(&mut self, metric: &MetricSlug) -> &mut Pocket {
        // Copying the name is counting a reference.
        self.pockets.entry(metric.clone()).or_default()
    }

    /// The first need that there is too little for.
    fn missing(&mut self, needs: &[Need], at: Timestamp, now: Timestamp) -> Option<Missing> {
        for (index, need) in needs.iter().enumerate() {
            if need.windows.is_empty() {
                continue;
            }
            let left = self.pocket(&need.metric).wallet.left(at, now);
            if left < need.amount {
                let amount = need.amount.saturating_sub(left);
                return Some(Missing { index, amount });
            }
        }
        None
    }

    fn levels(&self, needs: &[Need]) -> Vec<Level> {
        let of_need = |need: &Need| -> Vec<Level> {
            let wallet = self.pockets.get(&need.metric).map(|pocket| &pocket.wallet);
            let level = |(key, _): &(WindowKey, Option<Units>)| {
                let level = wallet.and_then(|wallet| wallet.level(key, Timestamp::MIN));
                level.unwrap_or_default()
            };
            need.windows.iter().map(level).collect()
        };
        needs.iter().flat_map(of_need).collect()
    }
}

type Shard = Mutex<HashMap<AccountId, Purse>>;

/// Every account that this replica has slices of.
pub(super) struct Purses {
    shards: Vec<Shard>,
    hasher: std::hash::RandomState,
    /// Whose slices have something that waits for the ledger, each once.
    dirty: Mutex<VecDeque<(AccountId, MetricSlug)>>,
}

impl Default for Purses {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: std::hash::RandomState::new(),
            dirty: Mutex::default(),
        }
    }
}

/// The first need that there is too little for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// Which.
    pub(super) index: usize,
    /// How much is missing.
    pub(super) amount: Units,
}

impl Purses {
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

    fn with<T>(&self, account: &AccountId, work: impl FnOnce(&mut Purse) -> T) -> T {
        let mut shard = self.shard(account).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(purse) = shard.get_mut(account) {
            return work(purse);
        }
        work(shard.entry(account.clone()).or_default())
    }

    fn read<T>(&self, account: &AccountId, work: impl FnOnce(&mut Purse) -> T) -> Option<T> {
        let mut shard = self.shard(account).lock().unwrap_or_else(PoisonError::into_inner);
        shard.get_mut(account).map(work)
    }

    /// Takes every need or none. Levels come with what was taken, need by need and window by window. Where every need
    /// is buffered what was taken is told to the ledger later, and there is nothing to charge now.
    pub(super) fn take(
        &self,
        account: &AccountId,
        needs: &[Need],
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(Vec<Vec<Charge>>, Vec<Level>), Missing> {
        self.with(account, |purse| {
            if let Some(missing) = purse.missing(needs, at, now) {
                return Err(missing);
            }
            let mut charges = Vec::with_capacity(needs.len());
            for need in needs {
                charges.push(self.take_one(account, purse, need, at, now));
            }
            Ok((charges, purse.levels(needs)))
        })
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
        let wallet = &mut purse.pocket(&need.metric).wallet;
        if !need.buffered {
            return wallet.take(need.amount, at, now).unwrap_or_default();
        }
        if wallet.take_buffered(need.amount, at, now) == Some(true) {
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

    pub(super) fn set_plan(&self, account: &AccountId, plan: Plan) {
        self.with(account, |purse| purse.plan = Some(Arc::new(plan)));
    }

    /// What waits for the ledger, of about `max` slices: it is on its way from now on.
    pub(super) fn start_flush(&self, max: usize) -> Vec<Pending> {
        let mut flush = Vec::new();
        let mut again = Vec::new();
        while flush.len() < max {
            let next = self
                .dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((account, metric)) = next else { break };
            self.read(&account, |purse| {
                let Some(pocket) = purse.pockets.get_mut(&metric) else {
                    return;
                };
                flush.extend(pocket.wallet.start_flush());
                if pocket.wallet.has_pending() {
                    again.push((account.clone(), metric.clone()));
                }
            });
        }
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.extend(again);
        flush
    }

    /// What was on its way is in the ledger.
    pub(super) fn end_flush(&self, slice: &Slice) {
        self.read(&slice.account, |purse| {
            if let Some(pocket) = purse.pockets.get_mut(&slice.metric) {
                pocket.wallet.end_flush(slice.id);
            }
        });
    }

    /// How many metrics of accounts wait for the ledger.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The lock of whoever carves for a metric.
    pub(super) fn turn(&self, account: &AccountId, metric: &MetricSlug) -> Arc<tokio::sync::Mutex<()>> {
        self.with(account, |purse| purse.pocket(metric).turn.clone())
    }

    /// What may be taken of a metric.
    pub(super) fn left(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        at: Timestamp,
        now: Timestamp,
    ) -> Units {
        self.with(account, |purse| purse.pocket(metric).wallet.left(at, now))
    }

    pub(super) fn add(&self, slice: Slice, now: Timestamp) {
        let account = slice.account.clone();
        self.with(&account, |purse| {
            let pocket = purse.pocket(&slice.metric);
            pocket.refused = None;
            pocket.wallet.add(slice, now);
        });
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

    /// Whether as little as `amount` was refused since `since`, so that nobody need ask again.
    pub(super) fn refused(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        amount: Units,
        since: Timestamp,
    ) -> bool {
        self.with(account, |purse| {
            let refused = purse.pocket(metric).refused;
            refused.is_some_and(|(at, least)| at > since && amount >= least)
        })
    }

    pub(super) fn refuse(&self, account: &AccountId, metric: &MetricSlug, amount: Units, now: Timestamp) {
        self.with(account, |purse| {
            purse.pocket(metric).refused = Some((now, amount))
        });
    }

    /// Retires these slices of an account, and answers which of them nobody waits to charge.
    pub(super) fn retire(&self, account: &AccountId, slices: &[SliceId]) -> Vec<SliceId> {
        self.with(account, |purse| {
            let mut ready = Vec::new();
            for pocket in purse.pockets.values_mut() {
                pocket.wallet.retire(slices);
                let named = pocket
                    .wallet
                    .slices()
                    .filter(|held| slices.contains(&held.slice.id));
                ready.extend(
                    named
                        .filter(|held| held.may_be_settled())
                        .map(|held| held.slice.id),
                );
            }
            ready
        })
    }

    /// Retires every slice of an account, and believes nothing of before.
    pub(super) fn retire_all(&self, account: &AccountId) {
        self.read(account, |purse| {
            purse.plan = None;
            for pocket in purse.pockets.values_mut() {
                pocket.wallet.retire_all();
                pocket.refused = None;
            }
        });
    }

    /// Retires every slice of a metric of an account.
    pub(super) fn retire_metric(&self, account: &AccountId, metric: &MetricSlug) {
        self.with(account, |purse| purse.pocket(metric).wallet.retire_all());
    }

    /// Believes no refusal of before.
    pub(super) fn look_again(&self, account: &AccountId) {
        self.read(account, |purse| {
            for pocket in purse.pockets.values_mut() {
                pocket.refused = None;
            }
        });
    }

    /// Slices of a metric that are retired and not settled yet.
    pub(super) fn retired(&self, account: &AccountId, metric: &MetricSlug) -> Vec<SliceId> {
        self.with(account, |purse| {
            let slices = purse.pocket(metric).wallet.slices();
            slices
                .filter(|held| held.may_be_settled())
                .map(|held| held.slice.id)
                .collect()
        })
    }

    /// Forgets a slice that is settled, and sees what its windows have granted since.
    pub(super) fn settled(
        &self,
        slice: &Slice,
        granted: &HashMap<(AccountId, WindowKey), Granted>,
        now: Timestamp,
    ) {
        self.read(&slice.account, |purse| {
            let Some(pocket) = purse.pockets.get_mut(&slice.metric) else {
                return;
            };
            pocket.wallet.forget(&[slice.id]);
            pocket.refused = None;
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
                .map(|key| purse.pockets.get(&key.metric)?.wallet.level(key, since))
                .collect::<Option<Vec<Level>>>()
        })?
    }

    /// Where the account stands in windows that were just looked at.
    pub(super) fn levels_after(
        &self,
        account: &AccountId,
        granted: &[(WindowKey, Granted)],
        now: Timestamp,
    ) -> Vec<Level> {
        self.with(account, |purse| {
            (granted.iter())
                .map(|(key, granted)| {
                    let wallet = &mut purse.pocket(&key.metric).wallet;
                    wallet.see(key, *granted, now);
                    wallet.level_given(key, granted)
                })
                .collect()
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
                let pocket = purse.pockets.get(&key.metric)?;
                pocket.wallet.level_denied(key)
            };
            let windows = needs.iter().flat_map(|need| &need.windows);
            windows
                .map(|(key, _)| level(purse, key).unwrap_or_default())
                .collect()
        })
    }

    /// Retires what is spent, past its time or idle, forgets accounts that have nothing left, and answers every
    /// slice that waits to be settled.
    pub(super) fn sweep(&self, now: Timestamp, idle_since: Timestamp) -> Vec<SliceId> {
        let mut waiting = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for purse in shard.values_mut() {
                for pocket in purse.pockets.values_mut() {
                    pocket.wallet.retire_done(now, idle_since);
                    let retired = pocket.wallet.slices().filter(|held| held.may_be_settled());
                    waiting.extend(retired.map(|held| held.slice.id));
                }
                purse.pockets.retain(|_, pocket| !pocket.is_idle(idle_since));
            }
            shard.retain(|_, purse| {
                let planned = purse.plan.as_ref().is_some_and(|plan| now < plan.valid_until);
                planned || !purse.pockets.is_empty()
            });
        }
        waiting
    }

    /// Retires everything, and answers what may be settled.
    pub(super) fn drain(&self) -> Vec<SliceId> {
        let mut slices = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for pocket in shard.values_mut().flat_map(|purse| purse.pockets.values_mut()) {
                pocket.wallet.retire_all();
                let ready = pocket.wallet.slices().filter(|held| held.may_be_settled());
                slices.extend(ready.map(|held| held.slice.id));
            }
        }
        slices
    }
}

impl Pocket {
    /// Whether nobody would miss it.
    fn is_idle(&self, idle_since: Timestamp) -> bool {
        let refused = self.refused.is_some_and(|(at, _)| at >= idle_since);
        self.wallet.is_empty()
            && !refused
            && !self.wallet.seen_since(idle_since)
            && Arc::strong_count(&self.turn) == 1
    }
}
