//! Whole weeks of hours, looked at one after the other.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::Units;
use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    weeks: 8,
    score_min: 5_000,
    difference_min: 20,
};
/// A Monday.
const FIRST: &str = "2026-01-05T00:00:00Z";
const HOURS_OF_WEEK: i64 = 7 * 24;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

/// Use by quarters of an hour.
#[derive(Clone)]
struct Series(BTreeMap<Timestamp, u64>);

impl Series {
    /// Hours from [`FIRST`] on; each is used evenly.
    fn of(count: i64, amount: impl Fn(i64) -> u64) -> Self {
        let mut series = Self(BTreeMap::new());
        for hour in 0..count {
            series.set(hour, amount(hour));
        }
        series
    }

    /// What hour `hour` uses: all of it in its first quarter.
    fn set(&mut self, hour: i64, amount: u64) {
        self.0.insert(at(FIRST) + hours(hour), amount);
    }

    fn scaled(&self, by: u64) -> Self {
        Self(self.0.iter().map(|(at, amount)| (*at, amount * by)).collect())
    }

    fn hour(&self, start: Timestamp) -> u64 {
        self.0.range(start..start + HOUR).map(|(_, amount)| amount).sum()
    }

    /// Looks at `time`, hours from [`FIRST`] on, as the job does.
    fn look(&self, zone: &TimeZone, time: std::ops::Range<i64>) -> Vec<(Course, u32)> {
        let mut found: Vec<(Course, u32)> = Vec::new();
        let since = *self.0.keys().next().expect("some use");
        for number in time {
            for hour in hours_ended(at(FIRST) + hours(number), zone) {
                let samples: Vec<Sample> = samples_of(hour, zone, RULES.weeks, since)
                    .into_iter()
                    .map(|at| {
                        let mut sample = Sample::default();
                        for after in -3..=3 {
                            sample.set(after, self.hour(at + hours(after)));
                        }
                        sample
                    })
                    .collect();
                if samples.len() < 3 {
                    continue;
                }
                let Some(finding) = judge(hour, self.hour(hour.start), &samples, &RULES) else {
                    continue;
                };
                let last = found.iter().rposition(|(course, _)| course.kind == finding.kind);
                match next(last.map(|place| &found[place].0), &finding) {
                    Step::Known => {}
                    Step::Begin(course) => found.push((course, 1)),
                    Step::Grow { course, tell } => {
                        let last = &mut found[last.expect("there is one")];
                        *last = (course, last.1 + u32::from(tell));
                    }
                }
            }
        }
        found
    }
}

