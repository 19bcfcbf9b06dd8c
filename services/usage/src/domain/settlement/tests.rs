use std::collections::{BTreeMap, BTreeSet};

use octroi_core::{AccountId, EventId, MetricSlug, Source, Units};
use proptest::prelude::*;

use super::*;
use crate::domain::event::{Event, Origin};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const BEFORE: Timestamp = Timestamp::MIN;

fn identity(id: u8) -> Identity {
    Identity {
        account: AccountId::parse("acme").expect("an id"),
        source: Source::parse("app").expect("a source"),
        event_id: EventId::parse(&format!("e-{id}")).expect("an id"),
    }
}

fn accepted(id: u8, content: u8) -> Accepted {
    Accepted {
        event: Event {
            identity: identity(id),
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            amount: Units::positive(1).expect("an amount"),
            event_at: None,
            properties: BTreeMap::new(),
            origin: Origin::Direct,
            backfill: false,
        },
        event_at: NOW,
        payload_hash: [content; 32],
    }
}

/// A call of events of these ids and contents.
fn call(all_or_nothing: bool, events: &[(u8, u8)]) -> Call {
    Call {
        events: events
            .iter()
            .map(|(id, content)| accepted(*id, *content))
            .collect(),
        all_or_nothing,
    }
}

fn whole(events: &[(u8, u8)]) -> Call {
    call(true, events)
}

fn each(events: &[(u8, u8)]) -> Call {
    call(false, events)
}

fn ledger(events: &[(u8, u8)]) -> HashMap<Identity, Known> {
    let known = |content| Known {
        payload_hash: [content; 32],
        recorded_at: BEFORE,
    };
    events
        .iter()
        .map(|(id, content)| (identity(*id), known(*content)))
        .collect()
}

const NEW: Outcome = Outcome::Inserted(NOW);
const OLD: Outcome = Outcome::Duplicate(BEFORE);
const AGAIN: Outcome = Outcome::Duplicate(NOW);
use Outcome::{Reused, Withheld};

fn check(known: &[(u8, u8)], calls: &[Call], expected: &[&[Outcome]]) {
    let known = ledger(known);
    let settlement = settle(calls, &known, NOW);
    assert_eq!(settlement.outcomes, expected, "{known:?}");
}

#[test]
fn events_of_a_call_are_settled_each_for_itself() {
    check(
        &[(1, 1)],
        &[each(&[(1, 1), (1, 2), (2, 1), (2, 1), (2, 2)])],
        &[&[OLD, Reused, NEW, AGAIN, Reused]],
    );
}

#[test]
fn an_all_or_nothing_call_is_new_as_a_whole_or_known_as_a_whole() {
    check(&[], &[whole(&[(1, 1), (2, 1), (1, 1)])], &[&[NEW, NEW, AGAIN]]);
    check(&[(1, 1), (2, 1)], &[whole(&[(1, 1), (2, 1)])], &[&[OLD, OLD]]);
}

#[test]
fn an_all_or_nothing_call_that_is_known_in_part_records_nothing() {
    check(
        &[(1, 1)],
        &[whole(&[(1, 1), (2, 1), (2, 1), (3, 1)])],
        &[&[OLD, Withheld, Withheld, Withheld]],
    );
}

#[test]
fn an_all_or_nothing_call_with_a_reused_id_records_nothing() {
    check(
        &[(1, 1), (4, 1)],
        &[whole(&[(2, 1), (1, 9), (3, 1), (4, 1)])],
        &[&[Withheld, Reused, Withheld, OLD]],
    );
    check(&[], &[whole(&[(1, 1), (1, 2)])], &[&[Withheld, Reused]]);
    check(&[(1, 1)], &[whole(&[(1, 2)])], &[&[Reused]]);
}

#[test]
fn calls_of_one_commit_see_each_other_in_their_order() {
    // The second is the first again; the third overlaps it.
    check(
        &[],
        &[
            whole(&[(1, 1), (2, 1)]),
            whole(&[(1, 1), (2, 1)]),
            whole(&[(2, 1), (3, 1)]),
            each(&[(3, 2)]),
        ],
        &[&[NEW, NEW], &[AGAIN, AGAIN], &[AGAIN, Withheld], &[NEW]],
    );
    // What a call could not record is free for those after it, with whatever content.
    check(
        &[(1, 1)],
        &[whole(&[(1, 1), (2, 1)]), each(&[(2, 2)]), whole(&[(2, 2)])],
        &[&[OLD, Withheld], &[NEW], &[AGAIN]],
    );
}

