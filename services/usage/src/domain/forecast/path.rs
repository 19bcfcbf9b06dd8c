//! One way in which the hours ahead may be used.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use octroi_core::Units;

use super::{HOUR, PACE_UNIT, Target};

/// One way in which the hours ahead may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// When it reaches the limit; none where it does not, or where it was reached before.
    pub(super) reach_at: Option<Timestamp>,
    /// What is used at its end.
    pub(super) end_value: Units,
}

/// Walks through `time` by the hours that begin at `present`; `hour` tells what the one that begins at an instant uses, in
/// thousandths. Within an hour it is used evenly.
pub(super) fn walk(
    target: &Target,
    present: Timestamp,
    time: Range<Timestamp>,
    hour: impl Fn(Timestamp) -> u128,
) -> Path {
    let limit = u128::from(target.limit.get()) * PACE_UNIT;
    let mut used = u128::from(target.used.get()) * PACE_UNIT;
    let mut reach_at = None;
    let mut at = present;
    while at < time.end {
        let next = at.saturating_add(HOUR).unwrap_or(time.end);
        let (from, to) = (at.max(time.start), next.min(time.end));
        let length_us = micros(to.duration_since(from));
        let amount = hour(at) * length_us / micros(HOUR);
        if used < limit && used + amount >= limit {
            // Rounded up: not before it is there.
            let into_us = ((limit - used) * length_us).div_ceil(amount.max(1));
            let into_us = i64::try_from(into_us).unwrap_or(i64::MAX);
            let into = SignedDuration::from_micros(into_us);
            reach_at = Some(from.saturating_add(into).map_or(to, |at| at.min(to)));
        }
        used = used.saturating_add(amount);
        at = next;
    }
    let end_value = u64::try_from(used / PACE_UNIT).ok();
    Path {
        reach_at,
        end_value: end_value
            .and_then(|value| Units::new(value).ok())
            .unwrap_or(Units::MAX),
    }
}

fn micros(time: SignedDuration) -> u128 {
    u128::try_from(time.as_micros()).unwrap_or_default()
}
