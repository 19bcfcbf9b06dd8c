use octroi_core::{Period, Window};

use super::*;

const LIMIT: u64 = 10;

fn units(amount: u64) -> Units {
    Units::new(amount).expect("an amount")
}

fn window(metric: &str) -> AccountWindow {
    let metric = MetricSlug::parse(metric).expect("a slug");
    let account = AccountId::parse("acme").expect("an id");
    (
        account,
        WindowKey::new(&metric, Period::Lifetime, Window::LIFETIME),
    )
}

/// A hold's slice of one metric.
fn ask(id: u128, metric: &str, amount: u64) -> Ask {
    let (account, key) = window(metric);
    Ask {
        account,
        metric: key.metric.clone(),
        kind: SliceKind::Hold,
        kept: false,
        need: units(amount),
        want: units(amount),
        windows: vec![(key, Some(units(LIMIT)))],
        revision: Revision::default(),
        terms: Terms::Natural { until: None },
        id: SliceId::new(Uuid::from_u128(id)),
        owner: Uuid::from_u128(id),
        content_hash: None,
    }
}

fn whole(asks: Vec<Ask>) -> Call {
    Call {
        asks,
        all_or_nothing: true,
    }
}

/// What becomes of calls where these slices are written down already, with what is carved and what the windows have
/// granted then.
fn planned(calls: &[Call], known: &[u128]) -> (Vec<Vec<&'static str>>, usize, HashMap<AccountWindow, u64>) {
    let known = known
        .iter()
        .map(|id| SliceId::new(Uuid::from_u128(*id)))
        .collect();
    let now = Timestamp::UNIX_EPOCH;
    let plan = plan(calls, HashMap::new(), known, |_| Revision::default(), now);
    let name = |carved: &Carved| match carved {
        Carved::Slice(_) => "slice",
        Carved::Full(_) => "full",
        Carved::Stale(_) => "stale",
        Carved::Exists => "exists",
        Carved::Withheld => "withheld",
    };
    let names = plan.carved.iter().map(|call| call.iter().map(name).collect());
    let granted = (plan.granted.iter()).map(|(window, granted)| (window.clone(), granted.open_cap.get()));
    (names.collect(), plan.slices.len(), granted.collect())
}

#[test]
fn each_call_has_what_those_before_it_left() {
    let calls = [6, 5, 4].map(|amount| whole(vec![ask(amount.into(), "a", amount)]));
    let (carved, slices, granted) = planned(&calls, &[]);
    assert_eq!(carved, [["slice"], ["full"], ["slice"]]);
    assert_eq!((slices, granted.get(&window("a"))), (2, Some(&LIMIT)));
}

#[test]
fn a_call_that_has_not_everything_has_nothing_and_others_may_have_it() {
    let calls = [
        whole(vec![ask(1, "a", 8), ask(2, "b", 11)]),
        whole(vec![ask(1, "a", 8), ask(2, "b", 10)]),
    ];
    let (carved, slices, granted) = planned(&calls, &[]);
    assert_eq!(carved, [["withheld", "full"], ["slice", "slice"]]);
    assert_eq!(slices, 2);
    assert_eq!(
        (granted.get(&window("a")), granted.get(&window("b"))),
        (Some(&8), Some(&10))
    );
}

#[test]
fn two_calls_for_one_hold_have_one_between_them() {
    let calls = [1, 2].map(|_| whole(vec![ask(1, "a", 3), ask(2, "b", 3)]));
    let (carved, slices, granted) = planned(&calls, &[]);
    assert_eq!(carved, [["slice", "slice"], ["exists", "exists"]]);
    assert_eq!((slices, granted.get(&window("a"))), (2, Some(&3)));
}

#[test]
fn of_a_hold_that_is_there_in_part_nothing_more_is_carved() {
    let calls = [whole(vec![ask(1, "a", 3), ask(2, "b", 3)])];
    let (carved, slices, granted) = planned(&calls, &[2]);
    assert_eq!(carved, [["withheld", "exists"]]);
    assert_eq!((slices, granted.values().sum::<u64>()), (0, 0));
}

#[test]
fn what_is_not_all_or_nothing_is_carved_as_far_as_it_goes() {
    let calls = [Call {
        asks: vec![ask(1, "a", 11), ask(2, "b", 10)],
        all_or_nothing: false,
    }];
    let (carved, slices, granted) = planned(&calls, &[]);
    assert_eq!(carved, [["full", "slice"]]);
    assert_eq!((slices, granted.get(&window("b"))), (1, Some(&10)));
}
