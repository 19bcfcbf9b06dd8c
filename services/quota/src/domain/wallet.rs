//! The slices of one account and metric that a replica spends from its memory.

mod held;

use jiff::Timestamp;
use octroi_core::{Charge, SliceId, Units};

pub use self::held::Held;
use self::held::sum_of;
use super::{carve::Granted, decision::Level, holding::Revision, slice::Slice, window::WindowKey};

/// Units that were answered, for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The slice that pays.
    pub slice: Slice,
    /// How much.
    pub amount: Units,
    /// When the first of it was used.
    pub since: Timestamp,
}

/// What became of an amount that was taken before the ledger is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Nothing waited for the ledger before.
    pub is_first: bool,
    /// Less than half of the last slice is left of all, so that another should be carved.
    pub is_low: bool,
}

/// What a window had granted when it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    key: WindowKey,
    granted: Granted,
    at: Timestamp,
}

/// The most windows that are remembered.
const SEEN_MAX: usize = 12;

/// What a replica may spend of one metric of one account. Losing it loses nothing: what was charged is in the
/// ledger, and the rest goes back to the limit when the slices are settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wallet {
    held: Vec<Held>,
    seen: Vec<Seen>,
    /// Half of the slice that came last.
    low_mark: Units,
    /// The latest limits that anybody knew of.
    revision: Revision,
}

impl Wallet {
    /// Adds a slice that was carved from the limits of `revision`.
    pub fn add(&mut self, slice: Slice, revision: Revision, now: Timestamp) {
        self.low_mark = slice.cap.percent(50);
        self.held.push(Held::new(slice, revision, now));
        self.follow(revision);
    }

    /// Spends nothing more of slices of limits that are older than `revision`: these are not in force any more.
    pub fn follow(&mut self, revision: Revision) {
        let latest = self.revision.latest(revision);
        self.revision = latest;
        // Also where that was known: what was carved before it may have come since.
        for held in &mut self.held {
            held.retired |= held.revision.is_older_than(latest);
        }
    }

