//! What becomes of the calls that share one commit: as if each had come alone, one after the other.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::SliceId;

use super::{
    event::{Accepted, EventKey, Origin, PayloadHash},
    spends::{Spends, Unpaid},
};

/// The events of one call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The events, in the caller's order.
    pub events: Vec<Accepted>,
    /// Whether either all of them are recorded or none.
    pub all_or_nothing: bool,
}

/// What the ledger knows of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The hash of its content.
    pub payload_hash: PayloadHash,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
    /// Whether it stands for a request that was denied.
    pub denied: bool,
}

/// What the ledger has, before a commit, of what its calls name.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every event of the calls that is there.
    pub known: HashMap<EventKey, Known>,
    /// Every slice and level that an event of the calls names.
    pub spends: Spends,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in the ledger now.
    Inserted(Timestamp),
    /// It was there before, with the same content.
    Duplicate(Timestamp),
    /// It was there before, with another content.
    Reused,
    /// The request was denied before, so it is not recorded any more.
    Denied,
    /// These slices do not take their share.
    SlicesRefused(Vec<SliceId>),
    /// More would be given back than is held.
    LevelBelowZero,
    /// The level would leave what can be counted.
    LevelOutOfRange,
    /// It could have been recorded, but another event of its all-or-nothing call could not.
    Withheld,
}

impl From<Unpaid> for Outcome {
    fn from(unpaid: Unpaid) -> Self {
        match unpaid {
            Unpaid::Slices(slices) => Self::SlicesRefused(slices),
            Unpaid::LevelBelowZero => Self::LevelBelowZero,
            Unpaid::LevelOutOfRange => Self::LevelOutOfRange,
        }
    }
}

/// What becomes of the calls of one commit.
#[derive(Debug, Default)]
pub struct Settlement<'c> {
    /// The outcomes of each call, in the order of its events.
    pub outcomes: Vec<Vec<Outcome>>,
    /// The events that the ledger takes, no identity twice, sorted by key.
    pub recorded: Vec<&'c Accepted>,
    /// The slices and levels after the commit.
    pub spends: Spends,
}

/// An event that the ledger knows, or that a call of this commit adds.
struct Entry {
    known: Known,
    /// The place of the call that adds it; none where it was there before.
    call: Option<usize>,
}

/// The first of each identity over all calls, sorted, so that commits that meet the same events take them in
/// one order and never wait for each other in a circle.
#[must_use]
pub fn candidates(calls: &[Call]) -> Vec<&Accepted> {
    let mut unique: Vec<&Accepted> = calls.iter().flat_map(|call| &call.events).collect();
    // The sort is stable, so the first of an identity stays the first.
    unique.sort_by_key(|one| one.key);
    unique.dedup_by_key(|one| one.key);
    unique
}

/// Settles the calls in their order, over what was in the ledger before this commit; `now` is when it takes the
/// new events.
#[must_use]
pub fn settle<'c>(calls: &'c [Call], ledger: &'c Ledger, now: Timestamp) -> Settlement<'c> {
    let before = ledger.known.iter().map(|(key, known)| {
        let entry = Entry {
            known: *known,
            call: None,
        };
        (*key, entry)
    });
    let mut books = Books {
        entries: before.collect(),
        spends: ledger.spends.clone(),
        recorded: Vec::new(),
        now,
    };
    let settled = (calls.iter().enumerate()).map(|(place, call)| books.settle_call(place, call));
    let outcomes = settled.collect();
    let Books {
        mut recorded, spends, ..
    } = books;
    recorded.sort_by_key(|one| one.key);
    Settlement {
        outcomes,
        recorded,
        spends,
    }
}

/// The ledger while calls are settled, one after the other.
struct Books<'c> {
    entries: HashMap<EventKey, Entry>,
    spends: Spends,
    recorded: Vec<&'c Accepted>,
    now: Timestamp,
}

impl<'c> Books<'c> {
    fn settle_call(&mut self, place: usize, call: &'c Call) -> Vec<Outcome> {
        let recorded_before = self.recorded.len();
        let mut outcomes: Vec<Outcome> = (call.events.iter())
            .map(|one| self.settle_event(place, one))
            .collect();
        let found = (call.events.iter().zip(&outcomes)).any(|(one, outcome)| match outcome {
            Outcome::Duplicate(_) => !self.is_own(place, one),
            Outcome::Inserted(_) => false,
            _ => true,
        });
        if call.all_or_nothing && self.recorded.len() > recorded_before && found {
            for (one, outcome) in call.events.iter().zip(&mut outcomes) {
                // A repeat within the call is as little recorded as what it repeats.
                if self.is_own(place, one) && matches!(outcome, Outcome::Inserted(_) | Outcome::Duplicate(_))
                {
                    *outcome = Outcome::Withheld;
                }
            }
            for one in self.recorded.drain(recorded_before..) {
                self.entries.remove(&one.key);
                self.spends.refund(one);
            }
        }
        outcomes
    }

    /// Whether this call adds the event.
    fn is_own(&self, place: usize, one: &Accepted) -> bool {
        let entry = self.entries.get(&one.key);
        entry.is_some_and(|entry| entry.call == Some(place))
    }

    fn settle_event(&mut self, place: usize, one: &'c Accepted) -> Outcome {
        match self.entries.get(&one.key) {
            Some(entry) if entry.known.payload_hash != one.payload_hash => Outcome::Reused,
            Some(entry) if entry.known.denied => Outcome::Denied,
            Some(entry) => Outcome::Duplicate(entry.known.recorded_at),
            None => {
                if let Err(unpaid) = self.spends.pay(one) {
                    return unpaid.into();
                }
                let known = Known {
                    payload_hash: one.payload_hash,
                    recorded_at: self.now,
                    denied: one.event.origin == Origin::Denial,
                };
                let call = Some(place);
                self.entries.insert(one.key, Entry { known, call });
                self.recorded.push(one);
                Outcome::Inserted(self.now)
            }
        }
    }
}

/// How the rows that a commit has written differ from what was settled.
#[derive(Debug, Default)]
pub struct Corrections<'c> {
    /// Rows that have to go.
    pub surplus: Vec<&'c Accepted>,
    /// Rows that have to come, after the others went.
    pub missing: Vec<&'c Accepted>,
}

impl<'c> Settlement<'c> {
    /// What has to be done so that the rows `written` become the events recorded. Both are sorted by
    /// key, and neither has a key twice.
    #[must_use]
    pub fn corrections(&self, written: &[&'c Accepted]) -> Corrections<'c> {
        // The same event, not an equal one: two calls may name one identity with different contents.
        let missing_from = |all: &[&'c Accepted], one: &Accepted| {
            all.binary_search_by_key(&one.key, |other| other.key)
                .ok()
                .and_then(|place| all.get(place))
                .is_none_or(|other| !std::ptr::eq(*other, one))
        };
        let all_of = |some: &[&'c Accepted], others: &[&'c Accepted]| {
            let differing = some.iter().filter(|one| missing_from(others, one));
            differing.copied().collect()
        };
        Corrections {
            surplus: all_of(written, &self.recorded),
            missing: all_of(&self.recorded, written),
        }
    }
}

#[cfg(test)]
mod tests;
