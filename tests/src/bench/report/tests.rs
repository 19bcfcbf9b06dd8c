use super::*;
use crate::bench::rounds::Against;

fn figure(value: f64) -> Figure {
    Figure {
        value: Spread::of([value].into_iter()),
        against: None,
    }
}

fn compared(value: f64, baseline: f64, ratio: f64) -> Figure {
    Figure {
        against: Some(Against {
            baseline: Spread::of([baseline].into_iter()),
            ratio: Spread {
                median: ratio,
                min: 0.5,
                max: 1.25,
            },
        }),
        ..figure(value)
    }
}

fn report(dir: &Path, targets: &[Target]) -> Report {
    Report::new("test", dir, targets).expect("a directory of ours")
}

fn now() -> Timestamp {
    "2026-11-27T12:00:00Z".parse().expect("an instant")
}

#[test]
fn met_is_computed_from_what_the_file_says() {
    let rate = Unit::RequestsPerSecond;
    for (unit, figure, target, met) in [
        // Of a rate at least, of a cost at most.
        (rate, figure(100.0), Some(100.0), true),
        (rate, figure(99.9), Some(100.0), false),
        (Unit::CpuMicrosPerRequest, figure(4.0), Some(4.0), true),
        (Unit::CpuMicrosPerRequest, figure(4.1), Some(4.0), false),
        // Where there is a ratio, it is what counts.
        (rate, compared(50.0, 100.0, 0.9), Some(0.9), true),
        (rate, compared(900.0, 100.0, 0.89), Some(0.9), false),
        (Unit::Micros, compared(900.0, 100.0, 1.1), Some(1.2), true),
        // As written: 0.8996 is 0.9, and 0.8994 is not.
        (rate, compared(1.0, 1.0, 0.899_6), Some(0.9), true),
        (rate, compared(1.0, 1.0, 0.899_4), Some(0.9), false),
        (rate, figure(0.0), None, true),
    ] {
        let row = Row::new("case", unit, &figure, target);
        assert_eq!(row.met, met, "{row:?}");
    }
}

#[test]
fn the_file_has_a_row_a_case_in_the_shape_that_all_benches_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let targets = [Target {
        case: "ours",
        bound: 0.9,
    }];
    let mut report = report(dir.path(), &targets);
    report
        .add(
            "ours",
            Unit::RequestsPerSecond,
            &compared(64_000.0, 68_000.0, 0.941_2),
        )
        .expect("a row");
    report
        .add("latency, p99", Unit::Micros, &figure(812.5))
        .expect("a row");
    report.finish(now()).expect("complete");
    let text = fs::read_to_string(dir.path().join("test.json")).expect("written");
    let expected = serde_json::json!([
        {"case": "ours", "value": 64_000.0, "unit": "requests/s", "baseline": 68_000.0, "ratio": 0.941,
         "target": 0.9, "met": true},
        {"case": "latency, p99", "value": 812.5, "unit": "µs", "baseline": null, "ratio": null,
         "target": null, "met": true},
    ]);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(rows, expected);
    let table = fs::read_to_string(dir.path().join("test.txt")).expect("written");
    assert!(table.starts_with("bench-test, 2026-11-27, "), "{table}");
    assert!(table.contains("0.94 (0.50–1.25)  ≥ 0.90  yes"), "{table}");
}

#[test]
fn a_target_is_reached_only_where_what_it_rests_on_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let targets = ["held", "broken"].map(|case| Target { case, bound: 1.0 });
    let mut report = report(dir.path(), &targets);
    for (case, holds) in [("held", true), ("broken", false), ("informs", false)] {
        report
            .add_where(case, Unit::Micros, &figure(0.5), holds)
            .expect("a row");
    }
    let met: Vec<bool> = report.rows.iter().map(|row| row.met).collect();
    assert_eq!(met, [true, false, true]);
}

#[test]
fn a_target_without_a_row_is_a_failure_and_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("test.json");
    fs::write(&path, "[]").expect("ours");
    let targets = ["measured", "forgotten"].map(|case| Target { case, bound: 1.0 });
    let mut report = report(dir.path(), &targets);
    report.add("measured", Unit::Micros, &figure(0.5)).expect("a row");
    let error = report.finish(now()).expect_err("incomplete");
    assert!(error.to_string().contains("[\"forgotten\"]"), "{error}");
    assert!(!path.exists(), "figures of an older run are gone");
}

#[test]
fn a_case_has_one_row_and_it_is_a_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut report = report(dir.path(), &[]);
    report.add("one", Unit::Micros, &figure(1.0)).expect("a row");
    assert!(report.add("one", Unit::Micros, &figure(1.0)).is_err());
    let nothing = Figure {
        value: Spread::of(std::iter::empty()),
        against: None,
    };
    assert!(report.add("nothing", Unit::Micros, &nothing).is_err());
}
