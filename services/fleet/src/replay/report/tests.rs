//! Verdicts and how they are shown.

use super::*;

fn metric(slug: &str) -> MetricSlug {
    MetricSlug::parse(slug).expect("a slug")
}

fn totals(all: &[(&str, u64, u64)]) -> Totals {
    Totals(
        all.iter()
            .map(|(slug, amount, events)| {
                (
                    metric(slug),
                    Total {
                        amount: *amount,
                        events: *events,
                    },
                )
            })
            .collect(),
    )
}

fn good() -> Report {
    let mut report = Report {
        file: "f.csv".to_owned(),
        lines: 1_234,
        accounts: 2,
        plan: "replay".to_owned(),
        sent: 2_468,
        recorded: 2_468,
        file_totals: totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_234)]),
        ledger_totals: Some(totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_234)])),
        ..Report::default()
    };
    report.time(Duration::from_millis(2_000));
    report.judge();
    report
}

#[test]
fn numbers_are_grouped_by_thousands() {
    let texts: Vec<String> = [0, 7, 999, 1_000, 22_361_870].into_iter().map(grouped).collect();
    assert_eq!(texts, ["0", "7", "999", "1,000", "22,361,870"]);
}

#[test]
fn a_replay_is_complete_when_the_ledger_has_it_all() {
    assert!(good().is_complete());
    let check = |change: fn(&mut Report), complete: bool| {
        let mut report = good();
        change(&mut report);
        report.judge();
        assert_eq!(report.is_complete(), complete, "{report:?}");
    };
    check(
        |report| report.ledger_totals = Some(totals(&[("a", 1_234, 1_234)])),
        false,
    );
    check(
        |report| report.ledger_totals = Some(totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_233)])),
        false,
    );
    check(|report| report.ledger_totals = None, false);
    check(
        |report| (report.ledger_totals, report.dry_run) = (None, true),
        true,
    );
    check(|report| report.refused = 1, false);
    check(|report| report.malformed = 1, true);
    check(
        |report| report.problem = Some("the file changed".to_owned()),
        false,
    );
    check(
        |report| {
            report.stopped = Some(Stopped {
                line: 7,
                why: "gone".to_owned(),
            })
        },
        false,
    );
    check(
        |report| {
            report.allowed_totals = Some(totals(&[("a", 5, 5)]));
            report.ledger_totals = Some(totals(&[("a", 5, 5), ("b", 0, 0)]));
        },
        true,
    );
}

#[test]
fn what_others_recorded_is_neither_missed_nor_counted() {
    // Before, allowed, recorded by this run, unsure, after.
    let check = |parts: [u64; 5], good: bool| {
        let [before, allowed, recorded, unsure, after] = parts.map(|amount| totals(&[("a", amount, amount)]));
        let mut report = Report {
            check: true,
            allowed_totals: Some(allowed),
            recorded_totals: Some(recorded),
            unsure_totals: Some(unsure),
            ledger_totals_before: Some(before),
            ledger_totals: Some(after),
            ..good_file()
        };
        report.judge();
        assert_eq!(report.is_complete(), good, "{parts:?}");
    };
    check([7, 5, 5, 0, 12], true);
    check([7, 5, 5, 0, 11], false);
    check([7, 5, 5, 0, 13], false);
    // A repeated run adds nothing.
    check([12, 5, 0, 0, 12], true);
    check([12, 5, 0, 0, 13], false);
    // An answer was lost: one of the five may have been there before.
    check([7, 5, 4, 1, 11], true);
    check([7, 5, 4, 1, 12], true);
    check([7, 5, 4, 1, 13], false);
    // What was allowed must be there, whoever recorded it.
    check([3, 5, 0, 0, 3], false);
}

fn good_file() -> Report {
    Report {
        file_totals: Totals::default(),
        ..good()
    }
}

#[test]
fn thresholds_that_may_still_come_are_told() {
    let report = Report {
        thresholds_crossed: 1_200,
        thresholds_incomplete: true,
        ..good()
    };
    let table = report.table();
    assert!(
        table.contains(
            "\nthresholds   1,200 crossed so far; the fleet was not done when we stopped to wait\n"
        ),
        "{table}"
    );
}

#[test]
fn the_table_says_what_happened() {
    let expected = "\
file         f.csv
lines        1,234
accounts     2, plan replay
sent         2,468 events in 2.0 s, 1,234 a second
recorded     2,468
duplicates   0
allowed      not asked
denied       not asked
thresholds   0 crossed

metric         file amount     file events       ledger amount   ledger events
a                    1,234           1,234               1,234           1,234  equal
b                9,876,543           1,234           9,876,543           1,234  equal
";
    assert_eq!(good().table(), expected);
}

#[test]
fn a_table_of_a_stopped_check_names_denials_and_the_line() {
    let report = Report {
        check: true,
        allowed: 3,
        denied: BTreeMap::from([(metric("a"), 1_000), (metric("b"), 2)]),
        stopped: Some(Stopped {
            line: 7,
            why: "the run was stopped".to_owned(),
        }),
        ..good()
    };
    let table = report.table();
    assert!(
        table.contains("denied       1,002 lines: a 1,000, b 2\n"),
        "{table}"
    );
    assert!(table.ends_with(
        "\nstopped at line 7: the run was stopped; run it again to go on, which adds nothing twice\n"
    ));
}

#[test]
fn the_json_object_keeps_its_keys() {
    let value = serde_json::to_value(good()).expect("JSON");
    for key in [
        "lines",
        "malformed",
        "accounts",
        "sent",
        "recorded",
        "duplicates",
        "allowed",
        "events_per_s",
    ] {
        assert!(value[key].is_u64(), "{key}");
    }
    assert!(
        value["denied"].is_object() && value["elapsed_s"].is_f64() && value["thresholds_crossed"].is_u64()
    );
    assert_eq!(value["match"], true);
    assert_eq!(value["file_totals"]["b"]["amount"], 9_876_543);
    assert_eq!(value["ledger_totals"]["a"]["events"], 1_234);
}
