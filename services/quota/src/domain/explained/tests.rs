use octroi_core::{Limit, Period, Window, entitlement::DEFAULT_THRESHOLDS};

use super::*;
use crate::domain::{
    decision::{Attempt, Level, decide, deny_for_features},
    limits::EffectiveLimit,
};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn units(amount: u64) -> Units {
    Units::new(amount).expect("an amount")
}

fn metric() -> MetricSlug {
    MetricSlug::parse("api.requests").expect("a slug")
}

/// A limit of 100 an hour of which 5 are asked.
fn hour(change: impl FnOnce(&mut EffectiveLimit)) -> Asked {
    let mut effective = EffectiveLimit {
        limit: Limit {
            metric: metric(),
            period: Period::Hour,
            amount: units(100),
            mode: LimitMode::Hard,
            ceiling: None,
            unreachable_policy: UnreachablePolicy::Deny,
            thresholds: DEFAULT_THRESHOLDS.to_vec(),
        },
        stage_factor_percent: 100,
        plan_amount: units(100),
        replaced_by: None,
    };
    change(&mut effective);
    Asked {
        effective: Arc::new(effective),
        window: Window {
            start: at("2026-03-01T10:00:00Z"),
            end: at("2026-03-01T11:00:00Z"),
        },
        amount: units(5),
    }
}

fn terms() -> Terms {
    Terms {
        plan: PlanSlug::parse("free").expect("a slug"),
        plan_version: 1,
        entitlements_version: 0,
        stage: Stage::Current,
        account_revision: 1,
        catalog_version: 3,
    }
}

/// A decision over these limits with what is used and held of each.
fn explained(asked: &[Asked], levels: &[(u64, u64)], attempt: Attempt) -> Explained {
    let now = at("2026-03-01T10:30:00.5Z");
    let levels: Vec<Level> = (levels.iter())
        .map(|(used, held)| Level {
            used: units(*used),
            held: units(*held),
        })
        .collect();
    let decision = decide(format!("{:032x}", 7), asked, &levels, attempt, now);
    with_basis(decision, asked, terms(), now)
}

fn with_basis(decision: Decision, asked: &[Asked], terms: Terms, now: Timestamp) -> Explained {
    let decision = Decision {
        basis: Some(Arc::new(Basis {
            terms,
            asked: asked.to_vec(),
            decided_at: now,
            counts_at: now,
            recording: Recording::Durable,
        })),
        ..decision
    };
    let question = Question {
        account: AccountId::parse("acme").expect("an id"),
        caller: "app".into(),
        request: Some(RequestId::parse("r-1").expect("an id")),
        action: Action::Consume,
        items: vec![Item {
            metric: metric(),
            amount: units(5),
        }],
    };
    Explained::new(question, &decision, now)
}

#[test]
fn a_denial_says_what_stood_in_the_way_and_when_to_come_again() {
    let plain = hour(|_| {});
    for (asked, level, sentence) in [
        (
            plain.clone(),
            (98, 0),
            "Denied because the limit of an hour would be passed: 98 of 100 units of api.requests were used this hour, \
             and 5 were asked for. It would fit from 2026-03-01T11:00:00Z on.",
        ),
        (
            plain.clone(),
            (50, 48),
            "Denied because only holds stand in the way: 50 of 100 units of api.requests were used this hour, 48 were \
             held, and 5 were asked for. It would fit from 2026-03-01T11:00:00Z on.",
        ),
        (
            Asked {
                amount: units(101),
                ..plain.clone()
            },
            (1, 0),
            "Denied because the limit of an hour would be passed: 1 of 100 units of api.requests was used this hour, \
             and 101 were asked for. It would not fit into an empty window either.",
        ),
        (
            plain,
            (90, 0),
            "Denied because the limit of an hour would be passed: 90 of 100 units of api.requests were used this hour, \
             and 5 were asked for; what was left was set aside for other requests at that moment. It would fit from \
             2026-03-01T11:00:00Z on.",
        ),
    ] {
        let explained = explained(&[asked], &[level], Attempt::Refused);
        assert_eq!(explained.sentence(None), sentence);
    }
}

