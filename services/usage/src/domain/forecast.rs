//! When a limit will be reached: by the weeks before, each as if it came again, at the pace of the present one.
//!
//! Every whole week of the history gives one path: what its hours used, at the same time of the local clock, scaled by how
//! the present pace compares with the weeks. The most likely instant is the median of those of the paths, the earliest and
//! the latest are the ends of what is likely. Of a new week that is exchangeable with n before it, one between the smallest
//! and the largest of them has the chance (n − 1) / (n + 1): 78 % of eight weeks. Where there are fewer than three weeks, the
//! average pace so far goes on.

mod history;
mod path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::{MetricSlug, Units, Window};

pub use self::history::History;
use self::path::{Path, walk};
use super::buckets::quarter_of;

/// The most weeks that a forecast is made from.
pub const WEEKS_MAX: u32 = 8;
/// Of fewer weeks there is no season.
const WEEKS_MIN: usize = 3;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// How far ahead it looks at the most.
const HORIZON_MAX: SignedDuration = SignedDuration::from_hours(92 * 24);
/// An average needs this part of the window.
const WINDOW_SHARE: i32 = 10;
/// From so much time on an average has a spread of its own: that of its four parts.
const SPREAD_MIN: SignedDuration = SignedDuration::from_hours(4);
const PARTS: i32 = 4;
/// Paces are in thousandths.
const PACE_UNIT: u128 = 1_000;
/// No pace is more than a hundred times that of the weeks.
const PACE_MAX: u128 = 100 * PACE_UNIT;

/// One limit in the window that runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is limited.
    pub metric: MetricSlug,
    /// The limit in force.
    pub limit: Units,
    /// What the window has used.
    pub used: Units,
    /// The window.
    pub window: Window,
}

/// What a forecast is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// So many weeks.
    Weeks(u32),
    /// The average pace so far.
    Average,
}

/// When a limit will be reached, or what its window will have used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// What it is made from.
    pub method: Method,
    /// Until when it looks.
    pub horizon: Timestamp,
    /// The limit is reached already; then none of the instants is there.
    pub is_reached: bool,
    /// When the limit will be reached, most likely; none where it will not be before the horizon.
    pub reach_at: Option<Timestamp>,
    /// The earliest of the instants at which it may be.
    pub reach_at_low: Option<Timestamp>,
    /// The latest; none where it may not be reached at all.
    pub reach_at_high: Option<Timestamp>,
    /// What will be used by the horizon, most likely, as if nothing were refused.
    pub end_value: Units,
    /// The least that may be.
    pub end_value_low: Units,
    /// The most.
    pub end_value_high: Units,
}

/// The forecast of one limit; none where there is too little use to go by.
#[must_use]
pub fn forecast(target: &Target, history: &History, now: Timestamp, zone: &TimeZone) -> Option<Forecast> {
    let latest = now.saturating_add(HORIZON_MAX).unwrap_or(Timestamp::MAX);
    let horizon = target.window.end.min(latest).max(now);
    let ahead = Ahead {
        target,
        history,
        now,
        horizon,
    };
    let (method, paths) = ahead
        .by_weeks(zone)
        .or_else(|| ahead.by_average().map(|paths| (Method::Average, paths)))?;
    Some(summary(target, method, horizon, paths))
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
struct Ahead<'a> {
    target: &'a Target,
    history: &'a History,
    now: Timestamp,
    horizon: Timestamp,
}

