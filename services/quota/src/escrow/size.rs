//! How much is carved at a time. What a replica has of a kept slice and did not tell the ledger is lost to the limit
//! where it dies, so it has no more than `buffered_units_max` of that.

use std::time::Duration;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Units};

use super::{Escrow, Need};

/// How long a check waits for the ledger to be told of what was answered, before it goes on without. Where the ledger is
/// away for longer, what was answered since is at stake as well.
const ROOM_WAIT: Duration = Duration::from_secs(1);

fn units(amount: u64) -> Units {
    Units::new(amount).unwrap_or(Units::MAX)
}

impl Escrow {
    /// How much a slice may have, `least` being what it must have.
    pub(super) fn want(&self, account: &AccountId, need: &Need, least: Units, now: Timestamp) -> Units {
        let config = &self.0.config;
        if !need.kept {
            return units(config.units_max).max(least);
        }
        let (fewest, most) = (
            units(config.buffered_units_min),
            units(config.buffered_units_max / 2),
        );
        self.0.purses.with_pocket(account, &need.metric, |pocket| {
            let next = pocket.carves().pace.next(fewest, most, now);
            let room = units(config.buffered_units_max).saturating_sub(pocket.wallet.untold());
            next.min(room).max(least)
        })
    }

    /// Whether another slice of so much may be carved now. Where it may not, the ledger is told what was answered.
    pub(super) fn has_room(&self, account: &AccountId, need: &Need, least: Units) -> bool {
        if !need.kept {
            return true;
        }
        let untold = |pocket: &mut super::pocket::Pocket| pocket.wallet.untold();
        let untold = self.0.purses.with_pocket(account, &need.metric, untold);
        let most = units(self.0.config.buffered_units_max);
        // Who needs more than that at once gets it, and alone.
        let has_room = untold == Units::ZERO || most.saturating_sub(untold) >= least;
        if !has_room {
            self.0.flush_now.notify_one();
        }
        has_room
    }

    /// Waits until another slice of so much may be carved, or for [`ROOM_WAIT`].
    pub(super) async fn wait_for_room(&self, account: &AccountId, need: &Need, least: Units) {
        if !self.tell_until(|| self.has_room(account, need, least)).await {
            metrics::counter!("octroi_quota_carved_without_room_total").increment(1);
        }
    }

    /// Waits until the ledger was told what was answered from slices that are spent no more, or for [`ROOM_WAIT`]: only
    /// then they can be settled.
    pub(super) async fn wait_until_told(&self, account: &AccountId, metric: &MetricSlug) {
        self.tell_until(|| {
            let waits = self.0.purses.waits_to_be_told(account, metric);
            if waits {
                self.0.flush_now.notify_one();
            }
            !waits
        })
        .await;
    }

    /// Looks each time that the ledger was told something, and answers whether it is so in time.
    async fn tell_until(&self, is_so: impl Fn() -> bool) -> bool {
        let waiting = async {
            loop {
                let mut told = std::pin::pin!(self.0.told.notified());
                // Whatever is told from here on wakes it, also before it waits.
                told.as_mut().enable();
                if is_so() {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(ROOM_WAIT, waiting).await.is_ok()
    }

    /// The least that is carved before it is needed.
    pub(super) fn least_ahead(&self, need: &Need) -> Units {
        if need.kept {
            units(self.0.config.buffered_units_min)
        } else {
            Units::ONE
        }
    }
}
