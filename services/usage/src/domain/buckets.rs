//! How a range of time is cut into hours, days or months of a zone.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::{Anchor, Period, Violations, Window, period::window_containing};

/// The most buckets of one answer.
pub const BUCKETS_MAX: usize = 1_000;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const QUARTER: SignedDuration = SignedDuration::from_mins(15);
/// As fine as the ledger's time is.
const INSTANT: SignedDuration = SignedDuration::from_micros(1);
/// The width of a stored rollup, in seconds; every zone's offset is a multiple of it.
pub const QUARTER_S: i64 = 900;

/// Cuts `range` into buckets that tile it. The first and the last are cut off where the range begins or
/// ends within an hour, day or month.
///
/// # Errors
/// [`Violations`] where the range is empty or makes too many buckets.
pub fn cut(range: Window, period: Period, zone: &TimeZone) -> Result<Vec<Window>, Violations> {
    let mut violations = Violations::default();
    if range.end <= range.start {
        violations.add("end_time", "must be after start_time");
    }
    violations.finish()?;

    let mut buckets = Vec::new();
    let mut start = range.start;
    while start < range.end {
        if buckets.len() == BUCKETS_MAX {
            let mut violations = Violations::default();
            violations.add(
                "granularity",
                format!("must cut the range into at most {BUCKETS_MAX} buckets"),
            );
            return Err(violations);
        }
        let end = next_after(start, period, zone).min(range.end);
        buckets.push(Window { start, end });
        start = end;
    }
    Ok(buckets)
}

fn next_after(start: Timestamp, period: Period, zone: &TimeZone) -> Timestamp {
    window_containing(period, start, zone, Anchor::FIRST_OF_MONTH).end
}

/// The quarter of an hour that `at` lies in.
#[must_use]
pub fn quarter_of(at: Timestamp) -> Timestamp {
    floor_to(at, QUARTER_S)
}

/// The day of UTC that `at` lies in.
#[must_use]
pub fn day_of(at: Timestamp) -> Timestamp {
    floor_to(at, 86_400)
}

/// The counterparts of windows that tile a range, as many windows earlier as there are. Where the range cuts a window off, its
/// counterpart is cut off as long after its own beginning, or where it ends.
#[must_use]
pub fn before(windows: &[Window], period: Period, zone: &TimeZone) -> Vec<Window> {
    let Some(first) = windows.first() else {
        return Vec::new();
    };
    let containing = |at| window_containing(period, at, zone, Anchor::FIRST_OF_MONTH);
    let mut end = containing(first.start).start;
    let mut counterparts = Vec::with_capacity(windows.len());
    for window in windows.iter().rev() {
        let whole = containing(end.saturating_sub(INSTANT).unwrap_or(end));
        let around = containing(window.start);
        end = whole.start;
        // A whole one has a whole one, however long its day or month is.
        if *window == around {
            counterparts.push(whole);
            continue;
        }
        let within = |at: Timestamp| {
            let into = at.duration_since(around.start);
            whole
                .start
                .saturating_add(into)
                .unwrap_or(whole.end)
                .min(whole.end)
        };
        let end_at = if window.end == around.end {
            whole.end
        } else {
            within(window.end)
        };
        counterparts.push(Window {
            start: within(window.start),
            end: end_at,
        });
    }
    counterparts.reverse();
    counterparts
}

/// The whole quarters of an hour in a window, perhaps none at its end, and what is left of it: its edges.
#[must_use]
pub fn whole_quarters(window: Window) -> (Window, Vec<Window>) {
    let whole = whole_multiples(window, quarter_of, QUARTER);
    let edges = [
        Window {
            start: window.start,
            end: whole.start,
        },
        Window {
            start: whole.end,
            end: window.end,
        },
    ];
    let edges = edges.into_iter().filter(|edge| edge.start < edge.end);
    (whole, edges.collect())
}

/// The whole days of UTC in a window; where it has none, nothing at its end.
#[must_use]
pub fn whole_days(window: Window) -> Window {
    whole_multiples(window, day_of, DAY)
}

fn whole_multiples(window: Window, floor: fn(Timestamp) -> Timestamp, width: SignedDuration) -> Window {
    let mut start = floor(window.start);
    if start < window.start {
        start = start.saturating_add(width).unwrap_or(window.end);
    }
    let end = floor(window.end);
    if start < end {
        Window { start, end }
    } else {
        Window {
            start: window.end,
            end: window.end,
        }
    }
}

