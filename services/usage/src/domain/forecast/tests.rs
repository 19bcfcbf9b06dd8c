use octroi_core::Units;
use proptest::prelude::*;

use super::*;

/// A Monday, at noon.
const NOW: &str = "2026-03-02T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn units(amount: u64) -> Units {
    Units::new(amount).expect("in range")
}

/// The history before [`NOW`]: `hour` says what is used in the hour that begins so many hours before it.
fn history(weeks: i64, hour: impl Fn(i64) -> u64) -> History {
    let now = at(NOW);
    let range = Window {
        start: now - WEEK * 8 - DAY,
        end: now,
    };
    let amounts = (1..=weeks * 168).map(|back| (now - hours(back), u128::from(hour(back))));
    History::new(range, amounts)
}

fn target(limit: u64, used: u64, start: &str, end: &str) -> Target {
    Target {
        metric: MetricSlug::parse("api.requests").expect("a slug"),
        limit: units(limit),
        used: units(used),
        window: Window {
            start: at(start),
            end: at(end),
        },
    }
}

fn told(target: &Target, history: &History) -> Forecast {
    forecast(target, history, at(NOW), &TimeZone::UTC).expect("enough use")
}

#[test]
fn what_comes_first_is_told_the_limit_or_the_end_of_the_window() {
    // 10 units in each hour of eight weeks, and 12 h are left of the day.
    let history = history(8, |_| 10);
    let day = |limit| target(limit, 120, "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z");
    let limit_first = told(&day(150), &history);
    assert_eq!(limit_first.method, Method::Weeks(8));
    for reach_at in [
        limit_first.reach_at,
        limit_first.reach_at_low,
        limit_first.reach_at_high,
    ] {
        assert_eq!(reach_at, Some(at("2026-03-02T15:00:00Z")));
    }
    let end_first = told(&day(241), &history);
    assert_eq!((end_first.reach_at, end_first.reach_at_low), (None, None));
    assert_eq!(end_first.horizon, at("2026-03-03T00:00:00Z"));
    for end in [
        end_first.end_value_low,
        end_first.end_value,
        end_first.end_value_high,
    ] {
        assert_eq!(end, units(240));
    }
    let reached = told(&day(120), &history);
    assert!(reached.is_reached && reached.reach_at.is_none(), "{reached:?}");
}

#[test]
fn the_hours_ahead_are_those_of_the_weeks_and_not_an_average() {
    // Nothing but 100 units from 18:00 to 19:00 each day.
    let history = history(8, |back| if (24 - back % 24) % 24 == 6 { 100 } else { 0 });
    let month = target(350, 0, "2026-03-02T00:00:00Z", "2026-04-01T00:00:00Z");
    let forecast = told(&month, &history);
    assert_eq!(forecast.reach_at, Some(at("2026-03-05T18:30:00Z")));
}

#[test]
fn weeks_that_differ_make_the_span_and_the_present_pace_the_middle() {
    // The weeks used 4, 8, 12, .. an hour, the newest the least; and 28 units an hour were usual.
    let history = history(8, |back| u64::try_from((back - 1) / 168 + 1).unwrap() * 4);
    let month = target(100_000, 0, "2026-03-02T00:00:00Z", "2026-03-09T12:00:00Z");
    let forecast = told(&month, &history);
    assert!(forecast.end_value_low < forecast.end_value && forecast.end_value < forecast.end_value_high);
    // The last week used 4 an hour, and today nothing was used.
    assert!(forecast.end_value < units(4 * 168), "{forecast:?}");
}

#[test]
fn a_window_that_is_used_faster_than_the_weeks_is_forecast_by_it() {
    let history = history(8, |_| 100);
    let quiet = told(
        &target(5_000, 1_200, "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"),
        &history,
    );
    let fast = told(
        &target(5_000, 3_600, "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"),
        &history,
    );
    assert_eq!(quiet.end_value, units(2_400));
    // Three times as fast for half a day: a third of that is the window's, the rest the week's.
    assert_eq!(fast.end_value, units(3_600 + 12 * 166 + 7));
}

