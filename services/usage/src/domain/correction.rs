//! Corrections: what an event comes to where that is not what was recorded. The event itself stays as it is.

mod call;

use jiff::Timestamp;
use octroi_core::{EventId, Units};

pub use self::call::{Correctable, Found, Outcome, Refusal, correct_all};

use super::event::{EventKey, Identity, Origin, Parts, PayloadHash};

/// The most corrections of one call.
pub const CORRECTIONS_MAX: usize = 1_000;
/// The longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// What an event comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How often it was corrected.
    pub revision: u32,
    /// How much it is of.
    pub amount: Units,
    /// It counts no more: no amount of it, and no event.
    pub voided: bool,
}

impl Standing {
    /// That of an event as it was recorded.
    #[must_use]
    pub const fn recorded(amount: Units) -> Self {
        Self {
            revision: 0,
            amount,
            voided: false,
        }
    }

    /// The units that count.
    #[must_use]
    pub const fn counted(self) -> Units {
        if self.voided { Units::ZERO } else { self.amount }
    }
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes to another amount; where it was voided it counts again.
    Amend(Units),
    /// It counts no more.
    Void,
    /// It is again what it was before this correction, its newest one.
    Undo(EventId),
}

/// One correction of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Its id within the account.
    pub id: EventId,
    /// The event.
    pub identity: Identity,
    /// What becomes of the event.
    pub change: Change,
    /// Why, for people.
    pub reason: String,
    /// How often the event must have been corrected before, where that matters.
    pub revision: Option<u32>,
}

impl Correction {
    /// What makes it the same correction: account and id. No event has such a key, because its identity has three parts.
    #[must_use]
    pub fn key(&self) -> EventKey {
        let mut hash = Parts::default();
        hash.part(b"correction");
        hash.part(self.identity.account.as_str().as_bytes());
        hash.part(self.id.as_str().as_bytes());
        hash.part(b"");
        EventKey::new(hash.finish())
    }

    /// The hash of what must not differ between repeats. What the event should have been before is no part of it: of a repeat
    /// that is no longer so.
    #[must_use]
    pub fn payload_hash(&self) -> PayloadHash {
        let mut hash = Parts::default();
        hash.part(self.identity.source.as_str().as_bytes());
        hash.part(self.identity.event_id.as_str().as_bytes());
        match &self.change {
            Change::Amend(amount) => {
                hash.part(b"amend");
                hash.part(&amount.get().to_be_bytes());
            }
            Change::Void => hash.part(b"void"),
            Change::Undo(id) => {
                hash.part(b"undo");
                hash.part(id.as_str().as_bytes());
            }
        }
        hash.part(self.reason.as_bytes());
        hash.finish()
    }
}

/// A correction that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// Its id.
    pub id: EventId,
    /// What the event came to before.
    pub before: Standing,
    /// What it comes to by it.
    pub after: Standing,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub actor: String,
    /// When.
    pub corrected_at: Timestamp,
}

/// Why a correction is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The event has another revision, or another newest correction, than the correction says.
    CorrectedSince {
        /// The revision that it has.
        revision: u32,
    },
    /// A metric that counts events has events of 1.
    NotOne,
}

/// What a correction makes of an event with this standing, whose newest correction is `newest`.
///
/// # Errors
/// [`Refused`].
pub fn correct(
    correction: &Correction,
    standing: Standing,
    newest: Option<&Corrected>,
    counts_events: bool,
) -> Result<Standing, Refused> {
    let since = Refused::CorrectedSince {
        revision: standing.revision,
    };
    if correction
        .revision
        .is_some_and(|expected| expected != standing.revision)
    {
        return Err(since);
    }
    let (amount, voided) = match &correction.change {
        Change::Amend(amount) if counts_events && *amount != Units::ONE => return Err(Refused::NotOne),
        Change::Amend(amount) => (*amount, false),
        Change::Void => (standing.amount, true),
        Change::Undo(id) => {
            let newest = newest.filter(|newest| newest.id == *id).ok_or(since)?;
            (newest.before.amount, newest.before.voided)
        }
    };
    Ok(Standing {
        revision: standing.revision.saturating_add(1),
        amount,
        voided,
    })
}

/// How a correction moves what was taken of a metric: up where more counts than before. Units that were given back count the
/// other way.
#[must_use]
pub fn taken_change(origin: Origin, before: Standing, after: Standing) -> i64 {
    let change = after.counted().as_i64() - before.counted().as_i64();
    if origin == Origin::Return { -change } else { change }
}

#[cfg(test)]
mod tests {
    use octroi_core::{AccountId, Source};
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> EventId {
        EventId::parse(text).expect("an id")
    }

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    fn correction(name: &str, change: Change) -> Correction {
        Correction {
            id: id(name),
            identity: Identity {
                account: AccountId::parse("acme").expect("an account"),
                source: Source::parse("app").expect("a source"),
                event_id: id("e-1"),
            },
            change,
            reason: "counted twice".into(),
            revision: None,
        }
    }

    /// Makes corrections one after the other.
    fn make(recorded: Standing, changes: &[(&str, Change)]) -> Result<Vec<Corrected>, Refused> {
        let mut history: Vec<Corrected> = Vec::new();
        for (name, change) in changes {
            let correction = correction(name, change.clone());
            let before = history.last().map_or(recorded, |newest| newest.after);
            let after = correct(&correction, before, history.last(), false)?;
            history.push(Corrected {
                id: correction.id,
                before,
                after,
                reason: correction.reason,
                actor: "operator".into(),
                corrected_at: Timestamp::UNIX_EPOCH,
            });
        }
        Ok(history)
    }

