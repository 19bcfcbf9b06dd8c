//! One usage event: its identity, its content, and when it is accepted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{
    AccountId, Charge, EventId, MetricSlug, Source, Units, event_time::may_be_recorded, source,
};
use sha2::{Digest as _, Sha256};

use super::{correction::Standing, events::Place};

/// How an event came into the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Recorded after the fact.
    Direct,
    /// Recorded by a quota decision that allowed it.
    Decision,
    /// Units of a LEVEL metric that were given back.
    Return,
    /// A request that was denied: nothing was used, and no later attempt of it is recorded.
    Denial,
}

impl Origin {
    /// Its name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Decision => "decision",
            Self::Return => "return",
            Self::Denial => "denial",
        }
    }

    /// The origin of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Direct, Self::Decision, Self::Return, Self::Denial]
            .into_iter()
            .find(|origin| origin.as_str() == name)
    }
}

/// What makes two events the same event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Who says so.
    pub source: Source,
    /// The id within the source.
    pub event_id: EventId,
}

/// An identity in 16 bytes: what the ledger looks it up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey([u8; 16]);

impl EventKey {
    /// The key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl Identity {
    /// The first 16 bytes of the SHA-256 over account, source and event id, each preceded by its length in 8 bytes. Of
    /// 10^12 events the chance that any two have one key is below 10^-14; whoever looked for two would need 2^64 tries.
    #[must_use]
    pub fn key(&self) -> EventKey {
        let mut hash = Parts::default();
        hash.part(self.account.as_str().as_bytes());
        hash.part(self.source.as_str().as_bytes());
        hash.part(self.event_id.as_str().as_bytes());
        EventKey(hash.finish())
    }
}

/// A hash of parts, each preceded by its length, so that no two lists of parts look alike.
#[derive(Default)]
pub(super) struct Parts(Sha256);

impl Parts {
    pub(super) fn part(&mut self, bytes: &[u8]) {
        // No part is longer than 64 bits can say.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.update(length.to_be_bytes());
        self.0.update(bytes);
    }

    /// The first 16 bytes.
    pub(super) fn finish(self) -> [u8; 16] {
        let hash: [u8; 32] = self.0.finalize().into();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

/// One usage event as it is asked to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What makes it this event.
    pub identity: Identity,
    /// What was used.
    pub metric: MetricSlug,
    /// How much: at least 1.
    pub amount: Units,
    /// When, where the caller said.
    pub event_at: Option<Timestamp>,
    /// Further facts.
    pub properties: BTreeMap<String, String>,
    /// How it came.
    pub origin: Origin,
    /// Whether it may lie any time back.
    pub backfill: bool,
    /// Which slices of a limit pay for it. No part of its content: another attempt may find other slices.
    pub charges: Vec<Charge>,
}

/// The first 16 bytes of the SHA-256 over what must not differ between repeats.
pub type PayloadHash = [u8; 16];

/// SHA-256 of the request that an event is made of.
pub type ContentHash = [u8; 32];

/// An event that passed every rule, with the instant at which it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The event.
    pub event: Event,
    /// When it counts.
    pub event_at: Timestamp,
    /// The key of its identity.
    pub key: EventKey,
    /// The hash of its content.
    pub payload_hash: PayloadHash,
    /// The hash of the value that its metric counts, where that is UNIQUE.
    pub distinct: Option<u64>,
    /// Whether its metric is a LEVEL, which the ledger keeps at 0 or above.
    pub moves_level: bool,
}

impl Accepted {
    /// How it moves the level of its metric, where that is one.
    #[must_use]
    pub fn level_change(&self) -> Option<i64> {
        if !self.moves_level {
            return None;
        }
        match self.event.origin {
            Origin::Direct | Origin::Decision => Some(self.event.amount.as_i64()),
            Origin::Return => Some(-self.event.amount.as_i64()),
            Origin::Denial => None,
        }
    }

    /// Units that slices pay for.
    #[must_use]
    pub fn charged_amount(&self) -> Units {
        let sum = self.event.charges.iter().map(|charge| charge.amount.get()).sum();
        Units::new(sum).unwrap_or(Units::MAX)
    }
}

/// One event as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    /// The event; its time is always there.
    pub event: Event,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
    /// Units that slices paid for.
    pub charged: Units,
    /// Its place among the events of its account.
    pub place: Place,
    /// What it comes to, with all corrections.
    pub standing: Standing,
}

impl RecordedEvent {
    /// Whether it was recorded with this content hash, where its payload has this hash.
    #[must_use]
    pub fn has_content(&self, payload_hash: PayloadHash, content_hash: &ContentHash) -> bool {
        // The ledger does not say whether the time was the caller's, so either will do.
        let timeless = Event {
            event_at: None,
            ..self.event.clone()
        };
        [&self.event, &timeless]
            .into_iter()
            .any(|event| event.payload_hash(Some(content_hash)) == payload_hash)
    }
}

