//! Which hours are looked at, and which hours of the weeks before they are compared with.

use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::DateTime, tz::AmbiguousOffset, tz::TimeZone};
use octroi_core::{Anchor, Period, Window, period::window_containing};

/// One hour.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// As fine as the ledger's time is.
const INSTANT: SignedDuration = SignedDuration::from_micros(1);
/// How far back hours are looked at that nobody has looked at in time.
const CATCH_UP: SignedDuration = SignedDuration::from_hours(24);

/// What is to be looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing yet.
    Wait,
    /// The hour of UTC that begins here.
    Look(Timestamp),
}

/// The hour of UTC that is looked at next, where `next` is the one after the last that was, and each is looked at
/// `grace` after its end. What is older than a day is left out, so that a long absence is not told as news.
#[must_use]
pub fn plan(next: Option<Timestamp>, now: Timestamp, grace: SignedDuration) -> Todo {
    let Some(newest) = now
        .checked_sub(HOUR + grace)
        .ok()
        .and_then(|at| Timestamp::from_second(at.as_second().div_euclid(3_600) * 3_600).ok())
    else {
        return Todo::Wait;
    };
    let oldest = newest.saturating_sub(CATCH_UP).unwrap_or(newest);
    let hour = next.map_or(newest, |next| next.max(oldest));
    if hour <= newest {
        Todo::Look(hour)
    } else {
        Todo::Wait
    }
}

/// The hours of a zone that end in the hour of UTC from `start` on: after its first instant, and not after its end. An hour
/// that a change of the zone's offset cuts short is none of them, because no other week has its like.
#[must_use]
pub fn hours_ended(start: Timestamp, zone: &TimeZone) -> Vec<Window> {
    let end = start.saturating_add(HOUR).unwrap_or(start);
    let mut hours = Vec::with_capacity(1);
    let mut at = start;
    while at < end {
        let hour = window_containing(Period::Hour, at, zone, Anchor::FIRST_OF_MONTH);
        if hour.end > end {
            break;
        }
        if hour.end.duration_since(hour.start) == HOUR {
            hours.push(hour);
        }
        at = hour.end;
    }
    hours
}

/// Where the same hour of the week began in the `weeks` weeks before, the newest first, none before `since`. In a week whose
/// clocks skip that hour there is none; in one whose clocks strike it twice, both are.
#[must_use]
pub fn samples_of(hour: Window, zone: &TimeZone, weeks: u32, since: Timestamp) -> Vec<Timestamp> {
    let local = zone.to_datetime(hour.start);
    let mut samples = Vec::with_capacity(usize::try_from(weeks).unwrap_or_default());
    for week in 1..=i64::from(weeks) {
        let Ok(then) = local.checked_sub((7 * week).days()) else {
            break;
        };
        samples.extend(starts_of(then, zone).into_iter().filter(|at| *at >= since));
    }
    samples
}

/// The instants at which a zone's clocks show a time, the later first.
fn starts_of(local: DateTime, zone: &TimeZone) -> Vec<Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Gap { .. } => Vec::new(),
        AmbiguousOffset::Fold { before, after } => vec![after, before],
    };
    let starts = offsets.into_iter();
    starts
        .filter_map(|offset| offset.to_timestamp(local).ok())
        .collect()
}

