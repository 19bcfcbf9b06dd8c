//! The months of UTC that the ledger is kept in, and which of them are kept.

use jiff::{Timestamp, ToSpan as _, Zoned, civil::Date, tz::TimeZone};

/// The most months back that a backfill may reach, where the ledger keeps every month.
pub const BACK_MONTHS_MAX: u32 = 120;
/// How many months are made before anything is recorded in them.
const AHEAD_MONTHS: i64 = 2;
/// How many months before the present one are there in any case: events of the last 35 days are recorded.
const BACK_MONTHS: i64 = 2;

/// One month of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Date);

impl Month {
    /// The month that `at` lies in.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// Its first instant.
    #[must_use]
    pub fn start_at(self) -> Timestamp {
        let start = self.0.to_zoned(TimeZone::UTC);
        start.as_ref().map_or(Timestamp::MIN, Zoned::timestamp)
    }

    /// The first instant after it.
    #[must_use]
    pub fn end_at(self) -> Timestamp {
        self.plus(1).start_at()
    }

    /// The month `months` later, or earlier; it stays within what can be written as an instant.
    #[must_use]
    pub fn plus(self, months: i64) -> Self {
        Self(self.0.saturating_add(months.months()).first_of_month())
    }
}

/// The months that are to be there at `now` before anybody asks for one.
#[must_use]
pub fn made_ahead(now: Timestamp) -> Vec<Month> {
    let present = Month::of(now);
    (-BACK_MONTHS..=AHEAD_MONTHS)
        .map(|months| present.plus(months))
        .collect()
}

/// The oldest month that events may lie in at `now`: `kept` months are, the present one included; 0 keeps every month
/// and bounds backfills at [`BACK_MONTHS_MAX`].
#[must_use]
pub fn oldest(now: Timestamp, kept: u32) -> Month {
    let back = if kept == 0 {
        BACK_MONTHS_MAX
    } else {
        kept.saturating_sub(1)
    };
    Month::of(now).plus(-i64::from(back))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_month_begins_at_its_first_midnight_of_utc() {
        for (instant, start) in [
            ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("2026-02-28T23:59:59.999999Z", "2026-02-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-01T00:00:00Z"),
        ] {
            assert_eq!(Month::of(at(instant)).start_at(), at(start), "{instant}");
        }
    }

    #[test]
    fn every_event_that_is_recorded_without_backfill_finds_its_month_made() {
        use octroi_core::event_time::{AHEAD_MAX, BACK_MAX};
        for now in [
            "2026-01-31T23:58:00Z",
            "2026-03-01T00:00:00Z",
            "2024-03-31T12:00:00Z",
            "2026-12-31T23:59:59Z",
        ] {
            let made = made_ahead(at(now));
            for event_at in [at(now) - BACK_MAX, at(now) + AHEAD_MAX] {
                assert!(made.contains(&Month::of(event_at)), "{event_at} at {now}");
            }
        }
    }

    #[test]
    fn as_many_months_are_kept_as_the_policy_says() {
        for (kept, first) in [
            (1, "2026-03-01T00:00:00Z"),
            (3, "2026-01-01T00:00:00Z"),
            (13, "2025-03-01T00:00:00Z"),
            (0, "2016-03-01T00:00:00Z"),
        ] {
            assert_eq!(
                oldest(at("2026-03-31T12:00:00Z"), kept).start_at(),
                at(first),
                "{kept}"
            );
        }
        assert!(oldest(Timestamp::MIN, 0).start_at() <= at("-009998-01-01T00:00:00Z"));
    }
}
