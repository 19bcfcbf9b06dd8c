//! How much is carved at a time: about as much as is spent within a second, so that few carves pay for much, and what a
//! dead replica takes with it is seldom more than a second or two of its work.

use jiff::{SignedDuration, Timestamp};
use octroi_core::Units;

/// A slice that lasted for less was too small.
const SHORT: SignedDuration = SignedDuration::from_millis(500);
/// A slice that lasted for longer was too large.
const LONG: SignedDuration = SignedDuration::from_secs(4);
/// By how much the next is larger or smaller.
const FACTOR: u64 = 4;

/// The size of the slices of one metric of an account at one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How much was wanted last, and when.
    last: Option<(Units, Timestamp)>,
}

impl Pace {
    /// How much the next slice may have, at the least and at the most, given how long the last one lasted.
    pub fn next(&mut self, least: Units, most: Units, now: Timestamp) -> Units {
        let want = self.last.map_or(least.get(), |(want, since)| {
            let lasted = now.duration_since(since);
            if lasted < SHORT {
                want.get().saturating_mul(FACTOR)
            } else if lasted > LONG {
                want.get() / FACTOR
            } else {
                want.get()
            }
        });
        let most = most.max(least);
        let want = Units::new(want).unwrap_or(most).clamp(least, most);
        self.last = Some((want, now));
        want
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    fn wants(gaps_ms: &[i64]) -> Vec<u64> {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut pace = Pace::default();
        let mut next = |gap_ms: i64| {
            now += gap_ms.milliseconds();
            pace.next(units(1_000), units(20_000), now).get()
        };
        gaps_ms.iter().map(|gap_ms| next(*gap_ms)).collect()
    }

    #[test]
    fn slices_grow_where_they_last_for_less_than_half_a_second_and_never_beyond_the_most() {
        assert_eq!(
            wants(&[0, 100, 499, 100, 100]),
            [1_000, 4_000, 16_000, 20_000, 20_000]
        );
    }

    #[test]
    fn slices_stay_as_they_are_where_they_last_for_a_second_or_so() {
        assert_eq!(
            wants(&[0, 100, 500, 1_000, 4_000]),
            [1_000, 4_000, 4_000, 4_000, 4_000]
        );
    }

    #[test]
    fn slices_shrink_where_they_last_for_long_and_never_below_the_least() {
        assert_eq!(
            wants(&[0, 100, 4_001, 4_001, 4_001]),
            [1_000, 4_000, 1_000, 1_000, 1_000]
        );
    }

    #[test]
    fn the_most_is_no_less_than_the_least() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(units(10), units(1), Timestamp::UNIX_EPOCH), units(10));
    }
}
