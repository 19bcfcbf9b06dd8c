//! When people are told: at a share of a limit, once a window.

use octroi_core::Units;

/// The thresholds that `before` had not reached and `after` has, the smallest first.
///
/// A threshold of `t` percent is reached once `used * 100 >= t * limit`. A limit of 0 has none: there is
/// no share of nothing. Because only the step from `before` to `after` counts, thresholds that a use had
/// passed already when its limit changed do not fire afterwards.
#[must_use]
pub fn crossed(thresholds: &[u32], limit: Units, before: u128, after: u128) -> Vec<u32> {
    let limit = u128::from(limit.get());
    if limit == 0 {
        return Vec::new();
    }
    let reached = |used: u128, percent: u32| used.saturating_mul(100) >= u128::from(percent) * limit;
    let mut crossed: Vec<u32> = thresholds
        .iter()
        .copied()
        .filter(|percent| !reached(before, *percent) && reached(after, *percent))
        .collect();
    crossed.sort_unstable();
    crossed
}

/// Whether a use has reached none of the thresholds. Of a limit of 0 nothing is normal.
#[must_use]
pub fn is_normal(thresholds: &[u32], limit: Units, used: u128) -> bool {
    limit > Units::ZERO && crossed(thresholds, limit, 0, used).is_empty()
}

#[cfg(test)]
mod tests {
    use octroi_core::entitlement::DEFAULT_THRESHOLDS;
    use proptest::prelude::*;

    use super::*;

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    #[test]
    fn a_threshold_is_crossed_by_the_step_that_reaches_it() {
        for (limit, before, after, expected) in [
            (100, 0, 79, vec![]),
            (100, 79, 80, vec![80]),
            (100, 80, 94, vec![]),
            (100, 70, 100, vec![80, 95, 100]),
            (100, 100, 200, vec![]),
            (3, 2, 3, vec![80, 95, 100]),
            (0, 0, 5, vec![]),
        ] {
            assert_eq!(
                crossed(&DEFAULT_THRESHOLDS, units(limit), before, after),
                expected,
                "{limit} {before} {after}"
            );
        }
    }

    #[test]
    fn a_use_is_normal_below_every_threshold() {
        for (limit, used, expected) in [
            (100, 0, true),
            (100, 79, true),
            (100, 80, false),
            (1, 0, true),
            (0, 0, false),
        ] {
            let normal = is_normal(&DEFAULT_THRESHOLDS, units(limit), used);
            assert_eq!(normal, expected, "{used} of {limit}");
        }
    }

    proptest! {
        #[test]
        fn however_the_use_grows_each_threshold_is_crossed_once(
            limit in 1_u64..10_000,
            steps in prop::collection::vec(1_u64..500, 1..60),
        ) {
            let mut used = 0_u128;
            let mut fired = Vec::new();
            for step in steps {
                let after = used + u128::from(step);
                fired.extend(crossed(&DEFAULT_THRESHOLDS, units(limit), used, after));
                used = after;
            }
            let expected: Vec<u32> =
                DEFAULT_THRESHOLDS.into_iter().filter(|t| used * 100 >= u128::from(*t) * u128::from(limit)).collect();
            prop_assert_eq!(fired, expected);
        }
    }
}
