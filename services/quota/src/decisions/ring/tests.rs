use octroi_core::{
    Aggregation, Limit, LimitMode, MetricSlug, Period, PlanSlug, Recording, Stage, UnreachablePolicy, Window,
    entitlement::DEFAULT_THRESHOLDS,
};

use super::*;
use crate::domain::{
    check::decision_id,
    decision::{Asked, Attempt, decide},
    explained::{Action, Terms, Worth},
    holding::Revision,
    limits::{EffectiveLimit, LimitOverride},
    plan::PlannedMetric,
};

fn units(amount: u64) -> Units {
    Units::new(amount).expect("an amount")
}

fn metric(name: &str) -> MetricSlug {
    MetricSlug::parse(name).expect("a slug")
}

fn asked(name: &str, replaced_by: Option<LimitOverride>) -> Asked {
    Asked {
        effective: Arc::new(EffectiveLimit {
            limit: Limit {
                metric: metric(name),
                period: Period::Hour,
                amount: units(100),
                mode: LimitMode::Hard,
                ceiling: None,
                unreachable_policy: UnreachablePolicy::Deny,
                thresholds: DEFAULT_THRESHOLDS.to_vec(),
            },
            stage_factor_percent: 100,
            plan_amount: units(60),
            replaced_by,
        }),
        window: Window {
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
        },
        amount: Units::ZERO,
    }
}

fn plan(replaced_by: Option<&LimitOverride>) -> Arc<Plan> {
    let planned = |name: &str| PlannedMetric {
        metric: metric(name),
        recording: Recording::Buffered,
        aggregation: Aggregation::Sum,
        asked: vec![asked(name, replaced_by.cloned())],
        keys: Vec::new(),
    };
    Arc::new(Plan {
        metrics: Arc::from([planned("clicks"), planned("views")]),
        revision: Revision {
            account: 2,
            catalog: 3,
        },
        terms: Terms {
            plan: PlanSlug::parse("free").expect("a slug"),
            plan_version: 1,
            entitlements_version: 0,
            stage: Stage::Current,
            account_revision: 2,
            catalog_version: 3,
        },
        is_overridden: replaced_by.is_some(),
        valid_until: Timestamp::MAX,
    })
}

fn check<'r>(items: &[(&'r str, u64)], request: Option<&'r str>) -> QuickCheck<'r> {
    QuickCheck {
        account: "acme",
        items: items
            .iter()
            .map(|(name, amount)| (*name, units(*amount)))
            .collect(),
        request,
    }
}

fn made(plan: &Arc<Plan>, check: &QuickCheck<'_>, used: u64, at: Timestamp) -> FromMemory {
    let of_item = |(name, amount): &(&str, Units)| {
        let planned = plan.metric(name).expect("a metric");
        planned
            .asked
            .iter()
            .map(|one| Asked {
                amount: *amount,
                ..one.clone()
            })
            .collect::<Vec<_>>()
    };
    let asked: Vec<Asked> = check.items.iter().flat_map(of_item).collect();
    let level = Level {
        used: units(used),
        held: Units::ZERO,
    };
    let attempt = if used > 95 {
        Attempt::Refused
    } else {
        Attempt::Took
    };
    let id = decision_id("acme", "app", check.request.unwrap_or("look"));
    FromMemory {
        decision: decide(id, &asked, &vec![level; asked.len()], attempt, at),
        account: AccountId::parse("acme").expect("an id"),
        plan: Arc::clone(plan),
        at,
    }
}

fn find(ring: &Ring, request: &str, now: Timestamp) -> Option<Explained> {
    ring.find(
        number(&decision_id("acme", "app", request)).expect("a number"),
        None,
        now,
    )
}

