//! What becomes of the calls that share one commit: as if each had come alone, one after the other.

use std::collections::HashMap;

use jiff::Timestamp;

use super::event::{Accepted, Identity, PayloadHash};

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
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It is in the ledger now.
    Inserted(Timestamp),
    /// It was there before, with the same content.
    Duplicate(Timestamp),
    /// It was there before, with another content.
    Reused,
    /// It could have been recorded, but another event of its all-or-nothing call could not.
    Withheld,
}

/// What becomes of the calls of one commit.
#[derive(Debug, Default)]
pub struct Settlement<'c> {
    /// The outcomes of each call, in the order of its events.
    pub outcomes: Vec<Vec<Outcome>>,
    /// The events that the ledger takes, no identity twice, sorted by identity.
    pub recorded: Vec<&'c Accepted>,
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
    unique.sort_by(|a, b| a.event.identity.cmp(&b.event.identity));
    unique.dedup_by(|later, first| later.event.identity == first.event.identity);
    unique
}

/// Settles the calls in their order. `known` has every event of theirs that was in the ledger before this
/// commit; `now` is when the ledger takes the others.
#[must_use]
pub fn settle<'c>(calls: &'c [Call], known: &'c HashMap<Identity, Known>, now: Timestamp) -> Settlement<'c> {
    let before = known.iter().map(|(identity, known)| {
        (
            identity,
            Entry {
                known: *known,
                call: None,
            },
        )
    });
    let mut ledger: HashMap<&Identity, Entry> = before.collect();
    let mut settlement = Settlement::default();
    for (place, call) in calls.iter().enumerate() {
        let outcomes = settle_call(place, call, &mut ledger, now, &mut settlement.recorded);
        settlement.outcomes.push(outcomes);
    }
    settlement
        .recorded
        .sort_by(|a, b| a.event.identity.cmp(&b.event.identity));
    settlement
}

fn settle_call<'c>(
    place: usize,
    call: &'c Call,
    ledger: &mut HashMap<&'c Identity, Entry>,
    now: Timestamp,
    recorded: &mut Vec<&'c Accepted>,
) -> Vec<Outcome> {
    let recorded_before = recorded.len();
    let (mut reused, mut found) = (false, false);
    let mut outcomes = Vec::with_capacity(call.events.len());
    for one in &call.events {
        let outcome = match ledger.get(&one.event.identity) {
            None => {
                let known = Known {
                    payload_hash: one.payload_hash,
                    recorded_at: now,
                };
                let call = Some(place);
                ledger.insert(&one.event.identity, Entry { known, call });
                recorded.push(one);
                Outcome::Inserted(now)
            }
            Some(entry) if entry.known.payload_hash == one.payload_hash => {
                found |= entry.call != Some(place);
                Outcome::Duplicate(entry.known.recorded_at)
            }
            Some(_) => {
                reused = true;
                Outcome::Reused
            }
        };
        outcomes.push(outcome);
    }
    let some_new = recorded.len() > recorded_before;
    if call.all_or_nothing && some_new && (reused || found) {
        for (one, outcome) in call.events.iter().zip(&mut outcomes) {
            // A repeat within the call is as little recorded as what it repeats.
            let own = ledger
                .get(&one.event.identity)
                .is_none_or(|entry| entry.call == Some(place));
            if own && *outcome != Outcome::Reused {
                *outcome = Outcome::Withheld;
            }
        }
        for one in recorded.drain(recorded_before..) {
            ledger.remove(&one.event.identity);
        }
    }
    outcomes
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
    /// identity, and neither has an identity twice.
    #[must_use]
    pub fn corrections(&self, written: &[&'c Accepted]) -> Corrections<'c> {
        // The same event, not an equal one: two calls may name one identity with different contents.
        let missing_from = |all: &[&'c Accepted], one: &Accepted| {
            all.binary_search_by(|other| other.event.identity.cmp(&one.event.identity))
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