impl Event {
    /// The hash of what must not differ between repeats: metric, amount, time, properties, and the hash of
    /// the request where there is one. No two contents look alike: properties are pairs of parts, so one that stands
    /// alone at the end is the request's hash. A time
    /// that nobody chose is no part of it, because the repeat has another present: one that was not given, and
    /// that of what quota records, whose request's hash has the time that its caller chose.
    #[must_use]
    pub fn payload_hash(&self, content_hash: Option<&ContentHash>) -> PayloadHash {
        let mut hash = Parts::default();
        let mut part = |bytes: &[u8]| hash.part(bytes);
        part(self.metric.as_str().as_bytes());
        part(&self.amount.get().to_be_bytes());
        match (self.origin, self.event_at) {
            (Origin::Direct, Some(at)) if !self.is_of_quota() => part(&at.as_microsecond().to_be_bytes()),
            // A denial stands in the place of the decision or the return that it forestalls.
            _ => part(b"now"),
        }
        for (key, value) in &self.properties {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        if let Some(content_hash) = content_hash {
            part(content_hash);
        }
        hash.finish()
    }

    fn is_of_quota(&self) -> bool {
        let name = self.identity.source.as_str();
        source::OF_QUOTA.iter().any(|kept| name.starts_with(kept))
    }

    /// When it happened, where the ledger may take it at `now`.
    #[must_use]
    pub fn accepted_at(&self, now: Timestamp) -> Option<Timestamp> {
        let Some(at) = self.event_at else { return Some(now) };
        may_be_recorded(at, now, self.backfill).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    fn event() -> Event {
        Event {
            identity: Identity {
                account: AccountId::parse("acme").expect("an id"),
                source: Source::parse("app").expect("a source"),
                event_id: EventId::parse("e-1").expect("an id"),
            },
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            amount: Units::positive(1).expect("an amount"),
            event_at: Some("2026-03-01T00:00:00Z".parse().expect("an instant")),
            properties: BTreeMap::from([("region".into(), "eu".into())]),
            origin: Origin::Direct,
            backfill: false,
            charges: Vec::new(),
        }
    }

    #[test]
    fn the_hash_changes_with_every_part_of_the_content_and_with_nothing_else() {
        let first = event();
        let same = [
            Event {
                backfill: true,
                ..event()
            },
            Event {
                identity: Identity {
                    event_id: EventId::parse("e-2").expect("an id"),
                    ..event().identity
                },
                ..event()
            },
        ];
        for other in same {
            assert_eq!(first.payload_hash(None), other.payload_hash(None));
        }
        let different = [
            Event {
                metric: MetricSlug::parse("api.request").expect("a slug"),
                ..event()
            },
            Event {
                amount: Units::positive(2).expect("an amount"),
                ..event()
            },
            Event {
                event_at: None,
                ..event()
            },
            Event {
                event_at: event().event_at.map(|at| at + 1.microsecond()),
                ..event()
            },
            Event {
                properties: BTreeMap::new(),
                ..event()
            },
            Event {
                properties: BTreeMap::from([("regio".into(), "neu".into())]),
                ..event()
            },
        ];
        for other in different {
            assert_ne!(first.payload_hash(None), other.payload_hash(None), "{other:?}");
        }
        let decision = Event {
            origin: Origin::Decision,
            ..event()
        };
        let recorded = Event {
            identity: Identity {
                source: Source::parse("record:app").expect("a source"),
                ..event().identity
            },
            ..event()
        };
        for by_quota in [decision, recorded] {
            let timeless = Event {
                event_at: None,
                ..by_quota.clone()
            };
            assert_eq!(by_quota.payload_hash(None), timeless.payload_hash(None));
        }
    }

    #[test]
    fn a_key_is_of_one_identity_and_is_the_same_as_the_database_makes() {
        let identity = event().identity;
        // What the migration computes of the same.
        let expected = 0xe8a2_dc28_8f9d_5ef0_d0c4_e44e_80ea_aada_u128;
        assert_eq!(identity.key().bytes(), expected.to_be_bytes());
        let moved = Identity {
            account: AccountId::parse("acmea").expect("an id"),
            source: Source::parse("pp").expect("a source"),
            ..identity.clone()
        };
        assert_ne!(moved.key(), identity.key(), "parts do not run into each other");
    }

    #[test]
    fn the_request_s_hash_is_part_of_the_content() {
        let (one, other) = ([1; 32], [2; 32]);
        assert_ne!(event().payload_hash(None), event().payload_hash(Some(&one)));
        assert_ne!(
            event().payload_hash(Some(&other)),
            event().payload_hash(Some(&one))
        );
        let decision = Event {
            origin: Origin::Decision,
            ..event()
        };
        let timeless = Event {
            event_at: None,
            ..event()
        };
        for asked in [event(), decision, timeless] {
            let recorded = RecordedEvent {
                // The ledger has a time in any case.
                event: Event {
                    event_at: event().event_at,
                    ..asked.clone()
                },
                recorded_at: Timestamp::UNIX_EPOCH,
                charged: Units::ZERO,
                place: Place::END,
                standing: Standing::recorded(Units::ONE),
            };
            let with_one = asked.payload_hash(Some(&one));
            assert!(recorded.has_content(with_one, &one));
            assert!(!recorded.has_content(with_one, &other));
            assert!(!recorded.has_content(asked.payload_hash(None), &one));
        }
    }

    #[test]
    fn an_event_is_accepted_from_35_days_back_to_5_minutes_ahead_and_a_backfill_from_any_time() {
        let at = event().event_at.expect("it has one");
        for (now, backfill, accepted) in [
            (at, false, true),
            (at + 840.hours(), false, true),
            (at + 840.hours() + 1.microsecond(), false, false),
            (at + 840.hours() + 1.microsecond(), true, true),
            (at - 5.minutes(), false, true),
            (at - 5.minutes() - 1.microsecond(), false, false),
            (at - 5.minutes() - 1.microsecond(), true, false),
        ] {
            let event = Event { backfill, ..event() };
            assert_eq!(event.accepted_at(now).is_some(), accepted, "{now} {backfill}");
        }
        let without = Event {
            event_at: None,
            ..event()
        };
        assert_eq!(without.accepted_at(at), Some(at));
    }
}