impl Ahead<'_> {
    /// A path a week of the history; none where there are too few, or where half of them have no use.
    fn by_weeks(&self, zone: &TimeZone) -> Option<(Method, Vec<Path>)> {
        let present = quarter_of(self.now);
        let first_at = self.history.first_at()?;
        let weeks: Vec<i32> = (1..)
            .take(usize::try_from(WEEKS_MAX).unwrap_or_default())
            .take_while(|week| present.duration_since(first_at) >= WEEK * *week)
            .collect();
        if weeks.len() < WEEKS_MIN {
            return None;
        }
        let pace = self.pace(&weeks)?;
        let hour_of_week = |week: i32, at: Timestamp| {
            // A week that has come to its end begins again.
            let round = at.duration_since(present).as_secs().div_euclid(WEEK.as_secs());
            let back = WEEK * week.saturating_add(i32::try_from(round).unwrap_or(i32::MAX));
            let then = at.saturating_sub(back).unwrap_or(Timestamp::MIN);
            // The same time of the local clock.
            let offset_s = |at| i64::from(zone.to_offset(at).seconds());
            let moved = SignedDuration::from_secs(offset_s(at) - offset_s(then));
            let start = then.saturating_add(moved).unwrap_or(then);
            self.history
                .between(start, start.saturating_add(HOUR).unwrap_or(start))
                * pace
        };
        let paths = weeks.iter().map(|week| {
            walk(self.target, present, self.now..self.horizon, |at| {
                hour_of_week(*week, at)
            })
        });
        let paths = paths.collect();
        Some((
            Method::Weeks(u32::try_from(weeks.len()).unwrap_or(WEEKS_MAX)),
            paths,
        ))
    }

    /// The present pace, in thousandths of that of the weeks, rounded down; none where half of the weeks have no use.
    ///
    /// It is that of the last seven days and that of the window so far, whose weight grows from nothing to that of a day's use:
    /// after a day, or after as much as the whole of a shorter window, half of it is the window's.
    fn pace(&self, weeks: &[i32]) -> Option<u128> {
        let totals = weeks.iter().map(|week| self.sum_back(WEEK, WEEK * (*week - 1)));
        let usual = median(totals.collect());
        if usual == 0 {
            return None;
        }
        let of_week = self.sum_back(WEEK, SignedDuration::ZERO) * PACE_UNIT / usual;
        let elapsed = self.now.duration_since(self.target.window.start).min(WEEK);
        // The window began within the last week, so its use is known to the second.
        let used = if elapsed < WEEK {
            self.target.used.get().into()
        } else {
            self.sum_back(WEEK, SignedDuration::ZERO)
        };
        // The oldest week has no whole week before its end.
        let before = weeks.iter().take(weeks.len() - 1);
        let expected = median(before.map(|week| self.sum_back(elapsed, WEEK * *week)).collect());
        let length = self.target.window.end.duration_since(self.target.window.start);
        let length_s = u128::try_from(length.min(DAY).as_secs()).unwrap_or_default();
        let weight = usual * length_s / u128::try_from(WEEK.as_secs()).unwrap_or(1);
        let pace = (used * PACE_UNIT + of_week * weight)
            .checked_div(expected + weight)
            .unwrap_or(of_week);
        Some(pace.min(PACE_MAX))
    }

    /// What was used in `length` until `back` before now.
    fn sum_back(&self, length: SignedDuration, back: SignedDuration) -> u128 {
        let end = self.now.saturating_sub(back).unwrap_or(Timestamp::MIN);
        let start = end.saturating_sub(length).unwrap_or(Timestamp::MIN);
        self.history.between(start, end)
    }

    /// The average so far, and its slowest and its fastest part; none where too little of the window is over, or used.
    fn by_average(&self) -> Option<Vec<Path>> {
        let window = self.target.window;
        let first_at = self.history.first_at().unwrap_or(window.start);
        let from = window.start.max(first_at);
        let elapsed = self.now.duration_since(from);
        let length = window.end.duration_since(window.start);
        if elapsed < (length / WINDOW_SHARE).min(DAY) || elapsed <= SignedDuration::ZERO {
            return None;
        }
        let amount = if window.start >= self.history.start() {
            self.target.used.get().into()
        } else {
            self.history.between(from, self.now)
        };
        if amount == 0 {
            return None;
        }
        let hourly = |amount: u128, time: SignedDuration| {
            let time_us = u128::try_from(time.as_micros()).unwrap_or(1).max(1);
            amount * PACE_UNIT * u128::try_from(HOUR.as_micros()).unwrap_or_default() / time_us
        };
        let average = hourly(amount, elapsed);
        let (slow, fast) = if elapsed < SPREAD_MIN {
            (average / 2, average * 2)
        } else {
            let part = elapsed / PARTS;
            let parts = (0..PARTS).map(|number| self.sum_back(part, part * number));
            let paces: Vec<u128> = parts.map(|amount| hourly(amount, part)).collect();
            let slow = paces.iter().copied().min().unwrap_or(average);
            let fast = paces.iter().copied().max().unwrap_or(average);
            (slow.min(average), fast.max(average))
        };
        let present = quarter_of(self.now);
        let walk_at = |pace| walk(self.target, present, self.now..self.horizon, |_| pace);
        Some([slow, average, fast].map(walk_at).into())
    }
}

fn summary(target: &Target, method: Method, horizon: Timestamp, mut paths: Vec<Path>) -> Forecast {
    // The largest end is that of the path that reaches the limit first.
    paths.sort_by_key(|path| (path.reach_at.is_none(), path.reach_at));
    let reach_at = |place: usize| paths.get(place).and_then(|path| path.reach_at);
    let mut ends: Vec<Units> = paths.iter().map(|path| path.end_value).collect();
    ends.sort_unstable();
    let end = |place: usize| ends.get(place).copied().unwrap_or(target.used);
    let last = paths.len().saturating_sub(1);
    Forecast {
        method,
        horizon,
        is_reached: target.used >= target.limit,
        // Of two in the middle the one that is worse.
        reach_at: reach_at(last / 2),
        reach_at_low: reach_at(0),
        reach_at_high: reach_at(last),
        end_value: end(last.div_ceil(2)),
        end_value_low: end(0),
        end_value_high: end(last),
    }
}

/// The median, of an even number the larger of the two in the middle; 0 of nothing.
fn median(mut numbers: Vec<u128>) -> u128 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
