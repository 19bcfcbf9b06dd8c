//! Periods and the windows that tile the time line.

use jiff::{Timestamp, ToSpan as _, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::named;

/// How long a window of a limit is, the shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// One hour of the account's zone.
    Hour,
    /// One calendar day of the account's zone.
    Day,
    /// One month, counted from the original anchor.
    Month,
    /// Without beginning or end.
    Lifetime,
}

named!(Period { Hour => "hour", Day => "day", Month => "month", Lifetime => "lifetime" });

/// One half-open stretch of time, `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first instant.
    pub start: Timestamp,
    /// The first instant after it; [`Timestamp::MAX`] where there is none.
    pub end: Timestamp,
}

impl Window {
    /// The window of a LIFETIME limit: from the Unix epoch, without end.
    pub const LIFETIME: Self = Self {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::MAX,
    };

    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether it ends at all.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.end != Timestamp::MAX
    }
}

/// From where MONTH windows are counted: the civil time of the subscription's first instant in the
/// account's zone. Month `n` starts `n` months after the *original* anchor, at the last day of a month
/// that is too short: 31 January, 28 February, 31 March.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Anchor(civil::DateTime);

impl Anchor {
    /// Calendar months, for accounts without a subscription.
    pub const FIRST_OF_MONTH: Self = Self(civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0));

    /// The anchor of a subscription whose first instant is `at`.
    #[must_use]
    pub fn at(at: Timestamp, zone: &TimeZone) -> Self {
        Self(zone.to_datetime(at))
    }

    /// The day of the month, 1 to 31.
    #[must_use]
    pub fn day(self) -> u32 {
        self.0.day().unsigned_abs().into()
    }

    /// The first instant of month `index`, which may be negative.
    fn month_start(self, index: i32, zone: &TimeZone) -> Option<Timestamp> {
        let start = self.0.checked_add(index.months()).ok()?;
        zone.to_timestamp(start).ok()
    }

    fn month_containing(self, at: Timestamp, zone: &TimeZone) -> Option<Window> {
        let local = zone.to_datetime(at);
        let years = i32::from(local.year()) - i32::from(self.0.year());
        let mut index = years * 12 + i32::from(local.month()) - i32::from(self.0.month());
        // The calendar's month is at most one away from the anchored one.
        while at < self.month_start(index, zone)? {
            index -= 1;
        }
        while at >= self.month_start(index + 1, zone)? {
            index += 1;
        }
        Some(Window {
            start: self.month_start(index, zone)?,
            end: self.month_start(index + 1, zone)?,
        })
    }
}

/// The window of `period` that contains `at`, in the account's zone and from its anchor.
///
/// At the far ends of the calendar (years −9999 and 9999), where a window would leave it, the answer is
/// the LIFETIME window.
#[must_use]
pub fn window_containing(period: Period, at: Timestamp, zone: &TimeZone, anchor: Anchor) -> Window {
    let window = match period {
        Period::Hour => hour_containing(at, zone),
        Period::Day => day_containing(at, zone),
        Period::Month => anchor.month_containing(at, zone),
        Period::Lifetime => None,
    };
    window.unwrap_or(Window::LIFETIME)
}

const HOUR_S: i64 = 3_600;

/// An hour runs from one strike of the local clock to the next. Where the zone's offset changes in
/// between, the window is cut there, so that windows tile the time line in zones whose offset moves by
/// less than an hour too.
fn hour_containing(at: Timestamp, zone: &TimeZone) -> Option<Window> {
    let offset_s = i64::from(zone.to_offset(at).seconds());
    let start_s = (at.as_second() + offset_s).div_euclid(HOUR_S) * HOUR_S - offset_s;
    let mut start = Timestamp::from_second(floor_of(at, start_s)).ok()?;
    let mut end = Timestamp::from_second(start.as_second() + HOUR_S).ok()?;
    if let Some(change) = last_offset_change(start, at, zone) {
        start = change;
    }
    if let Some(change) = first_offset_change(at, end, zone) {
        end = change;
    }
    Some(Window { start, end })
}

/// Whole seconds round towards zero before 1970: one hour back where that put the start after `at`.
fn floor_of(at: Timestamp, start_s: i64) -> i64 {
    if start_s > at.as_second() || (start_s == at.as_second() && at.subsec_nanosecond() < 0) {
        return start_s - HOUR_S;
    }
    start_s
}

fn last_offset_change(after: Timestamp, up_to: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let just_after = up_to.checked_add(1.nanosecond()).ok()?;
    zone.preceding(just_after)
        .take_while(|change| change.timestamp() > after)
        .find(|change| moves_the_clock(change.timestamp(), zone))
        .map(|change| change.timestamp())
}

