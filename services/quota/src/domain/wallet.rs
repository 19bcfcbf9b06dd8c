//! The slices of one account and metric that a replica spends from its memory.

use jiff::Timestamp;
use octroi_core::{Charge, SliceId, Units};

use super::{carve::Granted, decision::Level, slice::Slice, window::WindowKey};

/// A slice with what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The slice.
    pub slice: Slice,
    /// What was not spent yet.
    pub left: Units,
    /// When it was spent last, or came.
    pub touched_at: Timestamp,
    /// Nothing more is spent of it: it waits until it is settled.
    pub retired: bool,
    /// What was answered and not told to the ledger yet.
    pub pending: Units,
    /// When the first of it was used.
    pending_since: Timestamp,
    /// What is on its way to the ledger.
    flushing: Units,
}

impl Held {
    fn spend_later(&mut self, amount: Units, at: Timestamp, now: Timestamp) {
        if self.pending == Units::ZERO {
            self.pending_since = at;
        }
        self.left = self.left.saturating_sub(amount);
        self.pending = self.pending.checked_add(amount).unwrap_or(Units::MAX);
        self.touched_at = now;
    }

    fn pays_for(&self, at: Timestamp, now: Timestamp) -> bool {
        !self.retired && self.slice.covers.contains(at) && now < self.slice.spend_until
    }

    /// Whether it may be sealed: nobody will charge it any more.
    #[must_use]
    pub fn may_be_settled(&self) -> bool {
        self.retired && self.pending == Units::ZERO && self.flushing == Units::ZERO
    }
}

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
}

