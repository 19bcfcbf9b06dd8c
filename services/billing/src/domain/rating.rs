//! How much a price charges for the use of one period.
//!
//! The sum of a line is exact, in units of 10^-12 of a minor unit; it becomes whole once, at the end, by
//! [`round_half_up`].

use octroi_core::{
    Units,
    money::{MoneyError, round_half_up},
};
use rust_decimal::Decimal;

use super::price::{Price, Rate, Tier, UNIT_AMOUNT_SCALE, UnitAmount};

/// What `price` charges for `used` units in one period, in minor units.
///
/// # Errors
/// [`MoneyError::Overflow`] where the amount is beyond what a line can carry, some 7.9 * 10^16.
pub fn rate(price: &Price, used: Units) -> Result<i64, MoneyError> {
    match price {
        Price::Flat { amount_minor } => Ok(*amount_minor),
        Price::Metered {
            included_units, rate, ..
        } => {
            let billable = used.saturating_sub(*included_units).get();
            let exact = match rate {
                Rate::PerUnit { unit_amount } => times(*unit_amount, billable),
                Rate::Graduated { tiers } => graduated(tiers, billable),
                Rate::Volume { tiers } => volume(tiers, billable),
                Rate::Package {
                    unit_amount,
                    package_units,
                } => times(*unit_amount, billable.div_ceil(package_units.get())),
            };
            whole(exact.ok_or(MoneyError::Overflow)?)
        }
    }
}

/// Rounded once, half-up.
fn whole(exact: i128) -> Result<i64, MoneyError> {
    let exact =
        Decimal::try_from_i128_with_scale(exact, UNIT_AMOUNT_SCALE).map_err(|_| MoneyError::Overflow)?;
    round_half_up(exact)
}

/// At most 10^21 times 2^53, which fits 127 bits.
fn times(unit_amount: UnitAmount, units: u64) -> Option<i128> {
    unit_amount.scaled().checked_mul(i128::from(units))
}

fn with_flat(tier: &Tier, units: u64) -> Option<i128> {
    let flat = i128::from(tier.flat_amount_minor).checked_mul(10_i128.pow(UNIT_AMOUNT_SCALE))?;
    times(tier.unit_amount, units)?.checked_add(flat)
}

/// Each tier prices the units between the end of the one before and its own. A tier that no unit falls
/// into charges nothing, not even its fixed amount.
fn graduated(tiers: &[Tier], billable: u64) -> Option<i128> {
    let mut sum = 0_i128;
    let mut from = 0;
    for tier in tiers {
        let to = tier.up_to.map_or(billable, |up_to| up_to.get().min(billable));
        if to <= from {
            break;
        }
        sum = sum.checked_add(with_flat(tier, to - from)?)?;
        from = to;
    }
    Some(sum)
}