/// Numbers that look like chance, from 0 to `below`, not included.
fn chance(seed: u64, number: i64, below: u64) -> u64 {
    let mut mixed = seed ^ number.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3 {
        mixed ^= mixed >> 29;
        mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    (mixed >> 16) % below
}

/// Days and nights, and weekends that are less.
fn season(hour: i64) -> u64 {
    let (day, time) = (hour / 24 % 7, hour % 24);
    match (day, time) {
        (5.., _) => 300,
        (_, 0..=6) => 100,
        (_, 9..=17) => 1_000,
        _ => 500,
    }
}

/// The season, up to `percent` more or less, as a sum of chances, so that the ends are rare.
fn noisy(seed: u64, percent: u64) -> impl Fn(i64) -> u64 {
    move |hour| {
        let noise: u64 = (0..4)
            .map(|part| chance(seed + part, hour, percent / 2 + 1))
            .sum();
        season(hour) * (100 - percent + noise) / 100
    }
}

const WEEKS: i64 = 12 * HOURS_OF_WEEK;
/// What is looked at: from the fourth week on.
const LOOKED: std::ops::Range<i64> = 0..WEEKS;

#[test]
fn normal_weeks_are_quiet() {
    for zone in ["UTC", "America/Phoenix", "Asia/Kathmandu"] {
        let zone = TimeZone::get(zone).expect("a zone");
        for seed in 0..12 {
            for percent in [0, 20, 40] {
                let series = Series::of(WEEKS, noisy(seed, percent));
                assert_eq!(series.look(&zone, LOOKED), [], "{seed} {percent}");
            }
        }
    }
}

#[test]
fn wild_weeks_are_told_of_once_in_ten_at_the_most() {
    let (mut found, mut weeks) = (0, 0);
    for seed in 0..24 {
        let series = Series::of(WEEKS, noisy(seed, 60));
        found += series.look(&TimeZone::UTC, LOOKED).len();
        weeks += 9;
    }
    assert!(found * 10 <= weeks, "{found} in {weeks} weeks");
}

#[test]
fn use_that_comes_at_no_regular_hour_is_told_by_nothing_but_a_record() {
    // 50 units in every eleventh hour or so: each is a finding of an hour that usually has none.
    let series = Series::of(WEEKS, |hour| if chance(7, hour, 11) == 0 { 50 } else { 0 });
    let since = at(FIRST);
    let mut findings = 0;
    for number in 4 * HOURS_OF_WEEK..WEEKS {
        let hour = hours_ended(at(FIRST) + hours(number), &TimeZone::UTC)[0];
        let during = |at| Sample {
            during: series.hour(at),
            ..Sample::default()
        };
        let samples: Vec<Sample> = samples_of(hour, &TimeZone::UTC, 8, since)
            .into_iter()
            .map(during)
            .collect();
        if let Some(finding) = judge(hour, series.hour(hour.start), &samples, &RULES) {
            findings += 1;
            assert!(!finding.stands(50) && finding.stands(49), "{finding:?}");
        }
    }
    assert!(findings > 10, "{findings}");
}

#[test]
fn a_planted_spike_and_a_planted_drop_are_found_with_their_hours() {
    let monday = 10 * HOURS_OF_WEEK;
    let mut series = Series::of(WEEKS, noisy(3, 20));
    for (hour, amount) in [(34, 4_000), (35, 9_000), (36, 4_500)] {
        series.set(monday + hour, amount);
    }
    for hour in 58..62 {
        series.set(monday + hour, 3);
    }
    let found = series.look(&TimeZone::UTC, LOOKED);
    let [(spike, told), (drop, _)] = &found[..] else {
        panic!("{found:?}");
    };
    let hour = |hour| at(FIRST) + hours(monday + hour);
    assert_eq!(
        (spike.kind, spike.start_at, spike.end_at, spike.hours),
        (Kind::Spike, hour(34), hour(37), 3)
    );
    assert_eq!((spike.peak.start_at, spike.peak.actual), (hour(35), 9_000));
    assert_eq!((spike.actual, *told), (17_500, 2), "twice as far is told again");
    assert!((900..=1_100).contains(&spike.peak.expected), "{spike:?}");
    assert!(spike.peak.low <= spike.peak.expected && spike.peak.expected <= spike.peak.high);
    assert_eq!(
        (drop.kind, drop.start_at, drop.end_at, drop.hours),
        (Kind::Drop, hour(58), hour(62), 4)
    );
}

#[test]
fn a_new_account_is_quiet_until_it_has_three_weeks() {
    let mut series = Series::of(WEEKS, season);
    series.set(2 * HOURS_OF_WEEK + 34, 50_000);
    assert_eq!(series.look(&TimeZone::UTC, LOOKED), []);
    series.set(3 * HOURS_OF_WEEK + 34, 50_000);
    assert_eq!(series.look(&TimeZone::UTC, LOOKED).len(), 1);
}

#[test]
fn a_level_that_moves_is_told_once_and_is_normal_after_two_weeks() {
    let moved_at = 9 * HOURS_OF_WEEK + 12;
    let series = Series::of(WEEKS, |hour| season(hour) * if hour < moved_at { 1 } else { 3 });
    let found = series.look(&TimeZone::UTC, LOOKED);
    let [(spike, 1)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(spike.start_at, at(FIRST) + hours(moved_at));
    assert_eq!(spike.end_at, spike.start_at + hours(2 * HOURS_OF_WEEK));
}

#[test]
fn the_hours_of_the_local_clock_go_on_when_the_clocks_are_changed() {
    let paris = TimeZone::get("Europe/Paris").expect("a zone");
    // On 29 March 2026 the clocks are put forward. Whoever lives by them is expected to.
    let series = Series::of(20 * HOURS_OF_WEEK, |hour| {
        let local = paris.to_datetime(at(FIRST) + hours(hour));
        if (9..18).contains(&local.hour()) {
            1_000
        } else {
            200
        }
    });
    assert_eq!(series.look(&paris, 0..20 * HOURS_OF_WEEK), []);
    assert!(!series.look(&TimeZone::UTC, 0..20 * HOURS_OF_WEEK).is_empty());
}

#[test]
fn findings_within_a_day_are_one_anomaly_and_an_hour_counts_once() {
    let finding = |hour: i64, score: u64| Finding {
        hour: Window {
            start: at(FIRST) + hours(hour),
            end: at(FIRST) + hours(hour + 1),
        },
        kind: Kind::Spike,
        actual: 100,
        expected: 10,
        low: 5,
        high: 15,
        score,
        is_of_idle_hour: false,
    };
    let Step::Begin(first) = next(None, &finding(0, 6_000)) else {
        panic!("nothing began");
    };
    assert_eq!(next(Some(&first), &finding(0, 9_000)), Step::Known);
    for (hour, score, tell) in [(1, 11_999, false), (1, 12_000, true), (25, 6_000, false)] {
        let Step::Grow { course, tell: told } = next(Some(&first), &finding(hour, score)) else {
            panic!("it did not grow");
        };
        assert_eq!(
            (told, course.hours, course.actual),
            (tell, 2, 200),
            "{hour} {score}"
        );
        assert_eq!(course.end_at, at(FIRST) + hours(hour + 1));
        assert_eq!(course.told_score, if tell { score } else { 6_000 });
    }
    assert!(matches!(next(Some(&first), &finding(26, 6_000)), Step::Begin(_)));
}

#[track_caller]
fn check(samples: &[u64], actual: u64, found: Option<(Kind, u64)>) {
    let hour = hours_ended(at(FIRST), &TimeZone::UTC)[0];
    let samples: Vec<Sample> = samples
        .iter()
        .map(|during| Sample {
            during: *during,
            around: [*during; AROUND],
        })
        .collect();
    let finding = judge(hour, actual, &samples, &RULES);
    assert_eq!(
        finding.map(|one| (one.kind, one.score)),
        found,
        "{samples:?} {actual}"
    );
}

#[test]
fn an_hour_is_judged_by_its_median_and_its_robust_deviation() {
    use Kind::{Drop, Spike};
    // A series that never moves: a tenth of the median is a deviation, an eighth of it where there are eight weeks.
    check(&[1_000; 8], 1_625, None);
    check(&[1_000; 8], 1_626, Some((Spike, 5_008)));
    check(&[1_000; 8], 375, None);
    check(&[1_000; 8], 374, Some((Drop, 5_008)));
    // The MAD is 200, so a deviation is 296.52, or 381.24 of seven weeks.
    let spread = [800, 1_200, 800, 1_200, 800, 1_200, 1_000];
    check(&spread, 2_906, None);
    check(&spread, 2_907, Some((Spike, 5_002)));
    check(&spread, 0, None);
    // Tiny: 20 units must lie between.
    check(&[2; 8], 22, None);
    check(&[2; 8], 23, Some((Spike, 5_250)));
    check(&[15; 8], 0, None);
    // One wild week in the past changes nothing.
    check(&[1_000, 1_000, 90_000, 1_000, 1_000], 2_000, Some((Spike, 7_142)));
    // Two new weeks are a new level, and a week without use is one that is not missed.
    check(&[3_000, 3_000, 1_000, 1_000, 1_000, 1_000], 3_000, None);
    check(&[1_000, 1_000, 1_000, 0, 1_000], 0, None);
    // Of even numbers the median lies between.
    check(&[999, 1_000], 1_999, None);
    check(&[999, 1_000], 2_000, Some((Spike, 5_005)));
    check(&[1], 90, None);
    check(&[Units::MAX.get(); 3], 0, Some((Drop, 6_000)));
}

#[test]
fn a_place_in_the_list_is_what_was_written_of_it() {
    let place = Place {
        start_at: at(FIRST),
        id: Uuid::from_u128(7),
    };
    assert_eq!(place.to_string().parse(), Ok(place));
    for text in [
        "",
        "1",
        "1.",
        ".1",
        "1.x",
        "x.00000000-0000-0000-0000-000000000007",
    ] {
        assert_eq!(text.parse::<Place>(), Err(NotAPlace), "{text}");
    }
}

proptest! {
    #[test]
    fn a_verdict_has_no_unit(
        samples in proptest::collection::vec(proptest::array::uniform5(500_u64..5_000), 3..9),
        actual in 0_u64..20_000, by in 2_u64..1_000,
    ) {
        let hour = hours_ended(at(FIRST), &TimeZone::UTC)[0];
        let scaled = |by: u64| -> Vec<Sample> {
            let one = |[during, around @ ..]: &[u64; 5]| Sample {
                during: during * by,
                around: around.map(|amount| amount * by),
            };
            samples.iter().map(one).collect()
        };
        let one = judge(hour, actual, &scaled(1), &RULES).map(|finding| (finding.kind, finding.score));
        let other = judge(hour, actual * by, &scaled(by), &RULES).map(|finding| (finding.kind, finding.score));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn what_is_expected_is_never_found_and_what_is_beyond_it_is(
        samples in proptest::collection::vec(1_u64..5_000, 3..9), actual in 0_u64..50_000,
    ) {
        let samples: Vec<Sample> = samples.into_iter().map(|during| Sample { during, ..Sample::default() }).collect();
        let hour = hours_ended(at(FIRST), &TimeZone::UTC)[0];
        let baseline = Baseline::of(&samples, &RULES).expect("enough");
        let (low, high) = (baseline.low(&RULES), baseline.high(&RULES));
        prop_assert!(low <= baseline.expected() && baseline.expected() <= high);
        match judge(hour, actual, &samples, &RULES) {
            Some(finding) => {
                prop_assert!(actual < low || actual > high);
                prop_assert_eq!((finding.low, finding.high), (low, high));
                prop_assert!(finding.score >= RULES.score_min);
            }
            // Two new weeks on the same side have moved the level.
            None => {
                let beyond = |amount: u64| (amount > high, amount < low);
                let moved = samples[..2].iter().all(|sample| beyond(sample.during) == beyond(actual));
                prop_assert!((low..=high).contains(&actual) || moved);
            }
        }
    }

    #[test]
    fn the_same_weeks_scaled_are_told_the_same(seed in 0_u64..1_000, hour in 0_i64..HOURS_OF_WEEK, by in 2_u64..50) {
        let mut series = Series::of(9 * HOURS_OF_WEEK, noisy(seed, 20));
        let planted = 8 * HOURS_OF_WEEK + hour;
        series.set(planted, season(planted) * 6);
        let looked = 8 * HOURS_OF_WEEK..9 * HOURS_OF_WEEK;
        let times = |series: &Series| -> Vec<(Kind, Timestamp, Timestamp)> {
            let found = series.look(&TimeZone::UTC, looked.clone()).into_iter();
            found.map(|(course, _)| (course.kind, course.start_at, course.end_at)).collect()
        };
        let found = times(&series);
        let start_at = at(FIRST) + hours(planted);
        prop_assert_eq!(&found, &[(Kind::Spike, start_at, start_at + HOUR)]);
        prop_assert_eq!(times(&series.scaled(by)), found);
    }
}
