//! Where an account's windows begin and end, also when its zone or its anchor changed on the way.

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{Anchor, Period, Window, period::window_containing};
use serde::{Deserialize, Serialize};

/// What windows follow from one instant on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Segment {
    /// When it was set. The windows that run then still end as they began.
    pub from: Timestamp,
    /// The zone of HOUR and DAY windows, in which months are counted too.
    #[serde(with = "jiff::fmt::serde::tz::required")]
    pub zone: TimeZone,
    /// From where MONTH windows are counted.
    pub anchor: Anchor,
    /// A billing period starts here: the MONTH window that runs ends at `from`, and an empty one begins.
    pub cuts_month: bool,
}

/// The windows of one account. Those that began stay as they are: another zone holds from the end of the window
/// that runs when it is set, so that windows tile the time line through every change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Calendar {
    first: Segment,
    later: Vec<Segment>,
}

/// The most changes that are remembered; the oldest are forgotten, long after their windows ended.
const SEGMENTS_MAX: usize = 32;

impl Calendar {
    /// The calendar of an account that nothing was counted for yet.
    #[must_use]
    pub fn new(zone: TimeZone, anchor: Anchor) -> Self {
        let first = Segment {
            from: Timestamp::MIN,
            zone,
            anchor,
            cuts_month: false,
        };
        Self {
            first,
            later: Vec::new(),
        }
    }

    /// The calendar of these segments, the oldest first; none where there are none.
    #[must_use]
    pub fn of_segments(segments: Vec<Segment>) -> Option<Self> {
        let mut segments = segments.into_iter();
        Some(Self {
            first: segments.next()?,
            later: segments.collect(),
        })
    }

    /// Its segments, the oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// The segment that was set last.
    #[must_use]
    pub fn last(&self) -> &Segment {
        self.later.last().unwrap_or(&self.first)
    }

    /// Sets what windows follow after those that run at `segment.from`, which is not before the last change.
    #[must_use]
    pub fn with(&self, segment: Segment) -> Self {
        let mut changed = self.clone();
        let from = segment.from.max(self.last().from);
        changed.later.push(Segment { from, ..segment });
        if changed.later.len() > SEGMENTS_MAX {
            let first = changed.later.remove(0);
            changed.first = Segment {
                from: Timestamp::MIN,
                cuts_month: false,
                ..first
            };
        }
        changed
    }

    /// The window of `period` that contains `at`.
    #[must_use]
    pub fn window(&self, period: Period, at: Timestamp) -> Window {
        if period == Period::Lifetime {
            return Window::LIFETIME;
        }
        let cuts = |one: &Segment| period == Period::Month && one.cuts_month;
        let mut segment = &self.first;
        let mut begins_at = Timestamp::MIN;
        let mut later = self.later.as_slice();
        while let [next, after @ ..] = later {
            if next.from < begins_at {
                // The change before did not hold yet, and this one takes its place.
                (segment, later) = (next, after);
                continue;
            }
            let natural_end = Self::natural(segment, period, next.from, begins_at).end;
            // Where a billing period starts before the running window has ended, it ends there all the same.
            let cut = (later.iter()).position(|one| cuts(one) && one.from < natural_end);
            let (next, after) = match cut.map(|place| later.split_at(place).1) {
                Some([cut, after @ ..]) => (cut, after),
                _ => (next, after),
            };
            let ends_at = if cuts(next) { next.from } else { natural_end };
            later = after;
            if at < ends_at {
                let window = Self::natural(segment, period, at, begins_at);
                return Window {
                    end: window.end.min(ends_at),
                    ..window
                };
            }
            (segment, begins_at) = (next, ends_at);
        }
        Self::natural(segment, period, at, begins_at)
    }

