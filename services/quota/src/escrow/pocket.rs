//! What a replica has of one account: a pocket a metric.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use octroi_core::{MetricSlug, Units, Window};
use tokio::sync::{Notify, futures::OwnedNotified};

use super::{Need, REFUSAL_FRESH, purse::Missing};
use crate::domain::{decision::Level, pace::Pace, plan::Plan, wallet::Wallet, window::WindowKey};

/// How long whoever looks again whether something is refused is waited for.
const LOOK: SignedDuration = SignedDuration::from_millis(250);
/// How long whoever carves ahead is waited for.
const CLAIM: SignedDuration = SignedDuration::from_secs(1);

/// Who carves for a metric, one after the other.
#[derive(Debug, Default)]
pub(super) struct CarveTurn {
    /// Whoever carves has it, so that those who wait find what was carved.
    pub(super) lock: tokio::sync::Mutex<()>,
    /// Wakes those who wait for what somebody else carves.
    ended: Arc<Notify>,
}

/// What a replica has of one metric of an account.
#[derive(Debug, Default)]
pub(super) struct Pocket {
    pub(super) wallet: Wallet,
    /// Made where something is carved: most accounts are only looked at, and there are many.
    carves: Option<Box<Carves>>,
}

/// Who carves for a metric, how much, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Carves {
    turn: Arc<CarveTurn>,
    /// Until when somebody is believed to carve because nothing was left.
    carving_until: Timestamp,
    /// What was refused last.
    refused: Option<Refusal>,
    /// How often something became free: what was refused before says nothing any more.
    pub(super) changes: u64,
    /// When all of it was last settled so that it can be held.
    pub(super) recalled_at: Timestamp,
    /// How much is carved at a time.
    pub(super) pace: Pace,
    /// From when on a slice may be carved before it is needed.
    pub(super) ahead_from: Timestamp,
    /// From when on somebody looks whether what was refused is still refused.
    look_from: Timestamp,
}

/// A carve that some window had no room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    /// When.
    pub(super) at: Timestamp,
    /// How much.
    pub(super) least: Units,
    /// The instants that lie in its windows: of others it says nothing.
    pub(super) covers: Window,
}

impl Refusal {
    /// Whether so much for use at `at` is refused by it.
    pub(super) fn is_of(&self, at: Timestamp, amount: Units) -> bool {
        amount >= self.least && self.covers.contains(at)
    }
}

impl Pocket {
    /// What may be taken for a need: where it is answered before the ledger has it, only of slices that nobody else
    /// settles.
    pub(super) fn left(&self, need: &Need, at: Timestamp, now: Timestamp) -> Units {
        if need.buffered {
            self.wallet.left_kept(at, now)
        } else {
            self.wallet.left(at, now)
        }
    }

    pub(super) fn carves(&mut self) -> &mut Carves {
        self.carves.get_or_insert_default()
    }

    /// The lock of whoever carves.
    pub(super) fn turn(&mut self) -> Arc<CarveTurn> {
        self.carves().turn.clone()
    }

    /// What was refused last.
    pub(super) fn refused(&self) -> Option<Refusal> {
        self.carves.as_ref()?.refused
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, changes: u64) {
        let carves = self.carves();
        if carves.changes == changes {
            carves.refused = Some(refusal);
        }
        self.carve_ended();
    }

    /// Believes no refusal of before: something became free.
    pub(super) fn look_again(&mut self) {
        if let Some(carves) = &mut self.carves {
            carves.refused = None;
            carves.changes += 1;
        }
    }

    /// Whether a refusal of `at` still stands. Where it is not fresh, one caller looks again, and the others believe it
    /// for that long.
    pub(super) fn believes_refusal(&mut self, at: Timestamp, now: Timestamp) -> bool {
        if at > now - REFUSAL_FRESH {
            return true;
        }
        let carves = self.carves();
        if now >= carves.look_from {
            carves.look_from = now + LOOK;
            return false;
        }
        at > now - LOOK
    }

    /// Waits for whoever carves because nothing is left; none where nobody does, and the caller is to do it.
    pub(super) fn carving(&mut self, now: Timestamp) -> Option<OwnedNotified> {
        let carves = self.carves();
        if now < carves.carving_until {
            return Some(carves.turn.ended.clone().notified_owned());
        }
        carves.carving_until = now + CLAIM;
        None
    }

    /// Whoever was to carve did, or found that there is no need or no room: those who wait may look.
    pub(super) fn carve_ended(&mut self) {
        if let Some(carves) = &mut self.carves {
            carves.carving_until = Timestamp::MIN;
            carves.turn.ended.notify_waiters();
        }
    }