/// The first tier that holds the total prices all of it. No units, no charge.
fn volume(tiers: &[Tier], billable: u64) -> Option<i128> {
    if billable == 0 {
        return Some(0);
    }
    let reached = tiers
        .iter()
        .find(|tier| tier.up_to.is_none_or(|up_to| billable <= up_to.get()));
    reached.map_or(Some(0), |tier| with_flat(tier, billable))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use octroi_core::MetricSlug;
    use proptest::prelude::*;

    use super::*;

    fn metered(included: u64, rate: Rate) -> Price {
        Price::Metered {
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            included_units: units(included),
            rate,
        }
    }

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("in range")
    }

    fn amount(text: &str) -> UnitAmount {
        UnitAmount::parse(text).expect("a price")
    }

    fn tier(up_to: Option<u64>, unit_amount: &str, flat_amount_minor: i64) -> Tier {
        Tier {
            up_to: up_to.map(units),
            unit_amount: amount(unit_amount),
            flat_amount_minor,
        }
    }

    fn package(package_units: u64, unit_amount: UnitAmount) -> Rate {
        Rate::Package {
            unit_amount,
            package_units: NonZeroU64::new(package_units).expect("not 0"),
        }
    }

    #[track_caller]
    fn check(price: &Price, cases: &[(u64, i64)]) {
        for (used, expected) in cases {
            assert_eq!(
                rate(price, units(*used)),
                Ok(*expected),
                "{used} units of {price:?}"
            );
        }
    }

    #[test]
    fn a_flat_price_does_not_follow_use() {
        check(
            &Price::Flat { amount_minor: 1_900 },
            &[(0, 1_900), (1_000_000, 1_900)],
        );
    }

    #[test]
    fn a_unit_price_is_rounded_once_a_line() {
        // 3 x 0.335 is 1.005: rounding each unit would make 0.
        check(
            &metered(
                0,
                Rate::PerUnit {
                    unit_amount: amount("0.335"),
                },
            ),
            &[(0, 0), (1, 0), (2, 1), (3, 1), (100, 34)],
        );
        check(
            &metered(
                0,
                Rate::PerUnit {
                    unit_amount: amount("0.5"),
                },
            ),
            &[(1, 1), (2, 1), (3, 2)],
        );
    }

    #[test]
    fn included_units_cost_nothing() {
        let price = metered(
            1_000,
            Rate::PerUnit {
                unit_amount: amount("2"),
            },
        );
        check(&price, &[(0, 0), (1_000, 0), (1_001, 2), (1_500, 1_000)]);
    }

    #[test]
    fn each_graduated_tier_prices_its_own_units() {
        let tiers = vec![
            tier(Some(10), "5", 0),
            tier(Some(100), "3", 200),
            tier(None, "1", 0),
        ];
        check(
            &metered(0, Rate::Graduated { tiers }),
            &[
                (0, 0),
                (1, 5),
                (10, 50),
                (11, 50 + 200 + 3),
                (100, 50 + 200 + 270),
                (101, 521),
                (200, 620),
            ],
        );
    }

    #[test]
    fn the_volume_tier_that_is_reached_prices_every_unit() {
        let tiers = vec![
            tier(Some(10), "5", 0),
            tier(Some(100), "3", 200),
            tier(None, "1", 0),
        ];
        check(
            &metered(0, Rate::Volume { tiers }),
            &[(0, 0), (10, 50), (11, 233), (100, 500), (101, 101)],
        );
    }

    #[test]
    fn a_package_begun_is_a_package_sold() {
        let price = metered(5, package(100, amount("250")));
        check(&price, &[(0, 0), (5, 0), (6, 250), (105, 250), (106, 500)]);
    }

    #[test]
    fn the_largest_use_at_the_largest_price_is_refused_and_not_wrapped() {
        let price = metered(
            0,
            Rate::PerUnit {
                unit_amount: amount("999999999.999999999999"),
            },
        );
        assert_eq!(rate(&price, Units::MAX), Err(MoneyError::Overflow));
        let small = metered(
            0,
            Rate::PerUnit {
                unit_amount: amount("0.000000000001"),
            },
        );
        assert_eq!(rate(&small, Units::MAX), Ok(9_007));
    }

    fn any_unit_amount() -> impl Strategy<Value = UnitAmount> {
        (0_i64..1_000_000_000, 0_u32..=6).prop_map(|(mantissa, scale)| {
            UnitAmount::try_from(Decimal::new(mantissa, scale)).expect("in range")
        })
    }

    fn any_tiers() -> impl Strategy<Value = Vec<Tier>> {
        let step = (1_u64..200, any_unit_amount(), 0_i64..10_000);
        prop::collection::vec(step, 1..6).prop_map(|steps| {
            let mut end = 0;
            let last = steps.len() - 1;
            let tiers =
                steps
                    .into_iter()
                    .enumerate()
                    .map(|(index, (width, unit_amount, flat_amount_minor))| {
                        end += width;
                        Tier {
                            up_to: (index < last).then(|| units(end)),
                            unit_amount,
                            flat_amount_minor,
                        }
                    });
            tiers.collect()
        })
    }

    /// Unit by unit, as a person would.
    fn counted(tiers: &[Tier], used: u64) -> Decimal {
        let mut sum = Decimal::ZERO;
        let mut entered = None;
        for unit in 1..=used {
            let (index, tier) = tiers
                .iter()
                .enumerate()
                .find(|(_, tier)| tier.up_to.is_none_or(|up_to| unit <= up_to.get()))
                .expect("the last is open");
            if entered != Some(index) {
                entered = Some(index);
                sum += Decimal::from(tier.flat_amount_minor);
            }
            sum += tier.unit_amount.decimal();
        }
        sum
    }

    proptest! {
        #[test]
        fn graduated_tiers_agree_with_counting_unit_by_unit(tiers in any_tiers(), used in 0_u64..1_500) {
            let expected = round_half_up(counted(&tiers, used)).expect("small");
            prop_assert_eq!(rate(&metered(0, Rate::Graduated { tiers }), units(used)), Ok(expected));
        }

        #[test]
        fn more_use_never_costs_less_where_tiers_are_graduated(tiers in any_tiers(), used in 0_u64..2_000, more in 0_u64..2_000) {
            let price = metered(0, Rate::Graduated { tiers });
            let less = rate(&price, units(used)).expect("small");
            prop_assert!(less <= rate(&price, units(used + more)).expect("small"));
        }

        #[test]
        fn one_open_tier_is_a_unit_price_in_every_model(unit_amount in any_unit_amount(), used in 0_u64..1_000_000, included in 0_u64..1_000) {
            let tiers = vec![Tier { up_to: None, unit_amount, flat_amount_minor: 0 }];
            let expected = rate(&metered(included, Rate::PerUnit { unit_amount }), units(used));
            for same in [Rate::Graduated { tiers: tiers.clone() }, Rate::Volume { tiers }, package(1, unit_amount)] {
                prop_assert_eq!(rate(&metered(included, same), units(used)), expected);
            }
        }

        #[test]
        fn included_units_shift_the_use(rate_of in any_tiers().prop_map(|tiers| Rate::Volume { tiers }), used in 0_u64..5_000, included in 0_u64..5_000) {
            let shifted = rate(&metered(0, rate_of.clone()), units(used));
            prop_assert_eq!(rate(&metered(included, rate_of), units(used + included)), shifted);
        }

        #[test]
        fn packages_cover_the_use_and_no_more_than_one_is_begun(size in 1_u64..1_000, used in 0_u64..1_000_000) {
            let sold = rate(&metered(0, package(size, amount("1"))), units(used)).expect("small");
            let sold = u64::try_from(sold).expect("not negative");
            prop_assert!(sold * size >= used && (sold == 0 || (sold - 1) * size < used));
        }

        #[test]
        fn a_line_is_within_half_a_minor_unit_of_its_exact_value(unit_amount in any_unit_amount(), used in 0_u64..=10_000_000) {
            let line = rate(&metered(0, Rate::PerUnit { unit_amount }), units(used)).expect("in range");
            let exact = unit_amount.decimal() * Decimal::from(used);
            prop_assert!((Decimal::from(line) - exact).abs() <= Decimal::new(5, 1));
        }
    }
}
