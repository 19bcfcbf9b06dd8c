use jiff::ToSpan as _;
use octroi_core::Violations;
use proptest::prelude::*;

use super::*;
use crate::domain::buckets::cut;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn metric(slug: &str) -> MetricSlug {
    MetricSlug::parse(slug).expect("a slug")
}

fn query() -> ReportQuery {
    ReportQuery {
        account: AccountId::parse("acme").expect("an id"),
        metrics: vec![metric("api.requests")],
        start_at: at("2026-03-01T00:00:00Z"),
        end_at: at("2026-04-01T00:00:00Z"),
        grain: Grain::Event,
        zone: None,
        filter: Filter::default(),
        columns: Vec::new(),
    }
}

fn event_row() -> EventRow {
    EventRow {
        metric: metric("api.requests"),
        place: Place {
            event_at: at("2026-03-29T00:59:59.5Z"),
            sequence: 7,
        },
        source: Source::parse("app").expect("a source"),
        event_id: EventId::parse("-1, or so").expect("an id"),
        amount: Units::new(3).expect("an amount"),
        properties: BTreeMap::from([
            ("region".into(), "=eu".into()),
            ("tier".into(), "say \"gold\"".into()),
        ]),
        origin: Origin::Decision,
        recorded_at: at("2026-03-29T01:00:00Z"),
    }
}

#[test]
fn a_fingerprint_tells_every_question_from_every_other() {
    let questions = [
        query(),
        ReportQuery {
            account: AccountId::parse("globex").expect("an id"),
            ..query()
        },
        ReportQuery {
            metrics: Vec::new(),
            ..query()
        },
        ReportQuery {
            end_at: query().end_at + 1.microsecond(),
            ..query()
        },
        ReportQuery {
            grain: Grain::Bucket(Period::Day),
            ..query()
        },
        ReportQuery {
            grain: Grain::Bucket(Period::Hour),
            ..query()
        },
        ReportQuery {
            zone: Some("Europe/Paris".into()),
            ..query()
        },
        ReportQuery {
            filter: Filter {
                source: Source::parse("app").ok(),
                ..Filter::default()
            },
            ..query()
        },
        ReportQuery {
            filter: Filter {
                properties: BTreeMap::from([("region".into(), "eu".into())]),
                ..Filter::default()
            },
            ..query()
        },
    ];
    for (place, one) in questions.iter().enumerate() {
        assert_eq!(one.fingerprint().len(), 32);
        for (other_place, other) in questions.iter().enumerate() {
            assert_eq!(
                one.fingerprint() == other.fingerprint(),
                place == other_place,
                "{one:?} {other:?}"
            );
        }
        let written = serde_json::to_string(one).expect("text");
        let read: ReportQuery = serde_json::from_str(&written).expect("what was written");
        assert_eq!(read, *one, "a job keeps its question");
    }
}

#[test]
fn a_cursor_is_what_was_written_of_it() {
    let cursor = Cursor {
        recorded_before: at("2026-03-01T12:00:00.000001Z"),
        position: Position {
            metric: metric("llm.tokens_in"),
            place: Place {
                event_at: at("1969-12-31T23:59:59.999999Z"),
                sequence: i64::MIN,
            },
        },
    };
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
    for text in ["", "1", "1/a", "1/A/1.1", "x/a/1.1", "1/a/1", "1/a/1.1/2"] {
        assert_eq!(text.parse::<Cursor>(), Err(NotAPlace), "{text}");
    }
}