    /// Whether the caller is the one who carves the next slice before it is needed. What becomes of that says when it may
    /// be done again; where nothing does, it may be after a second.
    pub(super) fn claim_ahead(&mut self, now: Timestamp) -> bool {
        let carves = self.carves();
        let claimed = now >= carves.ahead_from;
        if claimed {
            carves.ahead_from = now + CLAIM;
        }
        claimed
    }

    /// Whether nobody would miss it.
    pub(super) fn is_idle(&self, idle_since: Timestamp) -> bool {
        let refused = self.refused().is_some_and(|refusal| refusal.at >= idle_since);
        let is_carved = (self.carves.as_ref()).is_some_and(|carves| Arc::strong_count(&carves.turn) > 1);
        self.wallet.is_empty() && !refused && !is_carved && !self.wallet.seen_since(idle_since)
    }
}

/// The pockets of one account, in no order. They are few, and most accounts have one: a map would take four times the
/// memory, and longer.
#[derive(Debug, Default)]
pub(super) struct Pockets(Vec<(MetricSlug, Pocket)>);

impl Pockets {
    pub(super) fn get(&self, metric: &str) -> Option<&Pocket> {
        let mut pockets = self.0.iter();
        pockets
            .find(|(of, _)| of.as_str() == metric)
            .map(|(_, pocket)| pocket)
    }

    pub(super) fn get_mut(&mut self, metric: &str) -> Option<&mut Pocket> {
        let mut pockets = self.0.iter_mut();
        pockets
            .find(|(of, _)| of.as_str() == metric)
            .map(|(_, pocket)| pocket)
    }

    fn get_or_add(&mut self, metric: &MetricSlug) -> &mut Pocket {
        let place = self.0.iter().position(|(of, _)| of == metric);
        let place = place.unwrap_or_else(|| {
            self.0.reserve_exact(1);
            // Copying the name is counting a reference.
            self.0.push((metric.clone(), Pocket::default()));
            self.0.len() - 1
        });
        // There is one at this place, found or added.
        self.0
            .get_mut(place)
            .map_or_else(|| unreachable!("a place of a pocket"), |(_, pocket)| pocket)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Pocket> {
        self.0.iter().map(|(_, pocket)| pocket)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Pocket> {
        self.0.iter_mut().map(|(_, pocket)| pocket)
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(&Pocket) -> bool) {
        self.0.retain(|(_, pocket)| is_kept(pocket));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a replica has of an account.
#[derive(Debug, Default)]
pub(super) struct Purse {
    pub(super) pockets: Pockets,
    /// What holds for it, where that is remembered.
    pub(super) plan: Option<Arc<Plan>>,
}

impl Purse {
    pub(super) fn pocket(&mut self, metric: &MetricSlug) -> &mut Pocket {
        self.pockets.get_or_add(metric)
    }

    /// The first need that there is too little for.
    pub(super) fn missing(&mut self, needs: &[Need], at: Timestamp, now: Timestamp) -> Option<Missing> {
        for (index, need) in needs.iter().enumerate() {
            if need.windows.is_empty() {
                continue;
            }
            let left = self.pocket(&need.metric).left(need, at, now);
            if left < need.amount {
                let amount = need.amount.saturating_sub(left);
                return Some(Missing { index, amount });
            }
        }
        None
    }

    pub(super) fn levels(&self, needs: &[Need]) -> Vec<Level> {
        let of_need = |need: &Need| -> Vec<Level> {
            let wallet = self
                .pockets
                .get(need.metric.as_str())
                .map(|pocket| &pocket.wallet);
            let level = |(key, _): &(WindowKey, Option<Units>)| {
                let level = wallet.and_then(|wallet| wallet.level(key, Timestamp::MIN));
                level.unwrap_or_default()
            };
            need.windows.iter().map(level).collect()
        };
        needs.iter().flat_map(of_need).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_believed_where_something_became_free_meanwhile() {
        let refusal = Refusal {
            at: Timestamp::UNIX_EPOCH,
            least: Units::ZERO,
            covers: Window {
                start: Timestamp::MIN,
                end: Timestamp::MAX,
            },
        };
        let mut pocket = Pocket::default();
        let before = pocket.carves().changes;
        pocket.refuse(refusal, before);
        assert!(pocket.refused().is_some());
        // What was refused before, and what comes from a look that began before.
        pocket.look_again();
        assert!(pocket.refused().is_none());
        pocket.refuse(refusal, before);
        assert!(pocket.refused().is_none());
        let now = pocket.carves().changes;
        pocket.refuse(refusal, now);
        assert!(pocket.refused().is_some());
    }
}
