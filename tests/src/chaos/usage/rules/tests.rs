use super::{
    super::oracle::{Backlog, Figures, Forgery, Limit, Rollup, Window},
    *,
};

const ACCOUNT: &str = "acme";
const METRIC: &str = "api.requests";

fn event(amount: u64) -> Event {
    Event {
        account: 0,
        metric: METRIC,
        amount,
        at_ms: 1_000,
        region: Some("eu"),
    }
}

fn fate(sent: u32, new: u32, duplicate: u32) -> Fate {
    Fate {
        sent,
        new,
        duplicate,
        refused: None,
    }
}

/// Three events: one was told twice that it is there, one was never told anything, one was not sent.
fn log() -> Log {
    Log {
        accounts: vec![ACCOUNT.to_owned(), "other".to_owned()],
        events: vec![event(4), event(5), event(6)],
        fates: vec![fate(3, 1, 1), fate(2, 0, 0), fate(0, 0, 0)],
        ..Log::default()
    }
}

fn entry(place: usize, amount: u64) -> Entry {
    Entry {
        event_id: event_id(place),
        account: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        amount,
        at_ms: 1_000,
        region: Some("eu".to_owned()),
    }
}

fn threshold(percent: u32) -> Threshold {
    Threshold {
        account: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        period: "hour".to_owned(),
        start: 0,
        percent,
    }
}

/// What is found where all is as it must be, of the events in the ledger.
fn found(ledger: Vec<Entry>) -> Found {
    let amount = ledger.iter().map(|entry| entry.amount).sum();
    let figures = Figures {
        events: ledger.len() as u64,
        amount,
    };
    let rollup = Rollup {
        bucket: "day".to_owned(),
        ledger: figures,
        rollup: figures,
    };
    let window = Window {
        account: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        period: "hour".to_owned(),
        start: 0,
        used: amount,
        overrun: amount,
        ledger: amount,
    };
    let limit = Limit {
        metric: METRIC.to_owned(),
        period: "hour".to_owned(),
        amount: 100,
    };
    Found {
        ledger,
        rollups: vec![rollup],
        totals: BTreeMap::from([((ACCOUNT.to_owned(), METRIC.to_owned()), amount)]),
        limits: vec![limit],
        windows: vec![window],
        settled: Some(std::time::Duration::from_millis(10)),
        ..Found::default()
    }
}

fn usual() -> Found {
    found(vec![entry(0, 4)])
}

/// The rules that the log and what was found break.
fn broken(log: &Log, found: &Found) -> Vec<&'static str> {
    let verdicts = judge(log, found).into_iter();
    verdicts
        .filter(|verdict| !verdict.violations.is_empty())
        .map(|verdict| verdict.invariant)
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn what_is_as_it_must_be_breaks_no_rule() {
    assert_eq!(broken(&log(), &usual()), NONE);
    let unanswered = found(vec![entry(0, 4), entry(1, 5)]);
    assert_eq!(broken(&log(), &unanswered), NONE, "it may be there");
    assert_eq!(counts(&judge(&log(), &unanswered)), [0, 0, 0]);
}

#[test]
fn a_lost_event_is_found() {
    let lost = found(Vec::new());
    assert_eq!(broken(&log(), &lost), [MISSING]);
    assert_eq!(counts(&judge(&log(), &lost)), [1, 0, 0]);
    for told in [fate(1, 1, 0), fate(1, 0, 1)] {
        let mut log = log();
        log.fates[0] = told;
        assert_eq!(broken(&log, &found(Vec::new())), [MISSING]);
    }
}

#[test]
fn a_doubled_event_is_found() {
    let doubled = found(vec![entry(0, 4), entry(0, 4)]);
    assert_eq!(broken(&log(), &doubled), [DOUBLE]);
    assert_eq!(counts(&judge(&log(), &doubled)), [0, 1, 0]);
    let unanswered = found(vec![entry(0, 4), entry(1, 5), entry(1, 5)]);
    assert_eq!(broken(&log(), &unanswered), [DOUBLE]);
}

#[test]
fn an_invented_event_is_found() {
    let never_sent = found(vec![entry(0, 4), entry(2, 6)]);
    assert_eq!(broken(&log(), &never_sent), [INVENTED]);
    assert_eq!(counts(&judge(&log(), &never_sent)), [0, 0, 1]);
    let mut unknown = entry(0, 4);
    for id in ["e-3", "e-", "x-1"] {
        unknown.event_id = id.to_owned();
        let found = found(vec![entry(0, 4), unknown.clone()]);
        assert_eq!(broken(&log(), &found), [INVENTED], "{id}");
    }
}