    #[test]
    fn an_event_comes_to_what_its_corrections_say_one_after_the_other() {
        let (amend, undo) = (
            |amount| Change::Amend(units(amount)),
            |name| Change::Undo(id(name)),
        );
        type Changes<'c> = &'c [(&'c str, Change)];
        let cases: &[(Changes<'_>, Option<(u64, bool)>)] = &[
            (&[("c-1", amend(4))], Some((4, false))),
            (&[("c-1", amend(0))], Some((0, false))),
            (&[("c-1", Change::Void)], Some((10, true))),
            (&[("c-1", Change::Void), ("c-2", amend(3))], Some((3, false))),
            (&[("c-1", Change::Void), ("c-2", undo("c-1"))], Some((10, false))),
            // What was undone is done again.
            (
                &[("c-1", amend(4)), ("c-2", undo("c-1")), ("c-3", undo("c-2"))],
                Some((4, false)),
            ),
            // Only the newest can be undone.
            (
                &[("c-1", amend(4)), ("c-2", amend(5)), ("c-3", undo("c-1"))],
                None,
            ),
            (&[("c-1", undo("c-0"))], None),
        ];
        for (changes, expected) in cases {
            let history = make(Standing::recorded(units(10)), changes);
            let last = history
                .ok()
                .and_then(|history| history.last().map(|newest| newest.after));
            let found = last.map(|after| (after.amount.get(), after.voided));
            assert_eq!(found, *expected, "{changes:?}");
            if let Some(after) = last {
                assert_eq!(usize::try_from(after.revision), Ok(changes.len()));
            }
        }
    }

    #[test]
    fn what_was_looked_at_is_what_is_corrected() {
        let standing = Standing {
            revision: 2,
            ..Standing::recorded(units(10))
        };
        for (expected, is_made) in [(None, true), (Some(2), true), (Some(1), false), (Some(3), false)] {
            let correction = Correction {
                revision: expected,
                ..correction("c-1", Change::Void)
            };
            let made = correct(&correction, standing, None, false);
            assert_eq!(made.is_ok(), is_made, "{expected:?}");
        }
    }

    #[test]
    fn an_event_of_a_metric_that_counts_events_is_one_or_void() {
        for (change, expected) in [
            (Change::Amend(units(2)), Err(Refused::NotOne)),
            (Change::Amend(Units::ZERO), Err(Refused::NotOne)),
            (Change::Amend(Units::ONE), Ok(false)),
            (Change::Void, Ok(true)),
        ] {
            let made = correct(
                &correction("c-1", change),
                Standing::recorded(Units::ONE),
                None,
                true,
            );
            assert_eq!(made.map(|after| after.voided), expected);
        }
    }

    #[test]
    fn a_correction_is_known_by_its_id_and_repeated_by_its_content() {
        let first = correction("c-1", Change::Void);
        assert_ne!(first.key(), correction("c-2", Change::Void).key());
        assert_ne!(first.key(), first.identity.key());
        let looked = Correction {
            revision: Some(0),
            ..first.clone()
        };
        assert_eq!(first.payload_hash(), looked.payload_hash());
        let others = [
            correction("c-1", Change::Amend(Units::ZERO)),
            correction("c-1", Change::Undo(id("c-0"))),
            Correction {
                reason: "another".into(),
                ..first.clone()
            },
            Correction {
                identity: Identity {
                    event_id: id("e-2"),
                    ..first.identity.clone()
                },
                ..first.clone()
            },
        ];
        for other in others {
            assert_ne!(first.payload_hash(), other.payload_hash(), "{other:?}");
        }
    }

    #[test]
    fn what_is_given_back_counts_the_other_way() {
        let (before, after) = (Standing::recorded(units(10)), Standing::recorded(units(4)));
        let voided = Standing {
            voided: true,
            ..before
        };
        for (origin, after, expected) in [
            (Origin::Direct, after, -6),
            (Origin::Decision, after, -6),
            (Origin::Return, after, 6),
            (Origin::Direct, voided, -10),
            (Origin::Return, voided, 10),
        ] {
            assert_eq!(taken_change(origin, before, after), expected);
        }
    }

    proptest! {
        #[test]
        fn changes_add_up_to_what_the_event_comes_to_in_the_end(
            recorded in 1_u64..100, amounts in prop::collection::vec(prop::option::of(0_u64..100), 1..9),
        ) {
            let names: Vec<String> = (0..amounts.len()).map(|number| format!("c-{number}")).collect();
            let changes: Vec<(&str, Change)> = (names.iter().zip(&amounts))
                .map(|(name, amount)| (name.as_str(), amount.map_or(Change::Void, |amount| Change::Amend(units(amount)))))
                .collect();
            let recorded = Standing::recorded(units(recorded));
            let history = make(recorded, &changes).expect("good corrections");
            let sum: i64 = history.iter().map(|one| taken_change(Origin::Direct, one.before, one.after)).sum();
            let last = history.last().map_or(recorded, |newest| newest.after);
            prop_assert_eq!(recorded.counted().as_i64() + sum, last.counted().as_i64());
        }
    }
}