    /// The window that the segment has by itself, begun no earlier than `begins_at`.
    fn natural(segment: &Segment, period: Period, at: Timestamp, begins_at: Timestamp) -> Window {
        let window = window_containing(period, at, &segment.zone, segment.anchor);
        Window {
            start: window.start.max(begins_at),
            ..window
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a zone of the database")
    }

    fn change(from: &str, zone_name: &str) -> Segment {
        Segment {
            from: at(from),
            zone: zone(zone_name),
            anchor: Anchor::FIRST_OF_MONTH,
            cuts_month: false,
        }
    }

    #[track_caller]
    fn check(calendar: &Calendar, period: Period, instant: &str, start: &str, end: &str) {
        let expected = Window {
            start: at(start),
            end: at(end),
        };
        assert_eq!(calendar.window(period, at(instant)), expected);
    }

    #[test]
    fn another_zone_holds_from_the_end_of_the_window_that_runs() {
        let calendar = Calendar::new(TimeZone::UTC, Anchor::FIRST_OF_MONTH)
            .with(change("2026-03-10T12:00:00Z", "America/New_York"));
        let day = Period::Day;
        check(
            &calendar,
            day,
            "2026-03-10T23:00:00Z",
            "2026-03-10T00:00:00Z",
            "2026-03-11T00:00:00Z",
        );
        // New York's day ends at 04:00 UTC: the first window there is short.
        check(
            &calendar,
            day,
            "2026-03-11T01:00:00Z",
            "2026-03-11T00:00:00Z",
            "2026-03-11T04:00:00Z",
        );
        check(
            &calendar,
            day,
            "2026-03-11T05:00:00Z",
            "2026-03-11T04:00:00Z",
            "2026-03-12T04:00:00Z",
        );
    }

    #[test]
    fn a_zone_that_is_changed_again_before_it_held_never_held() {
        let calendar = Calendar::new(TimeZone::UTC, Anchor::FIRST_OF_MONTH)
            .with(change("2026-03-10T12:00:00Z", "America/New_York"))
            .with(change("2026-03-10T13:00:00Z", "UTC"));
        let day = Period::Day;
        check(
            &calendar,
            day,
            "2026-03-11T01:00:00Z",
            "2026-03-11T00:00:00Z",
            "2026-03-12T00:00:00Z",
        );
    }

    #[test]
    fn a_billing_period_that_starts_ends_the_month_at_that_instant_and_no_other_window() {
        let start = at("2026-03-10T12:34:56Z");
        let calendar = Calendar::new(TimeZone::UTC, Anchor::FIRST_OF_MONTH).with(Segment {
            from: start,
            zone: TimeZone::UTC,
            anchor: Anchor::at(start, &TimeZone::UTC),
            cuts_month: true,
        });
        let month = Period::Month;
        check(
            &calendar,
            month,
            "2026-03-10T12:34:55Z",
            "2026-03-01T00:00:00Z",
            "2026-03-10T12:34:56Z",
        );
        check(
            &calendar,
            month,
            "2026-03-10T12:34:56Z",
            "2026-03-10T12:34:56Z",
            "2026-04-10T12:34:56Z",
        );
        check(
            &calendar,
            Period::Day,
            "2026-03-10T12:34:56Z",
            "2026-03-10T00:00:00Z",
            "2026-03-11T00:00:00Z",
        );
    }

    #[test]
    fn a_billing_period_that_starts_while_another_zone_waits_for_the_month_to_end_ends_it_at_once() {
        let start = at("2026-03-10T12:00:00Z");
        let calendar = Calendar::new(TimeZone::UTC, Anchor::FIRST_OF_MONTH)
            .with(change("2026-03-05T12:00:00Z", "America/New_York"))
            .with(change("2026-03-06T12:00:00Z", "Europe/Paris"))
            .with(Segment {
                from: start,
                zone: zone("Europe/Paris"),
                anchor: Anchor::at(start, &zone("Europe/Paris")),
                cuts_month: true,
            });
        let month = Period::Month;
        check(
            &calendar,
            month,
            "2026-03-10T11:59:59Z",
            "2026-03-01T00:00:00Z",
            "2026-03-10T12:00:00Z",
        );
        // Paris has moved its clocks by then.
        check(
            &calendar,
            month,
            "2026-03-12T00:00:00Z",
            "2026-03-10T12:00:00Z",
            "2026-04-10T11:00:00Z",
        );
    }

    const ZONES: [&str; 6] = [
        "UTC",
        "Europe/Paris",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Over every anchor, zones with odd offsets and changes of both, ten years.
        #[test]
        fn windows_tile_the_time_line_through_every_change(
            second in 1_577_836_800_i64..1_893_456_000,
            anchor_day in 1_u32..=31,
            changes in prop::collection::vec(
                (1_577_836_800_i64..1_893_456_000, 0..ZONES.len(), 1_u32..=31, any::<bool>()), 0..6),
            period in prop::sample::select(&[Period::Hour, Period::Day, Period::Month][..]),
        ) {
            let anchor = |day: u32| Anchor::at(at(&format!("2020-01-{day:02}T12:34:56Z")), &TimeZone::UTC);
            let mut changes = changes;
            changes.sort_unstable();
            let mut calendar = Calendar::new(TimeZone::UTC, anchor(anchor_day));
            for (from, zone_index, day, cuts_month) in changes {
                calendar = calendar.with(Segment {
                    from: Timestamp::from_second(from).expect("in range"),
                    zone: zone(ZONES[zone_index]),
                    anchor: anchor(day),
                    cuts_month,
                });
            }
            let cuts = calendar.segments().filter(|segment| segment.cuts_month);
            for cut in cuts {
                prop_assert_eq!(calendar.window(Period::Month, cut.from).start, cut.from);
            }
            let instant = Timestamp::from_second(second).expect("in range");
            let window = calendar.window(period, instant);
            prop_assert!(window.contains(instant), "{instant} is not in {window:?}");
            let next = calendar.window(period, window.end);
            prop_assert_eq!(next.start, window.end);
            let before = calendar.window(period, window.start - 1.nanosecond());
            prop_assert_eq!(before.end, window.start);
        }
    }
}