#[test]
fn other_content_is_found() {
    let changes: [fn(&mut Entry); 5] = [
        |entry| entry.amount = 5,
        |entry| entry.at_ms = 1_001,
        |entry| entry.region = None,
        |entry| entry.metric = "exports.run".to_owned(),
        |entry| entry.account = "other".to_owned(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = entry(0, 4);
        change(&mut changed);
        assert_eq!(broken(&log(), &found(vec![changed])), [INVENTED], "{number}");
    }
}

#[test]
fn an_event_that_is_told_to_be_new_again_is_found() {
    let mut log = log();
    log.fates[0] = fate(2, 2, 0);
    assert_eq!(broken(&log, &usual()), [NEW_ONCE]);
}

#[test]
fn a_refusal_is_found_and_so_is_a_forgery_that_is_not_refused() {
    let mut refused = log();
    refused.fates[1].refused = Some("METRIC_NOT_FOUND".to_owned());
    assert_eq!(broken(&refused, &usual()), [REFUSED]);
    for (told, expected) in [
        (Told::Refused("EVENT_ID_REUSED".to_owned()), &NONE[..]),
        (Told::Nothing("away".to_owned()), &NONE[..]),
        (Told::Refused("FIELD_INVALID".to_owned()), &[FORGED]),
        (Told::Duplicate, &[FORGED]),
        (Told::New, &[FORGED]),
    ] {
        let mut forged = log();
        forged.forgeries = vec![Forgery {
            event: 0,
            told: told.clone(),
        }];
        assert_eq!(broken(&forged, &usual()), expected, "{told:?}");
    }
}

#[test]
fn a_key_without_its_event_is_found_and_an_event_without_its_key() {
    for keys_apart in [(1, 0), (0, 1)] {
        let found = Found {
            keys_apart,
            ..usual()
        };
        assert_eq!(broken(&log(), &found), [KEYS]);
    }
}

#[test]
fn sums_that_differ_from_the_ledger_are_found() {
    let mut rolled = usual();
    rolled.rollups[0].rollup.events += 1;
    assert_eq!(broken(&log(), &rolled), [ROLLUPS]);
    let mut rolled = usual();
    rolled.rollups[0].rollup.amount -= 1;
    assert_eq!(broken(&log(), &rolled), [ROLLUPS]);
    let changes: [fn(&mut Window); 3] = [
        |window| window.used += 1,
        |window| window.overrun += 1,
        |window| window.ledger += 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut found = usual();
        change(&mut found.windows[0]);
        assert_eq!(broken(&log(), &found), [WINDOWS], "{number}");
    }
    let mut found = usual();
    found.windows.clear();
    assert_eq!(broken(&log(), &found), [WINDOWS], "no window has it");
}

/// A window that reached 96 % of its limit.
fn reached() -> (Log, Found) {
    let mut log = log();
    log.events[0].amount = 96;
    let crossed = BTreeSet::from([threshold(80), threshold(95)]);
    let found = Found {
        crossed,
        fired: BTreeSet::from([threshold(95)]),
        told: vec![threshold(95)],
        ..found(vec![entry(0, 96)])
    };
    (log, found)
}

#[test]
fn thresholds_are_told_once_and_only_where_they_were_reached() {
    let (log, right) = reached();
    assert_eq!(broken(&log, &right), NONE, "of a jump the highest is told");
    let changes: [fn(&mut Found); 7] = [
        |found| found.told.push(threshold(95)),
        |found| found.told.push(threshold(80)),
        |found| found.told.clear(),
        |found| {
            found.told.clear();
            found.fired.clear();
        },
        |found| found.crossed.retain(|one| *one != threshold(80)),
        |found| found.crossed.extend([threshold(100)]),
        |found| found.told = vec![threshold(100)],
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut found = right.clone();
        change(&mut found);
        assert_eq!(broken(&log, &found), [THRESHOLDS], "{number}");
    }
    let mut each = right;
    each.fired.insert(threshold(80));
    each.told.push(threshold(80));
    assert_eq!(broken(&log, &each), NONE, "each step may tell of its own");
}

#[test]
fn what_is_left_to_be_done_is_found() {
    let backlogs = [
        Backlog {
            lag: 1,
            ..Backlog::default()
        },
        Backlog {
            lag: -1,
            ..Backlog::default()
        },
        Backlog {
            outbox: 1,
            ..Backlog::default()
        },
        Backlog {
            waiting: 1,
            ..Backlog::default()
        },
    ];
    for backlog in backlogs {
        let found = Found {
            backlog: backlog.clone(),
            ..usual()
        };
        assert_eq!(broken(&log(), &found), [BACKLOG], "{backlog:?}");
    }
}

#[test]
fn poison_is_a_dead_letter_of_every_queue_and_nothing_else_is() {
    let one = || BTreeSet::from(["poison-1".to_owned()]);
    let mut poisoned = log();
    poisoned.poison = one();
    let dead = |rollup: BTreeSet<String>, windows: BTreeSet<String>| Found {
        dead: BTreeMap::from([(QUEUES[0].to_owned(), rollup), (QUEUES[1].to_owned(), windows)]),
        ..usual()
    };
    assert_eq!(broken(&poisoned, &dead(one(), one())), NONE);
    assert_eq!(broken(&poisoned, &dead(one(), BTreeSet::new())), [DEAD]);
    assert_eq!(broken(&poisoned, &usual()), [DEAD]);
    let others = BTreeSet::from(["a commit".to_owned(), "poison-1".to_owned()]);
    assert_eq!(broken(&poisoned, &dead(others, one())), [DEAD]);
}

#[test]
fn what_does_not_settle_is_found() {
    for settled in [None, Some(SETTLES_WITHIN + std::time::Duration::from_millis(1))] {
        let found = Found { settled, ..usual() };
        assert_eq!(broken(&log(), &found), [SETTLED]);
    }
}