    /// Remembers what a window has granted.
    pub fn see(&mut self, key: &WindowKey, granted: Granted, now: Timestamp) {
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.key == *key) {
            (seen.granted, seen.at) = (granted, now);
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.remove(0);
        }
        // An account has a few windows, and there are many accounts.
        self.seen.reserve_exact(1);
        self.seen.push(Seen {
            key: key.clone(),
            granted,
            at: now,
        });
    }

    /// Where the account stands in a window, as far as this replica knows; none where it did not look since
    /// `since`. What other replicas have carved and did not spend yet is no use.
    #[must_use]
    pub fn level(&self, key: &WindowKey, since: Timestamp) -> Option<Level> {
        let seen = self
            .seen
            .iter()
            .find(|seen| seen.key == *key && seen.at >= since)?;
        Some(self.level_given(key, &seen.granted))
    }

    /// Where the account stands in a window that has granted this much.
    #[must_use]
    pub fn level_given(&self, key: &WindowKey, granted: &Granted) -> Level {
        let spent = self.own(key, |held| held.slice.cap.saturating_sub(held.left));
        let used = u128::from(granted.charged.get()) + granted.overrun + u128::from(spent.get());
        // What others have spent of their slices is known once it was followed.
        let used = used.max(granted.followed);
        Level {
            used: counted(used.saturating_sub(granted.returned)),
            held: granted.held,
        }
    }

    /// The same, where what others have set aside counts as used: it could not be had. None where the window was
    /// never looked at.
    #[must_use]
    pub fn level_denied(&self, key: &WindowKey) -> Option<Level> {
        let granted = &self.seen.iter().find(|seen| seen.key == *key)?.granted;
        let left = self.own(key, |held| if held.retired { Units::ZERO } else { held.left });
        let aside = u128::from(left.get()) + u128::from(granted.held.get());
        Some(Level {
            used: counted(granted.total().saturating_sub(aside)),
            held: granted.held,
        })
    }

    /// Whether any window was looked at since `since`.
    #[must_use]
    pub fn seen_since(&self, since: Timestamp) -> bool {
        self.seen.iter().any(|seen| seen.at >= since)
    }

    fn own(&self, key: &WindowKey, of: impl Fn(&Held) -> Units) -> Units {
        let own = self.held.iter().filter(|held| held.slice.windows.contains(key));
        own.map(of).fold(Units::ZERO, sum_of)
    }

    /// What is there for use at `at`.
    #[must_use]
    pub fn left(&self, at: Timestamp, now: Timestamp) -> Units {
        let usable = self.held.iter().filter(|held| held.pays_for(at, now));
        usable.map(|held| held.left).fold(Units::ZERO, sum_of)
    }

    /// What is there for use at `at` that is answered before the ledger has it: others may settle any other slice.
    #[must_use]
    pub fn left_kept(&self, at: Timestamp, now: Timestamp) -> Units {
        let usable = (self.held.iter()).filter(|held| held.slice.kept && held.pays_for(at, now));
        usable.map(|held| held.left).fold(Units::ZERO, sum_of)
    }

    /// Takes `amount` for use at `at`, over as many slices as it needs, or nothing.
    pub fn take(&mut self, amount: Units, at: Timestamp, now: Timestamp) -> Option<Vec<Charge>> {
        if self.left(at, now) < amount {
            return None;
        }
        let mut charges = Vec::with_capacity(1);
        let mut rest = amount;
        for held in self.held.iter_mut().filter(|held| held.pays_for(at, now)) {
            let part = held.left.min(rest);
            if part > Units::ZERO {
                held.left = held.left.saturating_sub(part);
                held.touched_at = now;
                held.taken = sum_of(held.taken, part);
                rest = rest.saturating_sub(part);
                charges.push(held.slice.charge(part));
            }
            if rest == Units::ZERO {
                break;
            }
        }
        Some(charges)
    }

    /// Notes that it is known of what was taken whether the ledger has it, or the journal.
    pub fn finish(&mut self, charges: &[Charge]) {
        self.for_each(charges, |held, amount| {
            held.taken = held.taken.saturating_sub(amount)
        });
    }

    /// Takes `amount` for use at `at` that is told to the ledger later, or nothing.
    pub fn take_buffered(&mut self, amount: Units, at: Timestamp, now: Timestamp) -> Option<Spent> {
        let left = self.left_kept(at, now);
        if left < amount {
            return None;
        }
        let spent = Spent {
            is_first: !self.has_pending(),
            is_low: left.saturating_sub(amount) < self.low_mark,
        };
        let mut rest = amount;
        let kept = (self.held.iter_mut()).filter(|held| held.slice.kept && held.pays_for(at, now));
        for held in kept {
            let part = held.left.min(rest);
            if part > Units::ZERO {
                held.spend_later(part, at, now);
                rest = rest.saturating_sub(part);
            }
            if rest == Units::ZERO {
                break;
            }
        }
        Some(spent)
    }

    /// What the ledger was not told of all slices: so much is lost to the limit where this replica dies.
    #[must_use]
    pub fn untold(&self) -> Units {
        self.held.iter().map(Held::untold).fold(Units::ZERO, sum_of)
    }

    /// Whether anything waits for the ledger.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.held.iter().any(|held| !held.pending.is_empty())
    }

    /// What waits for the ledger is on its way from now on, a sum a slice and minute.
    pub fn start_flush(&mut self) -> Vec<Pending> {
        let mut flush = Vec::new();
        for held in &mut self.held {
            for sum in std::mem::take(&mut held.pending) {
                held.flushing = sum_of(held.flushing, sum.amount);
                flush.push(Pending {
                    slice: held.slice.clone(),
                    amount: sum.amount,
                    since: sum.since,
                });
            }
        }
        flush
    }

    /// So much of what was on its way has arrived.
    pub fn end_flush(&mut self, slice: SliceId, amount: Units) {
        if let Some(held) = self.held.iter_mut().find(|held| held.slice.id == slice) {
            held.flushing = held.flushing.saturating_sub(amount);
        }
    }

    /// Notes that what was taken is in the journal: the ledger has it later.
    pub fn owe(&mut self, charges: &[Charge]) {
        self.for_each(charges, |held, amount| held.owed = sum_of(held.owed, amount));
    }

    /// Notes that the ledger has what was in the journal.
    pub fn paid(&mut self, charges: &[Charge]) {
        self.for_each(charges, |held, amount| {
            held.owed = held.owed.saturating_sub(amount)
        });
    }

    fn for_each(&mut self, charges: &[Charge], change: impl Fn(&mut Held, Units)) {
        for charge in charges {
            if let Some(held) = self.held.iter_mut().find(|held| held.slice.id == charge.slice) {
                change(held, charge.amount);
            }
        }
    }

    /// Gives back what was taken and surely not charged. A slice that is gone has it back from the ledger.
    pub fn put_back(&mut self, charges: &[Charge]) {
        self.for_each(charges, |held, amount| {
            held.left = sum_of(held.left, amount).min(held.slice.cap);
        });
    }

    /// Retires these slices: nothing more is spent of them.
    pub fn retire(&mut self, slices: &[SliceId]) -> Vec<Slice> {
        self.retire_where(|held| slices.contains(&held.slice.id))
    }

    /// Retires the slices that are spent, past their time, or were not touched since `idle_since`.
    pub fn retire_done(&mut self, now: Timestamp, idle_since: Timestamp) -> Vec<Slice> {
        self.retire_where(|held| {
            held.left == Units::ZERO || now >= held.slice.spend_until || held.touched_at < idle_since
        })
    }

    /// Retires every slice.
    pub fn retire_all(&mut self) -> Vec<Slice> {
        self.retire_where(|_| true)
    }

    /// Forgets slices that are settled: their windows know what was charged to them. One of which the ledger must hear
    /// yet is only retired.
    pub fn forget(&mut self, slices: &[SliceId]) {
        self.retire(slices);
        (self.held).retain(|held| !slices.contains(&held.slice.id) || held.has_answered());
    }

    /// Whether it has no slices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Its slices.
    pub fn slices(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    fn retire_where(&mut self, done: impl Fn(&Held) -> bool) -> Vec<Slice> {
        let mut retired = Vec::new();
        for held in self.held.iter_mut().filter(|held| !held.retired && done(held)) {
            held.retired = true;
            retired.push(held.slice.clone());
        }
        retired
    }
}

/// What is beyond what can be counted is told as the most that can.
fn counted(amount: u128) -> Units {
    u64::try_from(amount)
        .ok()
        .and_then(|amount| Units::new(amount).ok())
        .unwrap_or(Units::MAX)
}

#[cfg(test)]
mod tests;