fn floor_to(at: Timestamp, width_s: i64) -> Timestamp {
    let mut second = at.as_second();
    if at.subsec_nanosecond() < 0 {
        second -= 1;
    }
    // Going down to a multiple stays within the range of instants, but for its first day.
    Timestamp::from_second(second.div_euclid(width_s) * width_s).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_day_of_daylight_saving_has_23_or_25_hours() {
        let paris = TimeZone::get("Europe/Paris").expect("a zone");
        for (start, end, hours) in [
            ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
        ] {
            let day = Window {
                start: at(start),
                end: at(end),
            };
            assert_eq!(cut(day, Period::Hour, &paris).expect("a good range").len(), hours);
            assert_eq!(cut(day, Period::Day, &paris).expect("a good range"), vec![day]);
        }
    }

    #[test]
    fn a_range_that_cannot_be_cut_says_which_field_is_wrong() {
        for (start, end, field) in [
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "end_time"),
            ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "granularity"),
        ] {
            let range = Window {
                start: at(start),
                end: at(end),
            };
            let violations = cut(range, Period::Hour, &TimeZone::UTC).expect_err("a bad range");
            assert_eq!(violations.first_field(), Some(field));
        }
    }

    #[test]
    fn what_is_no_whole_quarter_of_an_hour_is_an_edge() {
        let window = |start: &str, end: &str| Window {
            start: at(start),
            end: at(end),
        };
        for (start, end, whole, edges) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", 60, vec![]),
            (
                "2026-01-01T00:14:59.999999Z",
                "2026-01-01T00:45:00.000001Z",
                30,
                vec![
                    window("2026-01-01T00:14:59.999999Z", "2026-01-01T00:15:00Z"),
                    window("2026-01-01T00:45:00Z", "2026-01-01T00:45:00.000001Z"),
                ],
            ),
            (
                "2026-01-01T00:01:00Z",
                "2026-01-01T00:29:00Z",
                0,
                vec![window("2026-01-01T00:01:00Z", "2026-01-01T00:29:00Z")],
            ),
        ] {
            let (found, found_edges) = whole_quarters(window(start, end));
            assert_eq!(
                found.end.duration_since(found.start),
                SignedDuration::from_mins(whole),
                "{start}"
            );
            assert_eq!(found_edges, edges, "{start}");
        }
    }

    #[test]
    fn a_window_s_counterpart_is_as_many_windows_earlier_and_as_long_where_it_is_cut_off() {
        let paris = TimeZone::get("Europe/Paris").expect("a zone");
        let window = |start: &str, end: &str| Window {
            start: at(start),
            end: at(end),
        };
        // March, of which the first 14 days and 10 hours are over, beside as much of February.
        let march = window("2026-02-28T23:00:00Z", "2026-03-15T09:00:00Z");
        let months = cut(march, Period::Month, &paris).expect("a good range");
        let february = window("2026-01-31T23:00:00Z", "2026-02-15T09:00:00Z");
        assert_eq!(before(&months, Period::Month, &paris), [february]);
        // Three days, the first and the last of them cut off.
        let days = cut(
            window("2026-03-09T12:00:00Z", "2026-03-11T06:00:00Z"),
            Period::Day,
            &TimeZone::UTC,
        );
        let expected = [
            window("2026-03-06T12:00:00Z", "2026-03-07T00:00:00Z"),
            window("2026-03-07T00:00:00Z", "2026-03-08T00:00:00Z"),
            window("2026-03-08T00:00:00Z", "2026-03-08T06:00:00Z"),
        ];
        assert_eq!(
            before(&days.expect("a good range"), Period::Day, &TimeZone::UTC),
            expected
        );
        // A day of 23 hours beside one of 24.
        let short = cut(
            window("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            Period::Day,
            &paris,
        );
        let long = window("2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z");
        assert_eq!(before(&short.expect("a good range"), Period::Day, &paris), [long]);
        // Some hours of a day beside the same of the day before.
        let noon = cut(
            window("2026-03-09T12:00:00Z", "2026-03-09T15:00:00Z"),
            Period::Day,
            &TimeZone::UTC,
        );
        let before_noon = window("2026-03-08T12:00:00Z", "2026-03-08T15:00:00Z");
        assert_eq!(
            before(&noon.expect("a good range"), Period::Day, &TimeZone::UTC),
            [before_noon]
        );
        assert_eq!(before(&[], Period::Day, &paris), []);
    }

    #[test]
    fn the_whole_days_of_a_window_are_those_that_it_has_from_midnight_to_midnight() {
        for (start, end, days) in [
            (
                "2026-01-01T00:00:00Z",
                "2026-01-03T00:00:00Z",
                Some(("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")),
            ),
            (
                "2026-01-01T00:15:00Z",
                "2026-01-03T23:45:00Z",
                Some(("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z")),
            ),
            ("2026-01-01T00:15:00Z", "2026-01-02T23:45:00Z", None),
            ("2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", None),
        ] {
            let window = Window {
                start: at(start),
                end: at(end),
            };
            let expected = days.map_or(
                Window {
                    start: window.end,
                    end: window.end,
                },
                |(start, end)| Window {
                    start: at(start),
                    end: at(end),
                },
            );
            assert_eq!(whole_days(window), expected, "{start} to {end}");
        }
    }

    proptest! {
        #[test]
        fn buckets_tile_the_range(start in -1_000_000_i64..3_000_000, quarters in 1_i64..4_000) {
            let kathmandu = TimeZone::get("Asia/Kathmandu").expect("a zone");
            let start = Timestamp::from_second(start * QUARTER_S).expect("in range");
            let end = Timestamp::from_second(start.as_second() + quarters * QUARTER_S).expect("in range");
            let buckets = cut(Window { start, end }, Period::Hour, &kathmandu).or_else(|_| cut(Window { start, end }, Period::Day, &kathmandu)).expect("few enough days");
            prop_assert_eq!(buckets.first().map(|bucket| bucket.start), Some(start));
            prop_assert_eq!(buckets.last().map(|bucket| bucket.end), Some(end));
            prop_assert!(buckets.windows(2).all(|pair| pair[0].end == pair[1].start));
        }

        #[test]
        fn a_quarter_contains_its_instant(second in -2_000_000_000_i64..2_000_000_000, nanosecond in 0_i32..1_000_000_000) {
            let instant = Timestamp::new(second, 0).expect("in range").checked_add(jiff::Span::new().nanoseconds(nanosecond)).expect("in range");
            let quarter = quarter_of(instant);
            prop_assert!(quarter <= instant);
            prop_assert!(instant.duration_since(quarter) < SignedDuration::from_secs(QUARTER_S));
            prop_assert_eq!(day_of(quarter), day_of(instant));
        }
    }
}
