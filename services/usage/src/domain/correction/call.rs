//! What becomes of the corrections of one call: all of them are made, one after the other, or none.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{Aggregation, EventId, MetricKind, MetricSlug, Units};
use uuid::Uuid;

use super::{Corrected, Correction, Refused, Standing, correct, taken_change};
use crate::domain::event::{EventKey, Identity, Origin, PayloadHash};

/// An event as corrections find it.
#[derive(Clone, Debug, PartialEq)]
pub struct Correctable {
    /// The event.
    pub identity: Identity,
    /// Its metric.
    pub metric: MetricSlug,
    /// Whether its metric adds up or is held.
    pub kind: MetricKind,
    /// How its metric's amounts become one figure.
    pub aggregation: Aggregation,
    /// When it counts.
    pub event_at: Timestamp,
    /// Its number in the ledger.
    pub sequence: i64,
    /// How it came into the ledger.
    pub origin: Origin,
    /// How much it was recorded with.
    pub recorded: Units,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
    /// Its newest correction.
    pub newest: Option<Corrected>,
    /// The message that told what it comes to; none where that was not written down.
    pub message_id: Option<Uuid>,
}

impl Correctable {
    /// When it was told what it comes to.
    #[must_use]
    pub fn told_at(&self) -> Timestamp {
        (self.newest.as_ref()).map_or(self.recorded_at, |newest| newest.corrected_at)
    }

    fn standing(&self) -> Standing {
        (self.newest.as_ref()).map_or(Standing::recorded(self.recorded), |newest| newest.after)
    }
}

/// What the ledger has of what a call names.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The events.
    pub events: HashMap<EventKey, Correctable>,
    /// The contents of corrections that were made before, by the key of the correction.
    pub known: HashMap<EventKey, PayloadHash>,
    /// Those of them that are of the events, by their ids.
    pub made: HashMap<EventId, Corrected>,
    /// What is held of LEVEL metrics.
    pub levels: HashMap<MetricSlug, i64>,
}

/// What became of one correction.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is made, of this event.
    Made(EventKey, Corrected),
    /// It was made before.
    Duplicate(Corrected),
    /// It is not made.
    Refused(Refusal),
}

/// Why a correction is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The ledger has no such event.
    NotFound,
    /// Its id came before with another content.
    Reused,
    /// The event was corrected since, and has this revision.
    CorrectedSince(u32),
    /// A metric that counts events has events of 1.
    NotOne,
    /// Less than nothing would be held.
    LevelBelowZero,
    /// More would be held than can be counted.
    LevelOutOfRange,
    /// It could be made, but another one of its call could not.
    Withheld,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::CorrectedSince { revision } => Self::CorrectedSince(revision),
            Refused::NotOne => Self::NotOne,
        }
    }
}

/// Makes all corrections of a call, in their order, or none. `found` is left as they leave it.
#[must_use]
pub fn correct_all(
    corrections: &[Correction],
    found: &mut Found,
    actor: &str,
    now: Timestamp,
) -> Vec<Outcome> {
    let made = corrections
        .iter()
        .map(|correction| make(correction, found, actor, now).unwrap_or_else(Outcome::Refused));
    let mut outcomes: Vec<Outcome> = made.collect();
    if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Refused(_)))
    {
        for outcome in &mut outcomes {
            if matches!(outcome, Outcome::Made(..)) {
                *outcome = Outcome::Refused(Refusal::Withheld);
            }
        }
    }
    outcomes
}

fn make(correction: &Correction, found: &mut Found, actor: &str, now: Timestamp) -> Result<Outcome, Refusal> {
    let (key, content) = (correction.key(), correction.payload_hash());
    if let Some(known) = found.known.get(&key) {
        if *known != content {
            return Err(Refusal::Reused);
        }
        // The key lives a little longer than the month of the event.
        let made = found.made.get(&correction.id).ok_or(Refusal::NotFound)?;
        return Ok(Outcome::Duplicate(made.clone()));
    }
    let event_key = correction.identity.key();
    let event = found.events.get_mut(&event_key).ok_or(Refusal::NotFound)?;
    let before = event.standing();
    let counts_events = event.aggregation == Aggregation::Count;
    let after = correct(correction, before, event.newest.as_ref(), counts_events)?;
    if event.kind == MetricKind::Level {
        let level = found.levels.entry(event.metric.clone()).or_default();
        let moved = level.saturating_add(taken_change(event.origin, before, after));
        if moved < 0 {
            return Err(Refusal::LevelBelowZero);
        }
        if moved > Units::MAX.as_i64() {
            return Err(Refusal::LevelOutOfRange);
        }
        *level = moved;
    }
    let corrected = Corrected {
        id: correction.id.clone(),
        before,
        after,
        reason: correction.reason.clone(),
        actor: actor.to_owned(),
        corrected_at: now,
    };
    event.newest = Some(corrected.clone());
    found.known.insert(key, content);
    found.made.insert(correction.id.clone(), corrected.clone());
    Ok(Outcome::Made(event_key, corrected))
}

#[cfg(test)]
mod tests {
    use octroi_core::{AccountId, Source};