impl Wallet {
    /// Adds a slice that was carved.
    pub fn add(&mut self, slice: Slice, now: Timestamp) {
        let left = slice.cap;
        self.held.push(Held {
            slice,
            left,
            touched_at: now,
            retired: false,
            pending: Units::ZERO,
            pending_since: now,
            flushing: Units::ZERO,
        });
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
        Level {
            used: counted(used.saturating_sub(granted.returned).max(granted.followed)),
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
        own.fold(Units::ZERO, |sum, held| {
            sum.checked_add(of(held)).unwrap_or(Units::MAX)
        })
    }

    /// What is there for use at `at`.
    #[must_use]
    pub fn left(&self, at: Timestamp, now: Timestamp) -> Units {
        let usable = self.held.iter().filter(|held| held.pays_for(at, now));
        usable.fold(Units::ZERO, |sum, held| {
            sum.checked_add(held.left).unwrap_or(Units::MAX)
        })
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
                rest = rest.saturating_sub(part);
                charges.push(held.slice.charge(part));
            }
            if rest == Units::ZERO {
                break;
            }
        }
        Some(charges)
    }

    /// Takes `amount` for use at `at` that is told to the ledger later, or nothing. Answers whether it was taken, and
    /// whether nothing waited for the ledger before.
    pub fn take_buffered(&mut self, amount: Units, at: Timestamp, now: Timestamp) -> Option<bool> {
        let first = self
            .held
            .iter()
            .position(|held| held.pays_for(at, now) && held.left >= amount);
        let waited = self.has_pending();
        if let Some(held) = first.and_then(|place| self.held.get_mut(place)) {
            held.spend_later(amount, at, now);
            return Some(!waited);
        }
        if self.left(at, now) < amount {
            return None;
        }
        let mut rest = amount;
        for held in self.held.iter_mut().filter(|held| held.pays_for(at, now)) {
            let part = held.left.min(rest);
            if part > Units::ZERO {
                held.spend_later(part, at, now);
                rest = rest.saturating_sub(part);
            }
        }
        Some(!waited)
    }

    /// Whether anything waits for the ledger.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.held.iter().any(|held| held.pending > Units::ZERO)
    }

    /// What waits for the ledger is on its way from now on, but of slices of which something is on its way already.
    pub fn start_flush(&mut self) -> Vec<Pending> {
        let waiting = self
            .held
            .iter_mut()
            .filter(|held| held.pending > Units::ZERO && held.flushing == Units::ZERO);
        let start = |held: &mut Held| {
            let amount = std::mem::take(&mut held.pending);
            held.flushing = amount;
            Pending {
                slice: held.slice.clone(),
                amount,
                since: held.pending_since,
            }
        };
        waiting.map(start).collect()
    }

    /// What was on its way has arrived.
    pub fn end_flush(&mut self, slice: SliceId) {
        if let Some(held) = self.held.iter_mut().find(|held| held.slice.id == slice) {
            held.flushing = Units::ZERO;
        }
    }

    /// Gives back what was taken and surely not charged. A slice that is gone has it back from the ledger.
    pub fn put_back(&mut self, charges: &[Charge]) {
        for charge in charges {
            if let Some(held) = self.held.iter_mut().find(|held| held.slice.id == charge.slice) {
                let left = held.left.checked_add(charge.amount).unwrap_or(Units::MAX);
                held.left = left.min(held.slice.cap);
            }
        }
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

    /// Forgets slices that are settled: their windows know what was charged to them.
    pub fn forget(&mut self, slices: &[SliceId]) {
        self.held.retain(|held| !slices.contains(&held.slice.id));
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
mod tests {
    use jiff::ToSpan as _;
    use octroi_core::{AccountId, MetricSlug, Window};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{
        super::slice::{SliceKind, terms},
        *,
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    fn slice(number: u128, cap: u64) -> Slice {
        let covers = Window {
            start: NOW,
            end: NOW + 1.hour(),
        };
        let (spend_until, hard_end_at) = terms(covers, NOW);
        Slice {
            id: SliceId::new(Uuid::from_u128(number)),
            account: AccountId::parse("acme").expect("an id"),
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            kind: SliceKind::Replica,
            buffered: false,
            cap: units(cap),
            windows: Vec::new(),
            covers,
            spend_until,
            hard_end_at,
        }
    }

    fn wallet(caps: &[u64]) -> Wallet {
        let mut wallet = Wallet::default();
        for (number, cap) in (1..).zip(caps) {
            wallet.add(slice(number, *cap), NOW);
        }
        wallet
    }

    #[test]
    fn an_amount_is_taken_over_slices_or_not_at_all() {
        let mut wallet = wallet(&[3, 5]);
        let charges = wallet.take(units(6), NOW, NOW).expect("8 are there");
        let shares: Vec<u64> = charges.iter().map(|charge| charge.amount.get()).collect();
        assert_eq!(shares, [3, 3]);
        assert_eq!(wallet.take(units(3), NOW, NOW), None);
        assert_eq!(wallet.left(NOW, NOW), units(2));
        wallet.put_back(&charges);
        assert_eq!(wallet.left(NOW, NOW), units(8));
    }

    #[test]
    fn a_slice_pays_within_its_windows_and_its_time() {
        let mut wallet = wallet(&[5]);
        let (before, end) = (NOW - 1.nanosecond(), NOW + 1.hour());
        assert_eq!(wallet.take(units(1), before, NOW), None);
        assert_eq!(wallet.take(units(1), end, NOW), None);
        assert_eq!(wallet.take(units(1), NOW, end), None, "its window is over");
        assert!(wallet.take(units(1), end - 1.nanosecond(), NOW).is_some());
    }

    #[test]
    fn what_is_spent_past_its_time_or_idle_is_retired() {
        let mut wallet = wallet(&[1, 5]);
        wallet.take(units(1), NOW, NOW).expect("it is there");
        let later = NOW + 10.seconds();
        let ids = |slices: Vec<Slice>| -> Vec<u128> {
            slices.iter().map(|slice| slice.id.uuid().as_u128()).collect()
        };
        assert_eq!(ids(wallet.retire_done(later, NOW)), [1], "nothing is left of it");
        assert_eq!(
            ids(wallet.retire_done(later, NOW + 1.second())),
            [2],
            "nobody touched it"
        );
        assert_eq!(wallet.take(units(1), NOW, NOW), None);
        let settled: Vec<SliceId> = wallet.slices().map(|held| held.slice.id).collect();
        wallet.forget(&settled);
        assert!(wallet.is_empty());
    }

    #[test]
    fn slices_of_the_past_live_some_minutes_and_none_more_than_a_day() {
        let hour = |start: Timestamp| Window {
            start,
            end: start + 1.hour(),
        };
        let (until, end) = terms(hour(NOW), NOW + 30.minutes());
        assert_eq!((until, end), (NOW + 1.hour(), NOW + 2.hours()));
        let (until, _) = terms(hour(NOW), NOW + 40.hours());
        assert_eq!(until, NOW + 40.hours() + 10.minutes());
        let (until, _) = terms(Window::LIFETIME, NOW);
        assert_eq!(until, NOW + 24.hours());
    }

    #[test]
    fn what_is_answered_before_the_ledger_has_it_is_told_once_and_keeps_its_slice_open() {
        let mut wallet = wallet(&[3, 5]);
        assert_eq!(
            wallet.take_buffered(units(2), NOW, NOW),
            Some(true),
            "the first that waits"
        );
        assert_eq!(wallet.take_buffered(units(5), NOW, NOW), Some(false));
        assert_eq!(wallet.take_buffered(units(2), NOW, NOW), None);
        assert_eq!(wallet.take_buffered(units(1), NOW, NOW), Some(false));
        let flush = wallet.start_flush();
        let amounts: Vec<u64> = flush.iter().map(|pending| pending.amount.get()).collect();
        assert_eq!(amounts, [3, 5]);
        assert!(wallet.start_flush().is_empty(), "it is on its way");
        wallet.retire_all();
        assert!(!wallet.slices().any(Held::may_be_settled));
        for pending in flush {
            wallet.end_flush(pending.slice.id);
        }
        assert!(wallet.slices().all(Held::may_be_settled));
    }

    #[test]
    fn an_amount_that_is_buffered_may_need_several_slices() {
        let mut wallet = wallet(&[3, 5]);
        assert_eq!(wallet.take_buffered(units(8), NOW, NOW), Some(true));
        assert_eq!(wallet.start_flush().len(), 2);
    }

    proptest! {
        #[test]
        fn never_more_is_taken_than_was_carved(
            caps in prop::collection::vec(0_u64..20, 0..5),
            steps in prop::collection::vec((1_u64..20, any::<bool>()), 0..40),
        ) {
            let mut wallet = wallet(&caps);
            let carved: u64 = caps.iter().sum();
            let mut out: u64 = 0;
            for (amount, gives_back) in steps {
                if let Some(charges) = wallet.take(units(amount), NOW, NOW) {
                    prop_assert_eq!(charges.iter().map(|charge| charge.amount.get()).sum::<u64>(), amount);
                    out += amount;
                    if gives_back {
                        wallet.put_back(&charges);
                        out -= amount;
                    }
                }
                prop_assert_eq!(wallet.left(NOW, NOW).get() + out, carved);
            }
        }
    }
}