#[test]
fn rows_that_do_not_stand_are_corrected() {
    let calls = [whole(&[(1, 1), (2, 1), (4, 1)]), each(&[(2, 2), (3, 1)])];
    let known = ledger(&[(1, 1)]);
    let written: Vec<&Accepted> = candidates(&calls)
        .into_iter()
        .filter(|one| !known.contains_key(&one.event.identity))
        .collect();
    let settlement = settle(&calls, &known, NOW);
    let corrections = settlement.corrections(&written);
    let named = |some: &[&Accepted]| -> Vec<(String, u8)> {
        some.iter()
            .map(|one| (one.event.identity.event_id.to_string(), one.payload_hash[0]))
            .collect()
    };
    assert_eq!(
        named(&corrections.surplus),
        [("e-2".to_owned(), 1), ("e-4".to_owned(), 1)]
    );
    assert_eq!(named(&corrections.missing), [("e-2".to_owned(), 2)]);
    assert_eq!(
        named(&settlement.recorded),
        [("e-2".to_owned(), 2), ("e-3".to_owned(), 1)]
    );
}

/// The same, one call after the other, told as simply as possible.
fn alone(calls: &[Call], known: &[(u8, u8)]) -> BTreeSet<(String, u8)> {
    let mut ledger: BTreeMap<String, u8> = known
        .iter()
        .map(|(id, content)| (format!("e-{id}"), *content))
        .collect();
    for call in calls {
        let mut after = ledger.clone();
        let (mut new, mut found, mut reused) = (false, false, false);
        for one in &call.events {
            let id = one.event.identity.event_id.to_string();
            new |= !ledger.contains_key(&id);
            found |= ledger.get(&id) == Some(&one.payload_hash[0]);
            reused |= *after.entry(id).or_insert(one.payload_hash[0]) != one.payload_hash[0];
        }
        if !call.all_or_nothing || !(reused || new && found) {
            ledger = after;
        }
    }
    ledger.into_iter().collect()
}

proptest! {
    #[test]
    fn a_shared_commit_records_what_each_call_alone_would_have(
        known in proptest::collection::btree_map(0_u8..6, 0_u8..2, 0..4),
        calls in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec((0_u8..6, 0_u8..2), 1..4)), 1..6,
        ),
    ) {
        let known: Vec<(u8, u8)> = known.into_iter().collect();
        let calls: Vec<Call> = calls.iter().map(|(whole, events)| call(*whole, events)).collect();
        let before = ledger(&known);
        let settlement = settle(&calls, &before, NOW);

        let row = |one: &Accepted| (one.event.identity.event_id.to_string(), one.payload_hash[0]);
        let mut after: BTreeSet<(String, u8)> =
            known.iter().map(|(id, content)| (format!("e-{id}"), *content)).collect();
        after.extend(settlement.recorded.iter().map(|one| row(one)));
        prop_assert_eq!(&after, &alone(&calls, &known));
        prop_assert_eq!(after.len(), known.len() + settlement.recorded.len());

        // Whoever reads that an event is in the ledger finds it there, with the content that was sent.
        for (call, outcomes) in calls.iter().zip(&settlement.outcomes) {
            for (one, outcome) in call.events.iter().zip(outcomes) {
                let there = after.contains(&row(one));
                let acknowledged = matches!(outcome, Outcome::Inserted(_) | Outcome::Duplicate(_));
                prop_assert!(there || !acknowledged, "{outcome:?}");
            }
        }

        // The rows that are written first become the rows that were settled.
        let written: Vec<&Accepted> = candidates(&calls)
            .into_iter()
            .filter(|one| !before.contains_key(&one.event.identity))
            .collect();
        let corrections = settlement.corrections(&written);
        let mut rows: BTreeSet<(String, u8)> = written.iter().map(|one| row(one)).collect();
        for one in &corrections.surplus {
            prop_assert!(rows.remove(&row(one)));
        }
        for one in &corrections.missing {
            prop_assert!(rows.insert(row(one)));
        }
        let recorded: BTreeSet<(String, u8)> = settlement.recorded.iter().map(|one| row(one)).collect();
        prop_assert_eq!(rows, recorded);
    }
}
