use std::collections::{BTreeMap, BTreeSet};

use octroi_core::{AccountId, Charge, EventId, MetricSlug, Source, Units};
use proptest::prelude::*;

use super::*;
use crate::domain::{
    event::{Event, Identity, Origin},
    spends::SliceSpend,
};

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
            charges: Vec::new(),
        },
        event_at: NOW,
        payload_hash: [content; 16],
        key: identity(id).key(),
        distinct: None,
        moves_level: false,
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

fn ledger(events: &[(u8, u8)]) -> Ledger {
    let known = |content| Known {
        payload_hash: [content; 16],
        recorded_at: BEFORE,
        denied: false,
    };
    let known = (events.iter()).map(|(id, content)| (identity(*id).key(), known(*content)));
    Ledger {
        known: known.collect(),
        spends: Spends::default(),
    }
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
        .filter(|one| !known.known.contains_key(&one.key))
        .collect();
    let settlement = settle(&calls, &known, NOW);
    let corrections = settlement.corrections(&written);
    let named = |some: &[&Accepted]| -> Vec<(String, u8)> {
        let named = some
            .iter()
            .map(|one| (one.event.identity.event_id.to_string(), one.payload_hash[0]));
        named.collect::<BTreeSet<_>>().into_iter().collect()
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

fn slice(number: u128) -> SliceId {
    SliceId::new(uuid::Uuid::from_u128(number))
}

fn units(amount: u64) -> Units {
    Units::new(amount).expect("an amount")
}

/// A decision of `amount` that is charged to these slices, with their shares.
fn charged(id: u8, amount: u64, shares: &[(u128, u64)]) -> Accepted {
    let charge = |(number, amount): &(u128, u64)| Charge {
        slice: slice(*number),
        cap: units(10),
        amount: units(*amount),
        hard_end_at: Timestamp::MAX,
    };
    let mut one = accepted(id, 1);
    one.event.origin = Origin::Decision;
    one.event.amount = units(amount);
    one.event.charges = shares.iter().map(charge).collect();
    one
}

fn together(events: Vec<Accepted>) -> Call {
    Call {
        events,
        all_or_nothing: true,
    }
}

/// Slices of 10 that have spent this much.
fn slices(spent: &[(u128, u64)]) -> Ledger {
    let slices = (spent.iter()).map(|(number, spent)| {
        let spend = SliceSpend {
            cap: units(10),
            spent: units(*spent),
            open: true,
        };
        (slice(*number), spend)
    });
    Ledger {
        spends: Spends {
            slices: slices.collect(),
            levels: HashMap::new(),
        },
        ..Ledger::default()
    }
}

#[track_caller]
fn check_spends(ledger: &Ledger, calls: &[Call], expected: &[&[Outcome]], spent: &[(u128, u64)]) {
    let settlement = settle(calls, ledger, NOW);
    assert_eq!(settlement.outcomes, expected);
    for (number, spent) in spent {
        assert_eq!(
            settlement.spends.slices[&slice(*number)].spent,
            units(*spent),
            "slice {number}"
        );
    }
}

#[test]
fn a_slice_pays_up_to_its_cap_and_who_does_not_fit_is_refused_alone() {
    let calls = [
        together(vec![charged(1, 7, &[(1, 7)])]),
        together(vec![charged(2, 4, &[(1, 4)])]),
        together(vec![charged(3, 3, &[(1, 3)])]),
    ];
    let refused = Outcome::SlicesRefused(vec![slice(1)]);
    check_spends(
        &slices(&[(1, 0)]),
        &calls,
        &[&[NEW], &[refused], &[NEW]],
        &[(1, 10)],
    );
}

#[test]
fn a_sealed_slice_and_one_that_nobody_knows_pay_nothing() {
    let mut ledger = slices(&[(1, 0)]);
    if let Some(sealed) = ledger.spends.slices.get_mut(&slice(1)) {
        sealed.open = false;
    }
    let calls = [together(vec![charged(1, 5, &[(1, 2), (2, 3)])])];
    let refused = Outcome::SlicesRefused(vec![slice(1), slice(2)]);
    check_spends(&ledger, &calls, &[&[refused]], &[(1, 0)]);
}

#[test]
fn a_call_that_one_slice_refuses_leaves_every_other_as_it_was() {
    let calls = [
        together(vec![charged(1, 5, &[(1, 5)]), charged(2, 5, &[(1, 5), (2, 5)])]),
        together(vec![charged(3, 10, &[(1, 10)])]),
    ];
    let refused = Outcome::SlicesRefused(vec![slice(2)]);
    let expected: [&[Outcome]; 2] = [&[Withheld, refused], &[NEW]];
    check_spends(&slices(&[(1, 0), (2, 6)]), &calls, &expected, &[(1, 10), (2, 6)]);
}

#[test]
fn an_event_that_is_there_already_is_not_charged_again() {
    let mut ledger = slices(&[(1, 3)]);
    ledger.known = ledger_of(1, false);
    let calls = [together(vec![charged(1, 3, &[(1, 3)])])];
    check_spends(&ledger, &calls, &[&[OLD]], &[(1, 3)]);
}

fn ledger_of(id: u8, denied: bool) -> HashMap<EventKey, Known> {
    let known = Known {
        payload_hash: [1; 16],
        recorded_at: BEFORE,
        denied,
    };
    HashMap::from([(identity(id).key(), known)])
}

fn denial(id: u8) -> Accepted {
    let mut one = accepted(id, 1);
    one.event.origin = Origin::Denial;
    one
}

#[test]
fn a_denied_request_is_never_recorded_and_a_recorded_one_never_denied() {
    let call = |one| [together(vec![one])];
    let mut ledger = slices(&[(1, 0)]);
    check_spends(&ledger, &call(denial(1)), &[&[NEW]], &[]);
    ledger.known = ledger_of(1, true);
    check_spends(&ledger, &call(denial(1)), &[&[Outcome::Denied]], &[]);
    check_spends(
        &ledger,
        &call(charged(1, 3, &[(1, 3)])),
        &[&[Outcome::Denied]],
        &[(1, 0)],
    );
    ledger.known = ledger_of(1, false);
    check_spends(&ledger, &call(denial(1)), &[&[OLD]], &[]);
}

fn of_level(id: u8, origin: Origin, amount: u64) -> Accepted {
    let mut one = accepted(id, 1);
    one.event.origin = origin;
    one.event.amount = units(amount);
    one.moves_level = true;
    one
}

#[test]
fn a_level_takes_what_is_given_back_and_stays_at_zero_or_above() {
    let calls = [
        each(&[]),
        together(vec![of_level(1, Origin::Decision, 5)]),
        together(vec![of_level(2, Origin::Return, 6)]),
        together(vec![of_level(3, Origin::Return, 5)]),
        together(vec![of_level(4, Origin::Direct, Units::MAX.get())]),
        together(vec![of_level(5, Origin::Direct, 1)]),
    ];
    let ledger = Ledger::default();
    let settlement = settle(&calls, &ledger, NOW);
    let expected: [&[Outcome]; 6] = [
        &[],
        &[NEW],
        &[Outcome::LevelBelowZero],
        &[NEW],
        &[NEW],
        &[Outcome::LevelOutOfRange],
    ];
    assert_eq!(settlement.outcomes, expected);
    let levels: Vec<i64> = settlement.spends.levels.into_values().collect();
    assert_eq!(levels, [Units::MAX.as_i64()]);
}

proptest! {
    #[test]
    fn what_slices_have_spent_is_what_recorded_events_are_charged(
        spent in proptest::collection::vec(0_u64..=10, 3),
        calls in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(
                (0_u8..8, proptest::collection::btree_map(0_u128..3, 1_u64..6, 1..3)), 1..4)), 1..8,
        ),
    ) {
        let before: Vec<(u128, u64)> = (0_u128..).zip(spent).collect();
        let ledger = slices(&before);
        let calls: Vec<Call> = calls.into_iter().map(|(all_or_nothing, events)| Call {
            events: events.into_iter().map(|(id, shares)| {
                let shares: Vec<(u128, u64)> = shares.into_iter().collect();
                charged(id, shares.iter().map(|share| share.1).sum(), &shares)
            }).collect(),
            all_or_nothing,
        }).collect();
        let settlement = settle(&calls, &ledger, NOW);
        for (number, spent) in before {
            let charges = settlement.recorded.iter().flat_map(|one| &one.event.charges);
            let of_slice = charges.filter(|charge| charge.slice == slice(number));
            let sum: u64 = of_slice.map(|charge| charge.amount.get()).sum();
            let after = settlement.spends.slices[&slice(number)].spent.get();
            prop_assert_eq!(after, spent + sum);
            prop_assert!(after <= 10);
        }
    }
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
            .filter(|one| !before.known.contains_key(&one.key))
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
