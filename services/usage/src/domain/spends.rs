//! What events take from slices and levels: a slice pays no more than its cap and nothing once it is sealed,
//! a level stays at 0 or above.

use std::collections::{BTreeMap, HashMap};

use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units};

use super::event::Accepted;

/// What the ledger has of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSpend {
    /// The most that may be charged to it.
    pub cap: Units,
    /// What was charged to it.
    pub spent: Units,
    /// Whether anything can still be charged to it: it is neither sealed nor past its end.
    pub open: bool,
}

impl SliceSpend {
    /// What would be charged with `amount` more, where the slice takes it.
    #[must_use]
    pub fn charged(&self, amount: Units) -> Option<Units> {
        let spent = self.spent.checked_add(amount)?;
        (self.open && spent <= self.cap).then_some(spent)
    }
}

/// A LEVEL metric of an account.
pub type LevelKey = (AccountId, MetricSlug);

/// Why an event cannot be recorded as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpaid {
    /// These slices do not take their share.
    Slices(Vec<SliceId>),
    /// More would be given back than is held.
    LevelBelowZero,
    /// The level would leave what can be counted.
    LevelOutOfRange,
}

/// The slices and levels that a commit touches, as they stand at its present point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spends {
    /// The slices.
    pub slices: HashMap<SliceId, SliceSpend>,
    /// The levels; one that is not there is 0.
    pub levels: HashMap<LevelKey, i64>,
}

impl Spends {
    /// Takes what the event needs, all of it or nothing.
    ///
    /// # Errors
    /// [`Unpaid`] where something does not take its share.
    pub fn pay(&mut self, one: &Accepted) -> Result<(), Unpaid> {
        let refused: Vec<SliceId> = (one.event.charges.iter())
            .filter(|charge| self.after(charge).is_none())
            .map(|charge| charge.slice)
            .collect();
        if !refused.is_empty() {
            return Err(Unpaid::Slices(refused));
        }
        if let Some(change) = one.level_change() {
            let level = self.level_mut(one);
            let after = level.saturating_add(change);
            if after < 0 {
                return Err(Unpaid::LevelBelowZero);
            }
            if after > Units::MAX.as_i64() {
                return Err(Unpaid::LevelOutOfRange);
            }
            *level = after;
        }
        for charge in &one.event.charges {
            if let Some(slice) = self.slices.get_mut(&charge.slice)
                && let Some(spent) = slice.charged(charge.amount)
            {
                slice.spent = spent;
            }
        }
        Ok(())
    }

    /// Gives back what [`Spends::pay`] took for the event.
    pub fn refund(&mut self, one: &Accepted) {
        for charge in &one.event.charges {
            if let Some(slice) = self.slices.get_mut(&charge.slice) {
                slice.spent = slice.spent.saturating_sub(charge.amount);
            }
        }
        if let Some(change) = one.level_change() {
            *self.level_mut(one) -= change;
        }
    }

    fn after(&self, charge: &Charge) -> Option<Units> {
        self.slices.get(&charge.slice)?.charged(charge.amount)
    }

    fn level_mut(&mut self, one: &Accepted) -> &mut i64 {
        self.levels.entry(level_key(one)).or_default()
    }
}

fn level_key(one: &Accepted) -> LevelKey {
    (one.event.identity.account.clone(), one.event.metric.clone())
}

/// What is charged to one slice by all events together, and what its first charge says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSum {
    /// The first charge.
    pub first: Charge,
    /// The sum of all; a sum beyond 64 bits is beyond every cap.
    pub amount: u64,
}

/// What events take together, sorted, so that commits take the rows in one order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// By slice.
    pub slices: BTreeMap<SliceId, SliceSum>,
    /// By level.
    pub levels: BTreeMap<LevelKey, i64>,
}

impl Sums {
    /// The sums of `events`. Slices and levels that only `mentioned` events name are there with 0.
    #[must_use]
    pub fn of(events: &[&Accepted], mentioned: &[&Accepted]) -> Self {
        let mut sums = Self::default();
        for (one, counts) in
            (events.iter().map(|one| (one, true))).chain(mentioned.iter().map(|one| (one, false)))
        {
            for charge in &one.event.charges {
                let sum = sums.slices.entry(charge.slice).or_insert(SliceSum {
                    first: *charge,
                    amount: 0,
                });
                if counts {
                    sum.amount = sum.amount.saturating_add(charge.amount.get());
                }
            }
            if let Some(change) = one.level_change() {
                let level = sums.levels.entry(level_key(one)).or_default();
                if counts {
                    *level = level.saturating_add(change);
                }
            }
        }
        sums
    }

    /// Whether nothing is taken from anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.levels.is_empty()
    }
}