fn first_offset_change(after: Timestamp, before: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    zone.following(after)
        .take_while(|change| change.timestamp() < before)
        .find(|change| moves_the_clock(change.timestamp(), zone))
        .map(|change| change.timestamp())
}

/// Some changes of a zone change only its name.
fn moves_the_clock(at: Timestamp, zone: &TimeZone) -> bool {
    at.checked_sub(1.nanosecond())
        .is_ok_and(|before| zone.to_offset(before) != zone.to_offset(at))
}

/// A day runs from the first instant of its local date to the first instant of the next.
fn day_containing(at: Timestamp, zone: &TimeZone) -> Option<Window> {
    let date = zone.to_datetime(at).date();
    let window = day_of(date, zone)?;
    if at < window.end {
        return Some(window);
    }
    // The clock went back over midnight: the date is yesterday's again, but the next day has begun.
    day_of(date.tomorrow().ok()?, zone)
}

fn day_of(date: civil::Date, zone: &TimeZone) -> Option<Window> {
    let start = date.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp();
    let end = date
        .tomorrow()
        .ok()?
        .to_zoned(zone.clone())
        .ok()?
        .start_of_day()
        .ok()?
        .timestamp();
    Some(Window { start, end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a zone of the database")
    }

    #[track_caller]
    fn check(period: Period, zone_name: &str, anchor: &str, instant: &str, start: &str, end: &str) {
        let zone = zone(zone_name);
        let window = window_containing(period, at(instant), &zone, Anchor::at(at(anchor), &zone));
        assert_eq!(
            window,
            Window {
                start: at(start),
                end: at(end)
            }
        );
    }

    #[test]
    fn windows_follow_the_zone_and_the_anchor() {
        let new_year = "2026-01-01T00:00:00Z";
        check(
            Period::Hour,
            "UTC",
            new_year,
            "2026-03-01T10:59:59.999999Z",
            "2026-03-01T10:00:00Z",
            "2026-03-01T11:00:00Z",
        );
        check(
            Period::Hour,
            "Asia/Kathmandu",
            new_year,
            "2026-03-01T10:20:00Z",
            "2026-03-01T10:15:00Z",
            "2026-03-01T11:15:00Z",
        );
        // Lord Howe's clock goes back by half an hour at 15:00 UTC.
        check(
            Period::Hour,
            "Australia/Lord_Howe",
            new_year,
            "2026-04-04T15:10:00Z",
            "2026-04-04T15:00:00Z",
            "2026-04-04T15:30:00Z",
        );
        check(
            Period::Day,
            "Europe/Paris",
            new_year,
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check(
            Period::Day,
            "America/Sao_Paulo",
            new_year,
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z",
            "2018-11-05T02:00:00Z",
        );
        let january_31 = "2026-01-31T09:30:00Z";
        check(
            Period::Month,
            "UTC",
            january_31,
            "2026-03-01T00:00:00Z",
            "2026-02-28T09:30:00Z",
            "2026-03-31T09:30:00Z",
        );
        check(
            Period::Month,
            "UTC",
            january_31,
            "2026-04-30T09:30:00Z",
            "2026-04-30T09:30:00Z",
            "2026-05-31T09:30:00Z",
        );
        check(
            Period::Month,
            "UTC",
            january_31,
            "2025-12-31T09:29:59Z",
            "2025-11-30T09:30:00Z",
            "2025-12-31T09:30:00Z",
        );
    }

    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Paris",
        "America/New_York",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "America/Sao_Paulo",
    ];

    proptest! {
        #[test]
        fn windows_tile_the_time_line(
            second in 1_262_304_000_i64..1_893_456_000,
            nanosecond in 0_i32..1_000_000_000,
            zone_index in 0_usize..ZONES.len(),
            anchor_day in 1_u32..=31,
            period in prop::sample::select(&[Period::Hour, Period::Day, Period::Month][..]),
        ) {
            let zone = zone(ZONES[zone_index]);
            let instant = Timestamp::new(second, nanosecond).expect("in range");
            let anchor = Anchor::at(at(&format!("2024-01-{anchor_day:02}T12:34:56Z")), &zone);
            let window = window_containing(period, instant, &zone, anchor);
            prop_assert!(window.contains(instant), "{instant} is not in {window:?}");
            let next = window_containing(period, window.end, &zone, anchor);
            prop_assert_eq!(next.start, window.end);
            let before = window_containing(period, window.start - 1.nanosecond(), &zone, anchor);
            prop_assert_eq!(before.end, window.start);
        }
    }
}