#[test]
fn times_have_the_zone_s_offset_and_cells_are_quoted() {
    let report = Report {
        query: ReportQuery {
            columns: ["region", "plan"]
                .map(|key| PropertyKey::parse(key).expect("a key"))
                .to_vec(),
            ..query()
        },
        metrics: Vec::new(),
        zone: TimeZone::get("Europe/Paris").expect("a zone"),
        recorded_before: at("2026-04-01T00:00:00Z"),
    };
    let mut csv = Csv::default();
    write_header(&mut csv, &report.query);
    write_row(&mut csv, &report, &Row::Event(event_row()));
    let text = String::from_utf8(csv.take(usize::MAX)).expect("text");
    // The clocks of Paris went forward between the two times.
    let expected = "metric,event_time,event_id,source,amount,origin,record_time,properties,property.region,property.plan\r\n\
                    api.requests,2026-03-29T01:59:59.5+01:00,\"'-1, or so\",app,3,decision,2026-03-29T03:00:00+02:00,\
                    \"{\"\"region\"\":\"\"=eu\"\",\"\"tier\"\":\"\"say \\\"\"gold\\\"\"\"\"}\",'=eu,\r\n";
    assert_eq!(text, expected);
}

#[test]
fn a_bucket_is_a_line_of_figures() {
    let report = Report {
        query: ReportQuery {
            grain: Grain::Bucket(Period::Day),
            ..query()
        },
        metrics: Vec::new(),
        zone: TimeZone::UTC,
        recorded_before: at("2026-04-01T00:00:00Z"),
    };
    let row = BucketRow {
        metric: metric("users.active"),
        aggregation: Aggregation::Unique,
        window: Window {
            start: at("2026-03-01T00:00:00Z"),
            end: at("2026-03-02T00:00:00Z"),
        },
        amount: Units::new(12).expect("an amount"),
        events: 10,
        value: Units::new(9).expect("a figure"),
        is_estimated: false,
    };
    let mut csv = Csv::default();
    write_header(&mut csv, &report.query);
    write_row(&mut csv, &report, &Row::Bucket(row));
    let text = String::from_utf8(csv.take(usize::MAX)).expect("text");
    let expected = "metric,aggregation,start_time,end_time,amount,events,value,estimated\r\n\
                    users.active,unique,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,12,10,9,false\r\n";
    assert_eq!(text, expected);
}

#[test]
fn what_was_given_back_is_an_event_and_no_amount() {
    let mut totals = RowTotals::default();
    for origin in [Origin::Decision, Origin::Return, Origin::Direct] {
        Row::Event(EventRow {
            origin,
            ..event_row()
        })
        .add_to(&mut totals);
    }
    let total = totals.values().next().copied();
    assert_eq!(total, Some(RowTotal { amount: 6, events: 3 }));
}

#[test]
fn a_sum_that_cannot_be_counted_is_no_row_and_one_that_does_not_matter_is_the_most() {
    let most = Units::MAX;
    let mut figures = Figures::of_one(most, at("2026-03-01T00:00:00Z"), None);
    figures.add(&figures.clone());
    let row = |aggregation| BucketRow::of(metric("a"), aggregation, query().range(), &figures);
    assert_eq!(row(Aggregation::Sum), None);
    let max = row(Aggregation::Max).expect("a row");
    assert_eq!((max.amount, max.value, max.events), (most, most, 2));
}

proptest! {
    #[test]
    fn windows_come_to_the_same_however_they_are_paged(
        start in 1_700_000_000_i64..1_800_000_000,
        hours in 1_i64..900,
        most in 1_usize..50,
        period in proptest::sample::select(vec![Period::Hour, Period::Day, Period::Month]),
        zone in proptest::sample::select(vec!["UTC", "Europe/Paris", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    ) {
        let zone = TimeZone::get(zone).expect("a zone");
        let start = Timestamp::from_second(start).expect("in range");
        let range = Window { start, end: start + hours.hours() };
        let whole: Result<Vec<Window>, Violations> = cut(range, period, &zone);
        let (mut paged, mut from) = (Vec::new(), range.start);
        while from < range.end {
            let page = windows_from(from, range.end, period, &zone, most);
            prop_assert!(!page.is_empty() && page.len() <= most);
            from = page.last().expect("not empty").end;
            paged.extend(page);
        }
        prop_assert_eq!(Ok(paged), whole);
    }
}
