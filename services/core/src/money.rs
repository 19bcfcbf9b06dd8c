//! Money: whole minor units of one currency, and the one place where a fraction becomes whole.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive as _};
use serde::{Deserialize, Serialize};

/// An ISO 4217 code, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Why an amount of money could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not three capital letters.
    #[error("a currency is three capital letters, as in ISO 4217")]
    InvalidCurrency,
    /// Two currencies in one sum.
    #[error("amounts of {left} and {right} cannot be added")]
    CurrencyMismatch {
        /// The first.
        left: Currency,
        /// The second.
        right: Currency,
    },
    /// The result does not fit 64 bits.
    #[error("the amount does not fit 64 bits of minor units")]
    Overflow,
}

impl Currency {
    /// Checks the code. Whether ISO lists it is the catalog's concern.
    ///
    /// # Errors
    /// [`MoneyError::InvalidCurrency`] where it is not three capital letters.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        match *code.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::InvalidCurrency),
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when made: three ASCII capitals.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(code: String) -> Result<Self, MoneyError> {
        Self::parse(&code)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

/// An amount of money; negative for a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Its currency.
    pub currency: Currency,
    /// How much, in the currency's minor unit.
    pub amount_minor: i64,
}

impl Money {
    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`], [`MoneyError::Overflow`].
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch {
                left: self.currency,
                right: other.currency,
            });
        }
        let amount_minor = self
            .amount_minor
            .checked_add(other.amount_minor)
            .ok_or(MoneyError::Overflow)?;
        Ok(Self {
            currency: self.currency,
            amount_minor,
        })
    }
}

/// Makes a fraction of minor units whole: to the nearest, halves away from zero ("half-up", as Stripe
/// rounds a line). Every amount is rounded once, by this function, at the line it belongs to.
///
/// # Errors
/// [`MoneyError::Overflow`] where the result does not fit 64 bits.
pub fn round_half_up(amount_minor: Decimal) -> Result<i64, MoneyError> {
    amount_minor
        .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero)
        .to_i64()
        .ok_or(MoneyError::Overflow)
}

/// Splits a total by weights so that the parts add up to it exactly: every part is rounded down, and the
/// units left over go to the largest remainders, the earlier part first where two are equal (the
/// largest-remainder method of Hamilton). Weights that are all 0 put everything into the first part.
#[must_use]
pub fn split_by_largest_remainder(total_minor: i64, weights: &[u64]) -> Vec<i64> {
    let weight_sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if weight_sum == 0 {
        let mut parts = vec![0; weights.len()];
        if let Some(first) = parts.first_mut() {
            *first = total_minor;
        }
        return parts;
    }
    let magnitude = u128::from(total_minor.unsigned_abs());
    let mut shares: Vec<(usize, u128, u128)> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| {
            // 64 bits times 64 bits fit 128.
            let exact = magnitude * u128::from(*weight);
            (index, exact / weight_sum, exact % weight_sum)
        })
        .collect();
    let mut left_over = magnitude - shares.iter().map(|(_, share, _)| share).sum::<u128>();
    shares.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
    for (_, share, _) in &mut shares {
        if left_over == 0 {
            break;
        }
        *share += 1;
        left_over -= 1;
    }
    shares.sort_by_key(|(index, _, _)| *index);
    let sign = if total_minor < 0 { -1_i128 } else { 1 };
    // No share is above the total's magnitude, so each fits 64 bits with the total's sign.
    shares
        .into_iter()
        .map(|(_, share, _)| {
            i128::try_from(share)
                .ok()
                .and_then(|share| i64::try_from(sign * share).ok())
                .unwrap_or(total_minor)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (amount, expected) in [
            ("0.5", 1),
            ("-0.5", -1),
            ("1.49", 1),
            ("2.5", 3),
            ("-2.5", -3),
            ("0.4999", 0),
        ] {
            let amount: Decimal = amount.parse().expect("a decimal");
            assert_eq!(round_half_up(amount), Ok(expected), "{amount}");
        }
        assert_eq!(round_half_up(Decimal::MAX), Err(MoneyError::Overflow));
    }

    #[test]
    fn currencies_do_not_mix() {
        let euro = Money {
            currency: Currency::parse("EUR").expect("a code"),
            amount_minor: 5,
        };
        let yen = Money {
            currency: Currency::parse("JPY").expect("a code"),
            amount_minor: 5,
        };
        assert!(matches!(
            euro.checked_add(yen),
            Err(MoneyError::CurrencyMismatch { .. })
        ));
        let most = Money {
            amount_minor: i64::MAX,
            ..euro
        };
        assert_eq!(most.checked_add(euro), Err(MoneyError::Overflow));
        assert!(Currency::parse("eur").is_err());
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(total in any::<i64>(), weights in prop::collection::vec(any::<u64>(), 1..20)) {
            let parts = split_by_largest_remainder(total, &weights);
            prop_assert_eq!(parts.len(), weights.len());
            prop_assert_eq!(parts.iter().map(|part| i128::from(*part)).sum::<i128>(), i128::from(total));
        }
    }
}
