//! Billing periods: counted from the original anchor, they tile the time line.

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{Anchor, Period, Window, period::window_containing};

use super::catalog::Interval;

/// One period of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillingPeriod {
    /// Its place in the row, from 1.
    pub number: i32,
    /// `[start, end)`.
    pub window: Window,
}

/// The first period of a subscription.
#[must_use]
pub fn first(interval: Interval, anchor_at: Timestamp) -> BillingPeriod {
    BillingPeriod {
        number: 1,
        window: window_from(interval, anchor_at, anchor_at),
    }
}

/// The period after `period`.
#[must_use]
pub fn next(interval: Interval, anchor_at: Timestamp, period: BillingPeriod) -> BillingPeriod {
    BillingPeriod {
        number: period.number + 1,
        window: window_from(interval, anchor_at, period.window.end),
    }
}

/// The periods after `period` up to the one that contains `now`; none where `period` does or lies ahead.
#[must_use]
pub fn up_to(
    interval: Interval,
    anchor_at: Timestamp,
    period: BillingPeriod,
    now: Timestamp,
) -> Vec<BillingPeriod> {
    let mut periods = Vec::new();
    let mut last = period;
    while last.window.end <= now {
        last = next(interval, anchor_at, last);
        periods.push(last);
    }
    periods
}

/// A year is twelve months from the original anchor, so that 29 February comes back.
fn window_from(interval: Interval, anchor_at: Timestamp, start: Timestamp) -> Window {
    let zone = TimeZone::UTC;
    let anchor = Anchor::at(anchor_at, &zone);
    let months = match interval {
        Interval::Month => 1,
        Interval::Year => 12,
    };
    let mut end = start;
    for _ in 0..months {
        end = window_containing(Period::Month, end, &zone, anchor).end;
    }
    Window { start, end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[track_caller]
    fn check(interval: Interval, anchor: &str, ends: &[&str]) {
        let mut period = first(interval, at(anchor));
        assert_eq!(period.window.start, at(anchor));
        for end in ends {
            assert_eq!(period.window.end, at(end), "period {}", period.number);
            period = next(interval, at(anchor), period);
        }
    }

    #[test]
    fn a_short_month_does_not_move_the_days_after_it() {
        check(
            Interval::Month,
            "2026-01-31T09:30:00.000001Z",
            &[
                "2026-02-28T09:30:00.000001Z",
                "2026-03-31T09:30:00.000001Z",
                "2026-04-30T09:30:00.000001Z",
            ],
        );
        check(
            Interval::Year,
            "2024-02-29T00:00:00Z",
            &[
                "2025-02-28T00:00:00Z",
                "2026-02-28T00:00:00Z",
                "2027-02-28T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ],
        );
    }

    proptest! {
        #[test]
        fn periods_tile_the_time_from_the_anchor_to_now(
            anchor_s in 1_500_000_000_i64..1_800_000_000,
            passed_s in 0_i64..300_000_000,
            interval in prop::sample::select(&[Interval::Month, Interval::Year][..]),
        ) {
            let anchor = Timestamp::from_second(anchor_s).expect("in range");
            let now = Timestamp::from_second(anchor_s + passed_s).expect("in range");
            let mut last = first(interval, anchor);
            for period in up_to(interval, anchor, last, now) {
                prop_assert_eq!(period.window.start, last.window.end);
                prop_assert_eq!(period.number, last.number + 1);
                last = period;
            }
            prop_assert!(last.window.contains(now));
        }
    }
}