#[test]
fn the_local_clock_decides_which_hour_comes_again() {
    let paris = TimeZone::get("Europe/Paris").expect("a zone");
    let now = at("2026-03-30T06:30:00Z");
    let range = Window {
        start: quarter_of(now) - WEEK * 8 - DAY,
        end: quarter_of(now),
    };
    // 100 units at nine in the morning, which is an hour earlier since yesterday.
    let mut amounts = Vec::new();
    let mut day = at("2026-02-02T08:00:00Z");
    while day < at("2026-03-29T00:00:00Z") {
        amounts.push((day, 100));
        day += DAY;
    }
    amounts.push((at("2026-03-29T07:00:00Z"), 100));
    let history = History::new(range, amounts);
    let today = target(90, 0, "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z");
    let forecast = forecast(&today, &history, now, &paris).expect("enough use");
    assert_eq!(forecast.end_value, units(100));
    let reach_at = forecast.reach_at.expect("it is reached");
    assert!(
        (at("2026-03-30T07:00:00Z")..at("2026-03-30T08:30:00Z")).contains(&reach_at),
        "{forecast:?}"
    );
}

#[test]
fn a_young_account_is_forecast_by_its_average_and_a_younger_one_not_at_all() {
    let young = history(1, |_| 10);
    let month = target(10_000, 360, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z");
    let forecast = told(&month, &young);
    assert_eq!(forecast.method, Method::Average);
    // 10 an hour for the 708 h that are left.
    assert_eq!(
        (
            forecast.end_value_low,
            forecast.end_value,
            forecast.end_value_high
        ),
        (units(7_440), units(7_440), units(7_440))
    );
    let limited = told(
        &Target {
            limit: units(460),
            ..month.clone()
        },
        &young,
    );
    assert_eq!(limited.reach_at, Some(at(NOW) + hours(10)));
    for (window, used) in [
        (("2026-03-02T11:00:00Z", "2026-04-02T11:00:00Z"), 10),
        (("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"), 0),
    ] {
        let target = target(10_000, used, window.0, window.1);
        assert_eq!(
            super::forecast(&target, &young, at(NOW), &TimeZone::UTC),
            None,
            "{window:?}"
        );
    }
}

#[test]
fn a_lifetime_is_looked_at_for_92_days() {
    let lifetime = Target {
        window: Window::LIFETIME,
        ..target(1_000_000, 10, NOW, NOW)
    };
    for weeks in [8, 1] {
        let forecast = told(&lifetime, &history(weeks, |_| 10));
        assert_eq!(forecast.horizon, at(NOW) + HORIZON_MAX);
        assert_eq!(forecast.end_value, units(10 + 92 * 240), "{weeks}");
    }
}

#[test]
fn a_history_knows_what_lies_between_any_two_instants() {
    let history = history(8, |back| if back == 2 { 900 } else { 0 });
    let quarter = at("2026-03-02T10:00:00Z");
    assert_eq!(history.first_at(), Some(quarter));
    for (from_s, to_s, amount) in [
        (0, 900, 900),
        (-3_600, 7_200, 900),
        (0, 1, 1),
        (300, 600, 300),
        (600, 300, 0),
        (900, 7_200, 0),
    ] {
        let instant = |second| quarter + SignedDuration::from_secs(second);
        assert_eq!(
            history.between(instant(from_s), instant(to_s)),
            amount,
            "{from_s} {to_s}"
        );
    }
}

proptest! {
    #[test]
    fn what_is_told_is_in_order_and_within_the_window(
        amounts in proptest::collection::vec(0_u64..1_000, 168..500), limit in 1_u64..200_000, used in 0_u64..50_000,
        ends_h in 1_i64..900,
    ) {
        let pick = |back: i64| amounts[usize::try_from(back).unwrap() % amounts.len()];
        let target = Target {
            window: Window { start: at(NOW) - hours(30), end: at(NOW) + hours(ends_h) },
            ..target(limit, used, NOW, NOW)
        };
        for weeks in [1, 4, 8] {
            let Some(forecast) = forecast(&target, &history(weeks, pick), at(NOW), &TimeZone::UTC) else {
                continue;
            };
            prop_assert!(target.used <= forecast.end_value_low);
            prop_assert!(forecast.end_value_low <= forecast.end_value);
            prop_assert!(forecast.end_value <= forecast.end_value_high);
            prop_assert_eq!(forecast.is_reached, used >= limit);
            let reached: Vec<Timestamp> =
                [forecast.reach_at_low, forecast.reach_at, forecast.reach_at_high].into_iter().flatten().collect();
            prop_assert!(reached.is_sorted());
            prop_assert!(reached.iter().all(|reach_at| at(NOW) <= *reach_at && *reach_at <= forecast.horizon));
            // The limit is reached where the end is beyond it, and only there.
            prop_assert_eq!(forecast.reach_at.is_some(), !forecast.is_reached && forecast.end_value >= target.limit);
            prop_assert_eq!(
                forecast.reach_at_low.is_some(), !forecast.is_reached && forecast.end_value_high >= target.limit
            );
        }
    }
}
