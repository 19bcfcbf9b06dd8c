//! What a plan charges.

use std::{fmt, num::NonZeroU64};

use octroi_core::{MetricSlug, Units};
use rust_decimal::Decimal;

/// The decimals that the price of a unit may have.
pub const UNIT_AMOUNT_SCALE: u32 = 12;
/// The price of a unit stays below this many minor units.
const UNIT_AMOUNT_END: i64 = 1_000_000_000;

/// The price of one unit in minor units: 0 to just below 1,000,000,000, with up to 12 decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitAmount(Decimal);

/// A number that is no price of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a decimal in quotes, from \"0\" to below \"1000000000\" minor units, with up to 12 decimals"
)]
pub struct InvalidUnitAmount;

impl UnitAmount {
    /// Reads a decimal, such as `0.025`.
    ///
    /// # Errors
    /// [`InvalidUnitAmount`].
    pub fn parse(text: &str) -> Result<Self, InvalidUnitAmount> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !plain {
            return Err(InvalidUnitAmount);
        }
        // Exactly: a decimal that would have to be rounded to fit is refused.
        Self::try_from(Decimal::from_str_exact(text).map_err(|_| InvalidUnitAmount)?)
    }

    /// As a decimal.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        self.0
    }

    /// Whether a unit costs nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The price in units of 10^-12 of a minor unit; below 10^21.
    #[must_use]
    pub fn scaled(self) -> i128 {
        let missing = UNIT_AMOUNT_SCALE.saturating_sub(self.0.scale());
        self.0.mantissa().saturating_mul(10_i128.saturating_pow(missing))
    }
}

impl TryFrom<Decimal> for UnitAmount {
    type Error = InvalidUnitAmount;

    fn try_from(amount: Decimal) -> Result<Self, InvalidUnitAmount> {
        let amount = amount.normalize();
        let in_range = amount >= Decimal::ZERO && amount < Decimal::from(UNIT_AMOUNT_END);
        if !in_range || amount.scale() > UNIT_AMOUNT_SCALE {
            return Err(InvalidUnitAmount);
        }
        Ok(Self(amount))
    }
}

impl fmt::Display for UnitAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One step of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The last unit of the step; none means without end.
    pub up_to: Option<Units>,
    /// The price of a unit.
    pub unit_amount: UnitAmount,
    /// A fixed amount once the step is entered, in minor units.
    pub flat_amount_minor: i64,
}

/// How the use of a metric is priced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// An amount a unit.
    PerUnit {
        /// The price of a unit.
        unit_amount: UnitAmount,
    },
    /// Each tier prices the units that fall into it.
    Graduated {
        /// The steps: ascending, the last without end.
        tiers: Vec<Tier>,
    },
    /// The tier that the total reaches prices every unit.
    Volume {
        /// The steps: ascending, the last without end.
        tiers: Vec<Tier>,
    },
    /// A package begun is a package sold.
    Package {
        /// The price of a package.
        unit_amount: UnitAmount,
        /// How many units one holds.
        package_units: NonZeroU64,
    },
}

impl Rate {
    /// Whether no use costs anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        match self {
            Self::PerUnit { unit_amount } | Self::Package { unit_amount, .. } => unit_amount.is_zero(),
            Self::Graduated { tiers } | Self::Volume { tiers } => tiers
                .iter()
                .all(|tier| tier.unit_amount.is_zero() && tier.flat_amount_minor == 0),
        }
    }
}

/// One price of a plan, in the plan's currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Price {
    /// A fixed amount a period.
    Flat {
        /// How much, in minor units.
        amount_minor: i64,
    },
    /// An amount that follows the use of a metric.
    Metered {
        /// What is priced.
        metric: MetricSlug,
        /// Units that cost nothing in each period.
        included_units: Units,
        /// How the rest is priced.
        rate: Rate,
    },
}

impl Price {
    /// The metric that is priced; none for a fixed amount.
    #[must_use]
    pub fn metric(&self) -> Option<&MetricSlug> {
        match self {
            Self::Flat { .. } => None,
            Self::Metered { metric, .. } => Some(metric),
        }
    }

    /// Whether it never charges anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        match self {
            Self::Flat { amount_minor } => *amount_minor == 0,
            Self::Metered { rate, .. } => rate.is_free(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_a_unit_is_an_exact_decimal_in_bounds() {
        for (text, scaled) in [
            ("0", Some(0)),
            ("0.02", Some(20_000_000_000)),
            ("1.500", Some(1_500_000_000_000)),
            ("0.000000000001", Some(1)),
            ("999999999.999999999999", Some(999_999_999_999_999_999_999)),
            ("1000000000", None),
            ("0.0000000000001", None),
            ("-1", None),
            ("1e3", None),
            ("1_000", None),
            ("", None),
        ] {
            assert_eq!(
                UnitAmount::parse(text).ok().map(UnitAmount::scaled),
                scaled,
                "{text:?}"
            );
        }
    }
}