#[test]
fn what_was_decided_from_memory_is_told_as_it_was() {
    let (ring, plan, at) = (Ring::new(160), plan(None), Timestamp::UNIX_EPOCH);
    let longest = "r".repeat(RequestId::LENGTH_MAX);
    for (request, items, used) in [
        ("r-1", &[("views", 5), ("clicks", 2)][..], 7),
        ("r-2", &[("clicks", 3)], 98),
        (&longest, &[("views", 1)], 1),
    ] {
        let check = check(items, Some(request));
        let made = made(&plan, &check, used, at);
        assert!(ring.fits(&check, &made));
        let expected = made.with_basis(&check.items);
        let decision = ring.push(&check, "app", made);
        let found = find(&ring, request, at).expect("a decision");
        let question = question(
            AccountId::parse("acme").expect("an id"),
            "app",
            Some(request),
            found.question.items.clone(),
        );
        assert_eq!(found, Explained::new(question, &expected, at));
        assert_eq!(found.decision, decision);
        let named: Vec<(&str, u64)> = found
            .question
            .items
            .iter()
            .map(|item| (item.metric.as_str(), item.amount.get()))
            .collect();
        assert_eq!(named, items);
        assert_eq!(found.question.action, Action::Consume);
        assert_eq!(
            found.question.request.as_ref().map(RequestId::as_str),
            Some(request)
        );
        assert_eq!(found.ground.map(|ground| ground.terms), Some(plan.terms.clone()));
    }
    let look = check(&[("clicks", 1)], None);
    let _ = ring.push(&look, "app", made(&plan, &look, 1, at));
    let found = find(&ring, "look", at).expect("a decision");
    assert_eq!(
        (found.question.action, found.question.request),
        (Action::Peek, None)
    );
}

#[test]
fn a_decision_goes_after_its_time_and_is_of_one_account() {
    let (ring, plan, at) = (Ring::new(160), plan(None), Timestamp::UNIX_EPOCH);
    let check = check(&[("clicks", 1)], Some("r-1"));
    let _ = ring.push(&check, "app", made(&plan, &check, 1, at));
    assert!(find(&ring, "r-1", at + REMEMBERED).is_some());
    assert!(find(&ring, "r-1", at + REMEMBERED + SignedDuration::from_secs(1)).is_none());
    let id = number(&decision_id("acme", "app", "r-1")).expect("a number");
    let other = AccountId::parse("other").expect("an id");
    assert!(ring.find(id, Some(&other), at).is_none());
}

#[test]
fn the_oldest_give_way_where_memory_ends() {
    let (ring, plan, at) = (Ring::new(64), plan(None), Timestamp::UNIX_EPOCH);
    for request in 0..1_000 {
        let request = format!("r-{request}");
        let check = check(&[("clicks", 1)], Some(&request));
        let _ = ring.push(&check, "app", made(&plan, &check, 1, at));
    }
    let kept = (0..1_000)
        .filter(|request| find(&ring, &format!("r-{request}"), at).is_some())
        .count();
    assert_eq!(kept, 64);
    assert!(find(&ring, "r-999", at).is_some());
    assert!(find(&ring, "r-0", at).is_none());
    let callers: Vec<usize> = ring
        .shards
        .iter()
        .map(|shard| shard.lock().expect("no panic").callers.len())
        .collect();
    assert!(callers.iter().all(|count| *count == 1));
}

#[test]
fn what_is_too_large_is_not_kept_here() {
    let (ring, plan) = (Ring::new(64), plan(None));
    let check = check(&[("clicks", 1); ITEMS + 1], Some("r-1"));
    let made = made(&plan, &check, 1, Timestamp::UNIX_EPOCH);
    assert!(!ring.fits(&check, &made));
}

#[test]
fn denials_and_what_an_override_changed_are_worth_writing_down() {
    let at = Timestamp::UNIX_EPOCH;
    let replaced = LimitOverride {
        amount: units(100),
        expires_at: None,
        note: "why".into(),
    };
    let clicks = metric("clicks");
    for (plan, used, expected) in [
        (plan(None), 1, Worth::None),
        (plan(None), 99, Worth::Some(Some(&clicks))),
        (plan(Some(&replaced)), 1, Worth::Some(Some(&clicks))),
    ] {
        let check = check(&[("clicks", 5)], Some("r-1"));
        let made = made(&plan, &check, used, at);
        assert_eq!(made.worth(), expected);
        let explained = Explained::new(
            question(made.account.clone(), "app", Some("r-1"), Vec::new()),
            &made.with_basis(&check.items),
            at,
        );
        assert_eq!(explained.worth(), expected, "whichever way it is kept");
    }
}