/// Before which instant no hour is compared with `start`'s: a day more than the weeks, for the zones.
#[must_use]
pub fn reach_back(start: Timestamp, weeks: u32) -> Timestamp {
    let back = SignedDuration::from_hours(i64::from(weeks) * 7 * 24 + 24);
    start.saturating_sub(back + INSTANT).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a zone")
    }

    #[test]
    fn an_hour_is_looked_at_once_its_grace_is_over_and_a_long_absence_is_left_out() {
        let grace = SignedDuration::from_mins(10);
        let look = |text| Todo::Look(at(text));
        for (next, now, todo) in [
            (None, "2026-03-02T10:09:59Z", look("2026-03-02T08:00:00Z")),
            (None, "2026-03-02T10:10:00Z", look("2026-03-02T09:00:00Z")),
            (
                Some("2026-03-02T09:00:00Z"),
                "2026-03-02T10:10:00Z",
                look("2026-03-02T09:00:00Z"),
            ),
            (Some("2026-03-02T09:00:00Z"), "2026-03-02T10:09:59Z", Todo::Wait),
            (
                Some("2026-03-01T22:00:00Z"),
                "2026-03-02T10:10:00Z",
                look("2026-03-01T22:00:00Z"),
            ),
            (
                Some("2026-01-01T00:00:00Z"),
                "2026-03-02T10:10:00Z",
                look("2026-03-01T09:00:00Z"),
            ),
            // The clock was put back.
            (Some("2026-03-05T00:00:00Z"), "2026-03-02T10:10:00Z", Todo::Wait),
        ] {
            assert_eq!(plan(next.map(at), at(now), grace), todo, "{next:?} at {now}");
        }
    }

    #[test]
    fn every_whole_hour_of_a_zone_is_looked_at_once() {
        for (name, from, hours) in [
            ("UTC", "2026-03-01T00:00:00Z", 24),
            ("Asia/Kathmandu", "2026-03-01T00:00:00Z", 24),
            ("Europe/Paris", "2026-03-28T12:00:00Z", 24),
            ("Europe/Paris", "2026-10-24T12:00:00Z", 24),
            // Half an hour is left of the hour in which the offset changes by half an hour.
            ("Australia/Lord_Howe", "2026-04-04T00:00:00Z", 23),
        ] {
            let zone = zone(name);
            let mut found: Vec<Window> = Vec::new();
            for hour in 0..24 {
                found.extend(hours_ended(at(from) + SignedDuration::from_hours(hour), &zone));
            }
            assert_eq!(found.len(), hours, "{name}: {found:?}");
            assert!(
                found.windows(2).all(|pair| pair[0].end <= pair[1].start),
                "{name}"
            );
            assert!(
                found
                    .iter()
                    .all(|hour| hour.end.duration_since(hour.start) == HOUR)
            );
        }
    }

    #[track_caller]
    fn check_samples(name: &str, start: &str, since: &str, expected: &[&str]) {
        let hour = Window {
            start: at(start),
            end: at(start) + HOUR,
        };
        let expected: Vec<Timestamp> = expected.iter().map(|one| at(one)).collect();
        assert_eq!(
            samples_of(hour, &zone(name), 3, at(since)),
            expected,
            "{name} {start}"
        );
    }

    #[test]
    fn an_hour_is_compared_with_the_same_hour_of_the_local_clock() {
        let long_ago = "2020-01-01T00:00:00Z";
        check_samples(
            "UTC",
            "2026-03-02T10:00:00Z",
            "2026-02-16T10:00:00Z",
            &["2026-02-23T10:00:00Z", "2026-02-16T10:00:00Z"],
        );
        // Monday 10:00 in Paris, before and after the clocks were put forward.
        check_samples(
            "Europe/Paris",
            "2026-04-06T08:00:00Z",
            long_ago,
            &[
                "2026-03-30T08:00:00Z",
                "2026-03-23T09:00:00Z",
                "2026-03-16T09:00:00Z",
            ],
        );
        // On 29 March there is no 02:00 in Paris.
        check_samples(
            "Europe/Paris",
            "2026-04-05T00:00:00Z",
            long_ago,
            &["2026-03-22T01:00:00Z", "2026-03-15T01:00:00Z"],
        );
        // On 25 October there are two.
        check_samples(
            "Europe/Paris",
            "2026-11-01T01:00:00Z",
            long_ago,
            &[
                "2026-10-25T01:00:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-18T00:00:00Z",
                "2026-10-11T00:00:00Z",
            ],
        );
    }
}