#[test]
fn an_override_and_a_stage_are_told_of() {
    let replaced = hour(|effective| {
        effective.plan_amount = units(60);
        effective.replaced_by = Some(LimitOverride {
            amount: units(100),
            expires_at: Some(at("2026-03-02T00:00:00Z")),
            note: "goodwill; ticket 7".into(),
        });
    });
    let allowed = explained(std::slice::from_ref(&replaced), &[(80, 0)], Attempt::Took);
    assert_eq!(
        allowed.sentence(None),
        "Allowed: with these 80 of 100 units of api.requests were used this hour, and 5 were asked for. An override of \
         100 until 2026-03-02T00:00:00Z (\"goodwill; ticket 7\") replaced the plan's limit of 60."
    );
    assert_eq!(allowed.worth(), Worth::Some(Some(&metric())));

    let reduced = hour(|effective| effective.stage_factor_percent = 25);
    let now = at("2026-03-01T10:30:00Z");
    let decision = decide(
        "d".into(),
        std::slice::from_ref(&reduced),
        &[Level::default()],
        Attempt::Took,
        now,
    );
    let terms = Terms {
        stage: Stage::Restricted,
        ..terms()
    };
    let sentence = with_basis(decision, &[reduced], terms, now).sentence(None);
    assert!(
        sentence.ends_with("The account is restricted, which leaves 25 % of the limit."),
        "{sentence}"
    );
}

#[test]
fn missing_features_are_named_with_the_plans_that_have_them() {
    let plans = |names: &[&str]| {
        names
            .iter()
            .map(|name| PlanSlug::parse(name).expect("a slug"))
            .collect()
    };
    let missing = |plans| octroi_core::FeaturePlans {
        feature: octroi_core::FeatureSlug::parse("premium.templates").expect("a slug"),
        plans,
    };
    for (names, end) in [
        (&[][..], "which no plan has."),
        (&["pro"], "which pro has."),
        (&["starter", "plus", "pro"], "which starter, plus and pro have."),
    ] {
        let decision = deny_for_features("d".into(), &[], &[], vec![missing(plans(names))]);
        let explained = with_basis(decision, &[], terms(), Timestamp::UNIX_EPOCH);
        let sentence = explained.sentence(None);
        assert_eq!(
            sentence,
            format!("Denied because the plan free lacks premium.templates, {end}")
        );
        assert_eq!(explained.worth(), Worth::Some(None));
    }
}

#[test]
fn shadows_degradation_repeats_and_the_end_of_a_hold_are_told() {
    let shadow = hour(|effective| effective.limit.mode = LimitMode::Shadow);
    let mut one = explained(&[hour(|_| {}), shadow], &[(6, 0), (106, 0)], Attempt::Took);
    one.decision.repeated_request = true;
    let sentence = one.sentence(None);
    assert!(
        sentence.contains(
            "The shadow limit would have denied: 106 of 100 units of api.requests were used this hour."
        ),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("The request had come before, and this was the answer to it again."),
        "{sentence}"
    );
    assert_eq!(one.worth(), Worth::None);
    one.decision.degraded = true;
    assert!(
        one.sentence(None)
            .starts_with("Allowed without knowing what was used")
    );
    assert_eq!(one.worth(), Worth::All);

    let mut held = explained(&[hour(|_| {})], &[(0, 5)], Attempt::Took);
    held.question.action = Action::Reserve;
    held.expires_at = Some(at("2026-03-01T10:31:00Z"));
    assert_eq!(held.worth(), Worth::All);
    assert!(
        held.sentence(None)
            .ends_with("The hold was promised until 2026-03-01T10:31:00Z.")
    );
    let end = HoldEnd {
        account: held.question.account.clone(),
        hold: Uuid::nil(),
        state: EndState::Committed,
        at: at("2026-03-01T10:30:40Z"),
        items: vec![Used {
            metric: metric(),
            amount: units(7),
            overrun: units(2),
        }],
        late: false,
    };
    let sentence = held.sentence(Some(&end));
    assert!(
        sentence.ends_with(
            "The hold was committed at 2026-03-01T10:30:40Z, with 7 of api.requests (2 beyond the limits)."
        ),
        "{sentence}"
    );
}

#[test]
fn a_record_is_read_as_it_was_written_down() {
    let explained = explained(&[hour(|_| {})], &[(98, 0)], Attempt::Refused);
    let record = Record::Decision(Box::new(explained));
    let text = serde_json::to_string(&record).expect("JSON");
    assert_eq!(serde_json::from_str::<Record>(&text).expect("a record"), record);
    assert_eq!(record.number(), Some(7));
}

#[test]
fn only_a_decisions_id_is_a_number() {
    assert_eq!(number(&hex::encode(u128::MAX.to_be_bytes())), Some(u128::MAX));
    for id in ["", "7", "g0000000000000000000000000000000", &"0".repeat(34)] {
        assert_eq!(number(id), None, "{id}");
    }
}
