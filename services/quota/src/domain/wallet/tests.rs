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
        kept: true,
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
        wallet.add(slice(number, *cap), Revision::default(), NOW);
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
    let ids =
        |slices: Vec<Slice>| -> Vec<u128> { slices.iter().map(|slice| slice.id.uuid().as_u128()).collect() };
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
    let spent = |is_first, is_low| Some(Spent { is_first, is_low });
    assert_eq!(wallet.take_buffered(units(2), NOW, NOW), spent(true, false));
    assert_eq!(wallet.take_buffered(units(4), NOW, NOW), spent(false, false));
    assert_eq!(
        wallet.take_buffered(units(1), NOW, NOW),
        spent(false, true),
        "1 < 2, which is half of 5"
    );
    assert_eq!(wallet.take_buffered(units(2), NOW, NOW), None);
    assert_eq!(wallet.take_buffered(units(1), NOW, NOW), spent(false, true));
    let flush = wallet.start_flush();
    let amounts: Vec<u64> = flush.iter().map(|pending| pending.amount.get()).collect();
    assert_eq!(amounts, [3, 5]);
    assert!(wallet.start_flush().is_empty(), "it is on its way");
    wallet.retire_all();
    assert!(!wallet.slices().any(Held::may_be_settled));
    for pending in flush {
        wallet.end_flush(pending.slice.id, pending.amount);
    }
    assert!(wallet.slices().all(Held::may_be_settled));
}

#[test]
fn what_the_journal_has_keeps_its_slice_open_until_the_ledger_has_it() {
    let mut wallet = wallet(&[3, 5]);
    let charges = wallet.take(units(4), NOW, NOW).expect("8 are there");
    wallet.owe(&charges);
    wallet.finish(&charges);
    wallet.retire_all();
    assert!(!wallet.slices().any(Held::may_be_settled));
    wallet.paid(&charges);
    assert!(wallet.slices().all(Held::may_be_settled));
}

#[test]
fn an_amount_that_is_buffered_may_need_several_slices() {
    let mut wallet = wallet(&[3, 5]);
    assert!(wallet.take_buffered(units(8), NOW, NOW).is_some());
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

#[test]
fn what_the_ledger_was_not_told_is_what_is_left_and_what_was_answered_until_it_arrives() {
    let mut wallet = wallet(&[3, 5]);
    assert_eq!(wallet.untold(), units(8));
    wallet.take_buffered(units(4), NOW, NOW).expect("8 are there");
    assert_eq!(
        wallet.untold(),
        units(8),
        "it was answered, and nobody else knows"
    );
    let flush = wallet.start_flush();
    assert_eq!(wallet.untold(), units(8), "it is on its way");
    wallet.end_flush(flush[0].slice.id, flush[0].amount);
    assert_eq!(wallet.untold(), units(5), "the ledger has the first three");
    wallet.end_flush(flush[1].slice.id, flush[1].amount);
    assert_eq!(wallet.untold(), units(4));
}

#[test]
fn what_is_on_its_way_to_the_ledger_or_the_journal_keeps_its_slice_open() {
    let mut wallet = wallet(&[3]);
    let charges = wallet.take(units(3), NOW, NOW).expect("3 are there");
    wallet.retire_done(NOW, NOW);
    assert!(
        !wallet.slices().any(Held::may_be_settled),
        "nobody knows what became of it"
    );
    wallet.finish(&charges);
    assert!(wallet.slices().all(Held::may_be_settled));
}

#[test]
fn what_others_may_settle_pays_for_nothing_that_is_answered_before_the_ledger_has_it() {
    let mut wallet = Wallet::default();
    let open_to_all = Slice {
        kept: false,
        ..slice(1, 5)
    };
    wallet.add(open_to_all, Revision::default(), NOW);
    wallet.add(slice(2, 3), Revision::default(), NOW);
    assert_eq!(
        (wallet.left(NOW, NOW), wallet.left_kept(NOW, NOW)),
        (units(8), units(3))
    );
    assert_eq!(wallet.take_buffered(units(4), NOW, NOW), None);
    assert!(wallet.take_buffered(units(3), NOW, NOW).is_some());
    assert_eq!(wallet.start_flush()[0].slice.id, slice(2, 3).id);
    assert_eq!(wallet.untold(), units(3), "the other is known to the ledger");
    assert!(wallet.take(units(5), NOW, NOW).is_some());
}

#[test]
fn nothing_is_spent_of_limits_that_are_not_in_force_any_more() {
    let revision = |account, catalog| Revision { account, catalog };
    let mut wallet = Wallet::default();
    wallet.add(slice(1, 5), revision(1, 7), NOW);
    wallet.follow(revision(1, 6));
    assert_eq!(wallet.left(NOW, NOW), units(5), "whoever read before knows less");
    wallet.follow(revision(1, 8));
    assert_eq!(wallet.left(NOW, NOW), Units::ZERO);
    wallet.add(slice(2, 3), revision(2, 8), NOW);
    assert_eq!(wallet.left(NOW, NOW), units(3));
    wallet.add(slice(3, 4), revision(1, 8), NOW);
    assert_eq!(
        wallet.left(NOW, NOW),
        units(3),
        "it was carved before, and came late"
    );
}

#[test]
fn use_is_told_by_the_minute() {
    let mut wallet = wallet(&[9]);
    let past = NOW + 2.minutes();
    for (amount, at) in [(1, NOW), (2, past), (3, NOW + 59.seconds())] {
        wallet.take_buffered(units(amount), at, NOW).expect("9 are there");
    }
    let flush = wallet.start_flush();
    let told: Vec<(Units, Timestamp)> = flush.iter().map(|one| (one.amount, one.since)).collect();
    assert_eq!(told, [(units(4), NOW), (units(2), past)]);
    assert!(!wallet.has_pending());
    wallet.retire_all();
    wallet.end_flush(flush[1].slice.id, flush[1].amount);
    assert!(
        !wallet.slices().any(Held::may_be_settled),
        "the first did not arrive"
    );
    wallet.end_flush(flush[0].slice.id, flush[0].amount);
    assert!(wallet.slices().all(Held::may_be_settled));
}

#[test]
fn a_slice_of_which_the_ledger_must_hear_is_not_forgotten() {
    let mut wallet = wallet(&[3]);
    wallet.take_buffered(units(2), NOW, NOW).expect("3 are there");
    let id = slice(1, 3).id;
    wallet.forget(&[id]);
    assert_eq!(
        wallet.left(NOW, NOW),
        Units::ZERO,
        "but nothing more is spent of it"
    );
    let flush = wallet.start_flush();
    assert_eq!(flush[0].amount, units(2));
    wallet.end_flush(id, units(2));
    wallet.forget(&[id]);
    assert!(wallet.is_empty());
}
