//! Slices that this replica spends no more, and which of them may be settled.

use std::sync::{PoisonError, atomic::Ordering};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId};

use super::purse::Purses;
use crate::domain::{holding::Revision, slice::Slice, wallet::Held};

/// About how many accounts one sweep looks at.
const SWEPT_AT_ONCE: usize = 50_000;

impl Purses {
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
                pocket.look_again();
            }
        });
    }

    /// Retires the slices of an account that are of limits before `revision`, and believes nothing of before.
    pub(super) fn follow(&self, account: &AccountId, revision: Revision) {
        self.read(account, |purse| {
            if (purse.plan.as_ref()).is_some_and(|plan| plan.revision.is_older_than(revision)) {
                purse.plan = None;
            }
            for pocket in purse.pockets.values_mut() {
                pocket.wallet.follow(revision);
                pocket.look_again();
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

    /// Whether the ledger must hear of what was answered from slices of a metric that are spent no more.
    pub(super) fn waits_to_be_told(&self, account: &AccountId, metric: &MetricSlug) -> bool {
        self.with(account, |purse| {
            let mut slices = purse.pocket(metric).wallet.slices();
            slices.any(|held| held.retired && held.has_answered())
        })
    }

    /// Whether nothing would be lost with a slice of this replica.
    pub(super) fn may_settle(&self, slice: &Slice) -> bool {
        let may = self.read(&slice.account, |purse| {
            let pocket = purse.pockets.get(slice.metric.as_str())?;
            let held = pocket.wallet.slices().find(|held| held.slice.id == slice.id)?;
            Some(!slice.kept || held.may_be_settled())
        });
        may.flatten().unwrap_or(true)
    }

    /// Whether anything of kept slices is on its way to the ledger or the journal, or waits for that.
    pub(super) fn is_busy(&self) -> bool {
        self.shards.iter().any(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut pockets = shard.values().flat_map(|purse| purse.pockets.values());
            pockets.any(|pocket| pocket.wallet.slices().any(Held::is_busy))
        })
    }

    /// Retires what is spent, past its time or idle, forgets accounts that have nothing left, and answers every
    /// slice that waits to be settled. Where there are many accounts it is done in turns, so that it never takes long.
    pub(super) fn sweep(&self, now: Timestamp, idle_since: Timestamp) -> Vec<(AccountId, SliceId)> {
        let mut waiting = Vec::new();
        let mut looked_at = 0;
        for _ in 0..self.shards.len() {
            if looked_at >= SWEPT_AT_ONCE {
                break;
            }
            let next = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let Some(shard) = self.shards.get(next) else {
                break;
            };
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            looked_at += shard.len();
            for (account, purse) in shard.iter_mut() {
                if (purse.plan.as_ref()).is_some_and(|plan| plan.valid_until <= now) {
                    purse.plan = None;
                }
                for pocket in purse.pockets.values_mut() {
                    pocket.wallet.retire_done(now, idle_since);
                    let retired = pocket.wallet.slices().filter(|held| held.may_be_settled());
                    waiting.extend(retired.map(|held| (account.clone(), held.slice.id)));
                }
                purse.pockets.retain(|pocket| !pocket.is_idle(idle_since));
            }
            shard.retain(|_, purse| purse.plan.is_some() || !purse.pockets.is_empty());
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
