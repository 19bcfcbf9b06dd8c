use super::{
    super::oracle::{Attempt, End, Hold, Kind, Limit, WindowRow},
    *,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn request(id: &str, amount: u64, attempts: &[(u64, u64, Told)]) -> Request {
    let attempts = attempts.iter().map(|(sent, answered, told)| Attempt {
        replica: 1,
        sent: ms(*sent),
        answered: ms(*answered),
        told: *told,
    });
    Request {
        attempts: attempts.collect(),
        window: Some(0),
        ..Request::new(id.to_owned(), Kind::Consume, amount)
    }
}

/// Reserved at an instant for a second, and ended at another.
fn held(id: &str, amount: u64, at: u64, end: Option<(u64, u64)>) -> Request {
    let end = end.map(|(sent, used)| End {
        used,
        sent: ms(sent),
        answered: Some(ms(sent + 1)),
        overrun: 0,
        late: false,
    });
    Request {
        kind: Kind::Reserve,
        hold: Some(Hold {
            id: format!("hold-{id}"),
            ttl: ms(1_000),
            end,
        }),
        ..request(id, amount, &[(at, at, Told::Yes)])
    }
}

fn limit(sent: u64, amount: u64) -> Limit {
    Limit {
        sent: ms(sent),
        holds: ms(sent + 10),
        amount,
    }
}

fn log(requests: Vec<Request>) -> Log {
    Log {
        requests,
        limits: vec![limit(0, 10)],
        ..Log::default()
    }
}

/// What is found where all is as it must be.
fn found(ledger: &[(&str, u64)]) -> Found {
    let sum = ledger.iter().map(|(_, amount)| amount).sum();
    let entry = |(request, amount): &(&str, u64)| Entry {
        request: (*request).to_owned(),
        amount: *amount,
        window: 0,
    };
    Found {
        ledger: ledger.iter().map(entry).collect(),
        windows: vec![WindowRow {
            period: "hour".to_owned(),
            charged: sum,
            used: sum,
            ledger: sum,
            ..WindowRow::default()
        }],
        standing: vec![(sum, 0); 2],
        used_now: sum,
        limit: 10,
        rest: 10_u64.saturating_sub(sum),
        settled: Some(ms(10)),
        ..Found::default()
    }
}

/// The rules that the log and what was found break.
fn broken(log: &Log, found: &Found) -> Vec<&'static str> {
    let broken = judge(log, found)
        .into_iter()
        .filter(|verdict| !verdict.violations.is_empty());
    broken.map(|verdict| verdict.invariant).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn a_log_as_it_must_be_breaks_no_rule() {
    let requests = vec![
        request("a", 4, &[(1, 2, Told::Yes)]),
        request("b", 3, &[(1, 5, Told::Nothing), (6, 9, Told::Yes)]),
        request("c", 4, &[(7, 8, Told::No)]),
        request("d", 4, &[(7, 8, Told::Nothing)]),
        held("e", 3, 20, Some((30, 1))),
        held("f", 2, 31, Some((32, 0))),
        held("g", 2, 40, None),
        held("h", 2, 1_040, None),
    ];
    let found = found(&[("a", 4), ("b", 3), ("e", 1)]);
    assert_eq!(broken(&log(requests.clone()), &found), NONE);
    assert_eq!(over_admission(&log(requests), &found), 0);
}

#[test]
fn one_unit_above_the_limit_is_found_also_where_it_was_only_held() {
    let consumed = log(vec![
        request("a", 7, &[(1, 2, Told::Yes)]),
        request("b", 4, &[(1, 3, Told::Yes)]),
    ]);
    let after = found(&[("a", 7), ("b", 4)]);
    assert_eq!(broken(&consumed, &after), [ABOVE]);
    assert_eq!(over_admission(&consumed, &after), 1);
    let both_held = log(vec![held("a", 7, 1, Some((9, 0))), held("b", 4, 3, Some((9, 0)))]);
    assert_eq!(broken(&both_held, &found(&[])), [ABOVE]);
    let one_after_the_other = log(vec![held("a", 7, 1, Some((3, 0))), held("b", 4, 3, Some((9, 0)))]);
    assert_eq!(broken(&one_after_the_other, &found(&[])), NONE);
}

#[test]
fn units_of_a_hold_count_until_it_can_have_expired() {
    for (at, expected) in [(999, &[ABOVE][..]), (1_001, &NONE[..])] {
        let log = log(vec![held("a", 7, 0, None), held("b", 4, at, None)]);
        assert_eq!(broken(&log, &found(&[])), expected, "{at}");
    }
    let mut moved = log(vec![held("a", 7, 0, None), held("b", 4, 999, None)]);
    moved.clock_moved = vec![(ms(500), ms(600))];
    assert_eq!(broken(&moved, &found(&[])), NONE);
}

#[test]
fn what_a_commit_found_in_the_limit_counts_and_what_is_overrun_does_not() {
    for (overrun, expected) in [(0, &[ABOVE][..]), (1, &NONE[..])] {
        let mut requests = vec![
            held("a", 3, 1, Some((5, 4))),
            request("b", 7, &[(1, 2, Told::Yes)]),
        ];
        if let Some(end) = requests[0].hold.as_mut().and_then(|hold| hold.end.as_mut()) {
            end.overrun = overrun;
        }
        let mut found = found(&[("a", 4), ("b", 7)]);
        found.windows[0].charged = 11 - overrun;
        found.windows[0].overrun = overrun;
        assert_eq!(broken(&log(requests), &found), expected, "{overrun}");
    }
}

#[test]
fn a_lowered_limit_that_is_not_obeyed_is_found() {
    let mut lowered = log(vec![
        request("a", 6, &[(1, 2, Told::Yes)]),
        request("b", 1, &[(150, 160, Told::Yes)]),
    ]);
    lowered.limits.push(limit(100, 5));
    let after = Found {
        limit: 5,
        rest: 0,
        ..found(&[("a", 6), ("b", 1)])
    };
    assert_eq!(broken(&lowered, &after), [ABOVE]);
    // Sent before it held, it may have been decided before.
    lowered.requests[1].attempts[0].sent = ms(105);
    assert_eq!(broken(&lowered, &after), NONE);
}

#[test]
fn a_raised_limit_does_not_excuse_what_was_answered_before() {
    let mut raised = log(vec![
        request("a", 10, &[(1, 2, Told::Yes)]),
        request("b", 1, &[(90, 99, Told::Yes)]),
    ]);
    raised.limits.push(limit(100, 20));
    let after = Found {
        limit: 20,
        rest: 9,
        ..found(&[("a", 10), ("b", 1)])
    };
    assert_eq!(broken(&raised, &after), [ABOVE]);
    raised.requests[1].attempts[0].answered = ms(100);
    assert_eq!(broken(&raised, &after), NONE);
}

#[test]
fn each_window_has_the_limit_for_itself() {
    let mut two = log(vec![
        request("a", 7, &[(1, 2, Told::Yes)]),
        request("b", 4, &[(1, 3, Told::Yes)]),
    ]);
    two.requests[1].window = Some(3_600);
    let mut after = found(&[("a", 7)]);
    after.ledger.push(Entry {
        request: "b".to_owned(),
        amount: 4,
        window: 3_600,
    });
    after.windows.push(WindowRow {
        start: 3_600,
        charged: 4,
        used: 4,
        ledger: 4,
        ..after.windows[0].clone()
    });
    assert_eq!(broken(&two, &after), NONE);
    // The ledger knows better than a repeat's answer in which it counts.
    after.ledger[1].window = 0;
    assert_eq!(broken(&two, &after), [ABOVE]);
}

#[test]
fn what_was_denied_and_charged_is_found() {
    let denied = log(vec![request("a", 1, &[(1, 2, Told::Nothing), (3, 4, Told::No)])]);
    assert_eq!(broken(&denied, &found(&[("a", 1)])), [DENIED]);
}

#[test]
fn what_is_missing_double_or_another_amount_is_found() {
    let allowed = log(vec![request("a", 2, &[(1, 2, Told::Yes)])]);
    assert_eq!(broken(&allowed, &found(&[])), [RECORDED]);
    assert_eq!(broken(&allowed, &found(&[("a", 1)])), [RECORDED, INVENTED]);
    assert_eq!(broken(&allowed, &found(&[("a", 2), ("a", 2)])), [RECORDED; 1]);
    let used_less = log(vec![held("a", 3, 1, Some((5, 2)))]);
    assert_eq!(broken(&used_less, &found(&[("a", 3)])), [RECORDED, INVENTED]);
}

#[test]
fn what_nobody_asked_for_is_found() {
    let unknown = log(vec![request("a", 2, &[(1, 2, Told::Nothing)])]);
    assert_eq!(broken(&unknown, &found(&[("a", 2)])), NONE, "it may be there");
    assert_eq!(broken(&unknown, &found(&[("b", 2)])), [INVENTED]);
    assert_eq!(broken(&unknown, &found(&[("a", 3)])), [INVENTED]);
    let expired = log(vec![held("a", 2, 1, None)]);
    assert_eq!(broken(&expired, &found(&[("a", 2)])), [RECORDED, INVENTED]);
}

#[test]
fn windows_that_differ_from_the_ledger_are_found() {
    let allowed = log(vec![request("a", 2, &[(1, 2, Told::Yes)])]);
    let wrong: [fn(&mut WindowRow); 6] = [
        |row| row.charged = 1,
        |row| row.overrun = 1,
        |row| row.returned = 1,
        |row| row.open_cap = 1,
        |row| row.held = 1,
        |row| row.used = 3,
    ];
    for (number, change) in wrong.iter().enumerate() {
        let mut found = found(&[("a", 2)]);
        change(&mut found.windows[0]);
        assert_eq!(broken(&allowed, &found), [WINDOWS], "{number}");
    }
    let mut found = found(&[("a", 2)]);
    found.windows.clear();
    assert_eq!(broken(&allowed, &found), [WINDOWS], "no window has it");
}

#[test]
fn a_replica_that_says_something_else_is_found() {
    let allowed = log(vec![request("a", 2, &[(1, 2, Told::Yes)])]);
    for standing in [(1, 0), (3, 0), (2, 1)] {
        let mut found = found(&[("a", 2)]);
        found.standing[1] = standing;
        assert_eq!(broken(&allowed, &found), [STANDING], "{standing:?}");
    }
}

#[test]
fn a_stranded_unit_is_found_and_one_too_many() {
    let allowed = log(vec![request("a", 2, &[(1, 2, Told::Yes)])]);
    for rest in [7, 9] {
        let found = Found {
            rest,
            ..found(&[("a", 2)])
        };
        assert_eq!(broken(&allowed, &found), [STRANDED], "{rest}");
    }
}

#[test]
fn an_overdue_hold_and_what_does_not_settle_are_found() {
    let nothing = log(Vec::new());
    let overdue = Found {
        overdue_holds: 1,
        ..found(&[])
    };
    assert_eq!(broken(&nothing, &overdue), [OVERDUE]);
    for settled in [None, Some(ms(60_001))] {
        let late = Found {
            settled,
            ..found(&[])
        };
        assert_eq!(broken(&nothing, &late), [SETTLED]);
    }
}

#[test]
fn a_buffered_metric_may_lose_what_a_dead_replica_had_and_no_more() {
    let mut answered = log(vec![request("a", 3, &[(1, 2, Told::Yes)])]);
    answered.buffered = true;
    let dead = |stranded: u64| {
        let mut found = found(&[("sum-1", 1)]);
        found.windows[0].open_cap = stranded;
        found.standing = vec![(1, 0); 2];
        found.stranded = stranded;
        found.stranded_max = 5;
        found.rest = 9 - stranded;
        found
    };
    assert_eq!(broken(&answered, &dead(2)), NONE);
    assert_eq!(broken(&answered, &dead(1)), [SUMS], "a unit is gone");
    assert_eq!(broken(&answered, &dead(6)), [STRANDED], "more than a slice");
    let says = |used: u64| Found {
        standing: vec![(used, 0); 2],
        ..dead(2)
    };
    assert_eq!(broken(&answered, &says(0)), [STANDING], "the ledger has more");
    let beyond = "what is out of reach is not used";
    assert_eq!(broken(&answered, &says(3)), [STANDING], "{beyond}");
    answered.requests[0].amount = 0;
    assert_eq!(broken(&answered, &dead(2)), [SUMS], "nobody asked for it");
}