    use super::*;
    use crate::domain::correction::Change;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn identity(event_id: &str) -> Identity {
        Identity {
            account: AccountId::parse("acme").expect("an account"),
            source: Source::parse("app").expect("a source"),
            event_id: EventId::parse(event_id).expect("an id"),
        }
    }

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    /// Events of a level, with what was recorded of each.
    fn found(events: &[(&str, Origin, u64)], level: i64) -> Found {
        let metric = MetricSlug::parse("seats").expect("a slug");
        let events = events.iter().map(|(event_id, origin, amount)| {
            let identity = identity(event_id);
            let event = Correctable {
                metric: metric.clone(),
                kind: MetricKind::Level,
                aggregation: Aggregation::Sum,
                event_at: NOW,
                sequence: 1,
                origin: *origin,
                recorded: units(*amount),
                recorded_at: NOW,
                newest: None,
                message_id: None,
                identity: identity.clone(),
            };
            (identity.key(), event)
        });
        Found {
            events: events.collect(),
            levels: HashMap::from([(metric.clone(), level)]),
            ..Found::default()
        }
    }

    fn correction(id: &str, event_id: &str, change: Change) -> Correction {
        Correction {
            id: EventId::parse(id).expect("an id"),
            identity: identity(event_id),
            change,
            reason: "counted twice".into(),
            revision: None,
        }
    }

    /// What became of each, in a word.
    fn words(outcomes: &[Outcome]) -> Vec<String> {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Made(_, made) => format!("made {}", made.after.counted()),
            Outcome::Duplicate(_) => "duplicate".to_owned(),
            Outcome::Refused(refusal) => format!("{refusal:?}"),
        };
        outcomes.iter().map(word).collect()
    }

    fn amend(amount: u64) -> Change {
        Change::Amend(units(amount))
    }

    #[test]
    fn all_corrections_of_a_call_are_made_or_none() {
        let taken = [("e-1", Origin::Decision, 10), ("e-2", Origin::Direct, 5)];
        type Changes<'c> = &'c [(&'c str, &'c str, Change)];
        let cases: [(Changes<'_>, &[&str]); 6] = [
            (
                &[("c-1", "e-1", amend(4)), ("c-2", "e-2", Change::Void)],
                &["made 4", "made 0"],
            ),
            (
                &[("c-1", "e-1", amend(4)), ("c-2", "e-3", Change::Void)],
                &["Withheld", "NotFound"],
            ),
            // Several of one event follow each other, and the same correction counts once.
            (
                &[
                    ("c-1", "e-1", amend(4)),
                    ("c-2", "e-1", amend(6)),
                    ("c-1", "e-1", amend(4)),
                ],
                &["made 4", "made 6", "duplicate"],
            ),
            (
                &[("c-1", "e-1", amend(4)), ("c-1", "e-1", amend(5))],
                &["Withheld", "Reused"],
            ),
            (
                &[("c-1", "e-1", amend(4)), ("c-1", "e-2", amend(4))],
                &["Withheld", "Reused"],
            ),
            (
                &[
                    ("c-1", "e-1", amend(4)),
                    ("c-2", "e-1", Change::Undo(EventId::parse("c-1").expect("an id"))),
                ],
                &["made 4", "made 10"],
            ),
        ];
        for (changes, expected) in cases {
            let corrections: Vec<Correction> = (changes.iter())
                .map(|(id, event, change)| correction(id, event, change.clone()))
                .collect();
            let outcomes = correct_all(&corrections, &mut found(&taken, 15), "operator", NOW);
            assert_eq!(words(&outcomes), expected);
        }
    }

    #[test]
    fn a_level_stays_at_nothing_or_above() {
        let events = [("taken", Origin::Decision, 10), ("back", Origin::Return, 6)];
        let seats = MetricSlug::parse("seats").expect("a slug");
        for (changes, expected, left) in [
            (&[("c-1", "taken", amend(6))][..], &["made 6"][..], 0),
            (&[("c-1", "taken", amend(5))], &["LevelBelowZero"], 4),
            (&[("c-1", "back", Change::Void)], &["made 0"], 10),
            (&[("c-1", "back", amend(11))], &["LevelBelowZero"], 4),
            // In their order: what the first one gives the second may take.
            (
                &[("c-1", "back", Change::Void), ("c-2", "taken", Change::Void)],
                &["made 0", "made 0"],
                0,
            ),
        ] {
            let corrections: Vec<Correction> = (changes.iter())
                .map(|(id, event, change)| correction(id, event, change.clone()))
                .collect();
            let mut found = found(&events, 4);
            let outcomes = correct_all(&corrections, &mut found, "operator", NOW);
            assert_eq!(words(&outcomes), expected);
            assert_eq!(found.levels.get(&seats), Some(&left));
        }
    }

    #[test]
    fn what_was_made_before_is_a_duplicate() {
        let first = correction("c-1", "e-1", amend(4));
        let mut found = found(&[("e-1", Origin::Direct, 10)], 10);
        let made = correct_all(std::slice::from_ref(&first), &mut found, "operator", NOW);
        assert_eq!(words(&made), ["made 4"]);
        let mut looked = first.clone();
        looked.revision = Some(0);
        let again = correct_all(&[looked], &mut found, "somebody else", NOW);
        assert_eq!(words(&again), ["duplicate"]);
        let another = correct_all(&[correction("c-1", "e-1", amend(5))], &mut found, "operator", NOW);
        assert_eq!(words(&another), ["Reused"]);
    }
}
