//! A slice in the memory of a replica, with what is left of it and what the ledger was not told yet.

use jiff::Timestamp;
use octroi_core::Units;

use super::super::{holding::Revision, slice::Slice};

/// The use of a buffered metric is told by the minute, in seconds.
const SUM_S: i64 = 60;

/// What was used within one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) amount: Units,
    /// When the first of it was used.
    pub(super) since: Timestamp,
}

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
    /// The limits that it was carved from.
    pub(super) revision: Revision,
    /// What was answered and not told to the ledger yet.
    pub(super) pending: Vec<Sum>,
    /// What is on its way to the ledger.
    pub(super) flushing: Units,
    /// What the journal has for the ledger.
    pub(super) owed: Units,
    /// What was taken by requests of which it is not known yet whether the ledger has it, or the journal.
    pub(super) taken: Units,
}

impl Held {
    pub(super) fn new(slice: Slice, revision: Revision, now: Timestamp) -> Self {
        Self {
            left: slice.cap,
            slice,
            touched_at: now,
            retired: false,
            revision,
            pending: Vec::new(),
            flushing: Units::ZERO,
            owed: Units::ZERO,
            taken: Units::ZERO,
        }
    }

    pub(super) fn spend_later(&mut self, amount: Units, at: Timestamp, now: Timestamp) {
        let minute = |at: Timestamp| at.as_second().div_euclid(SUM_S);
        let sum = self
            .pending
            .iter_mut()
            .find(|sum| minute(sum.since) == minute(at));
        match sum {
            Some(sum) => sum.amount = sum.amount.checked_add(amount).unwrap_or(Units::MAX),
            None => self.pending.push(Sum { amount, since: at }),
        }
        self.left = self.left.saturating_sub(amount);
        self.touched_at = now;
    }

    pub(super) fn pays_for(&self, at: Timestamp, now: Timestamp) -> bool {
        !self.retired && self.slice.covers.contains(at) && now < self.slice.spend_until
    }

    /// What the ledger was not told of a slice that nobody else settles: where this replica dies, nobody knows whether
    /// it was used.
    pub(super) fn untold(&self) -> Units {
        if !self.slice.kept {
            return Units::ZERO;
        }
        let sums = self.pending.iter().map(|sum| sum.amount);
        sums.chain([self.left, self.flushing]).fold(Units::ZERO, sum_of)
    }

    /// Whether something of it is on its way to the ledger or the journal, or waits for that, so that it must stay open.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.slice.kept && (self.has_answered() || self.taken > Units::ZERO)
    }

    /// Whether the ledger must hear of something that was answered.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        !self.pending.is_empty() || self.flushing > Units::ZERO
    }

    /// Whether it may be sealed: nobody will charge it any more. One that is not kept may be at any time.
    #[must_use]
    pub fn may_be_settled(&self) -> bool {
        let told = [self.flushing, self.owed] == [Units::ZERO; 2] && self.pending.is_empty();
        // Of others the ledger decides: whoever charges one that is sealed is refused, and carves anew.
        let decided = self.taken == Units::ZERO || !self.slice.kept;
        self.retired && told && decided
    }
}

pub(super) fn sum_of(sum: Units, part: Units) -> Units {
    sum.checked_add(part).unwrap_or(Units::MAX)
}
