//! Amounts of use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole number of units, from 0 to 2^53 − 1, the largest that JSON numbers carry exactly (RFC 8259 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Units(u64);

/// A number that is not an amount of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from {min} to 9007199254740991")]
pub struct OutOfRange {
    /// The smallest number that would do.
    pub min: u64,
}

impl Units {
    /// None at all.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1);
    /// The most: 2^53 − 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// An amount that may be 0.
    ///
    /// # Errors
    /// [`OutOfRange`] above 2^53 − 1.
    pub const fn new(amount: u64) -> Result<Self, OutOfRange> {
        if amount > Self::MAX.0 {
            return Err(OutOfRange { min: 0 });
        }
        Ok(Self(amount))
    }

    /// An amount of a usage event or a check, which is at least 1.
    ///
    /// # Errors
    /// [`OutOfRange`] below 1 and above 2^53 − 1.
    pub fn positive(amount: i64) -> Result<Self, OutOfRange> {
        match u64::try_from(amount) {
            Ok(amount) if (1..=Self::MAX.0).contains(&amount) => Ok(Self(amount)),
            _ => Err(OutOfRange { min: 1 }),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as databases and scripts take it; it always fits.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The sum, or none where it would pass 2^53 − 1.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        // Neither is above 2^53 - 1, so the sum of two fits 64 bits.
        Self::new(self.0 + other.0).ok()
    }

    /// What is left after taking `other` away: never below 0.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `percent` of the amount, rounded down. Above 100 percent the result ends at 2^53 − 1.
    #[must_use]
    pub fn percent(self, percent: u32) -> Self {
        let share = u128::from(self.0) * u128::from(percent) / 100;
        u64::try_from(share)
            .ok()
            .and_then(|share| Self::new(share).ok())
            .unwrap_or(Self::MAX)
    }
}

impl TryFrom<u64> for Units {
    type Error = OutOfRange;

    fn try_from(amount: u64) -> Result<Self, OutOfRange> {
        Self::new(amount)
    }
}

impl TryFrom<i64> for Units {
    type Error = OutOfRange;

    fn try_from(amount: i64) -> Result<Self, OutOfRange> {
        u64::try_from(amount)
            .map_err(|_| OutOfRange { min: 0 })
            .and_then(Self::new)
    }
}

impl From<Units> for u64 {
    fn from(units: Units) -> Self {
        units.0
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_whole_and_within_what_json_carries() {
        assert_eq!(Units::positive(0), Err(OutOfRange { min: 1 }));
        assert_eq!(Units::positive(-1), Err(OutOfRange { min: 1 }));
        assert_eq!(Units::positive(9_007_199_254_740_991), Ok(Units::MAX));
        assert!(Units::positive(9_007_199_254_740_992).is_err());
        assert!(Units::new(u64::MAX).is_err());
        assert_eq!(Units::MAX.checked_add(Units(1)), None);
        assert_eq!(Units(3).saturating_sub(Units(5)), Units::ZERO);
    }

    proptest! {
        #[test]
        fn a_percentage_never_exceeds_its_exact_value(amount in 0..=Units::MAX.get(), percent in 0_u32..=100) {
            let share = Units(amount).percent(percent).get();
            prop_assert!(u128::from(share) * 100 <= u128::from(amount) * u128::from(percent));
            prop_assert!((u128::from(share) + 1) * 100 > u128::from(amount) * u128::from(percent));
        }
    }
}
