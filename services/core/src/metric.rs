//! What is counted.

use serde::{Deserialize, Serialize};

use crate::{MetricSlug, PropertyKey, Units, named};

/// Whether a metric adds up in windows or says what is held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Amounts of at least 1 that add up in windows.
    Flow,
    /// What is held now: LIFETIME only, never below 0.
    Level,
}

named!(MetricKind { Flow => "flow", Level => "level" });

/// An amount that an event of a counting metric cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 for a metric that counts events")]
pub struct AmountNotOne;

/// How the amounts of one metric become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// The sum of the amounts.
    Sum,
    /// The number of events.
    Count,
    /// The largest amount.
    Max,
    /// The number of distinct values of the metric's property.
    Unique,
    /// The amount of the newest event.
    Latest,
}

named!(Aggregation {
    Sum => "sum",
    Count => "count",
    Max => "max",
    Unique => "unique",
    Latest => "latest",
});

impl Aggregation {
    /// Whether a FLOW metric with this aggregation may carry limits: only what adds up can be taken from.
    #[must_use]
    pub const fn may_be_limited(self) -> bool {
        matches!(self, Self::Sum | Self::Count)
    }

    /// Checks the amount of one event. A metric that counts events takes them one by one, so that the number
    /// of events and the sum of their amounts are the same figure.
    ///
    /// # Errors
    /// [`AmountNotOne`] for COUNT with any other amount than 1.
    pub fn check_amount(self, amount: Units) -> Result<(), AmountNotOne> {
        match self {
            Self::Count if amount.get() != 1 => Err(AmountNotOne),
            Self::Count | Self::Sum | Self::Max | Self::Unique | Self::Latest => Ok(()),
        }
    }
}

/// When a decision about a metric is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recording {
    /// Once the ledger has it.
    #[default]
    Durable,
    /// At once; a replica sums what it answered and tells the ledger a little later. A sum that was not told dies
    /// with its replica, and its slice of the limit stays counted.
    Buffered,
}

named!(Recording { Durable => "durable", Buffered => "buffered" });

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub slug: MetricSlug,
    /// Whether it adds up or is held.
    pub kind: MetricKind,
    /// How amounts become one figure.
    pub aggregation: Aggregation,
    /// The name people read, in English.
    pub display_name_en: String,
    /// The name people read, in French.
    pub display_name_fr: String,
    /// The unit of an amount, such as `token`.
    pub unit: String,
    /// Whether use of it changes the customer's data; the READ_ONLY stage stops it.
    pub write: bool,
    /// When a decision about it is answered. A LEVEL is always durable.
    pub recording: Recording,
    /// The property whose distinct values a UNIQUE metric counts.
    pub property: Option<PropertyKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_metric_that_counts_events_refuses_amounts_above_1() {
        let units = |amount| Units::positive(amount).expect("an amount");
        for aggregation in Aggregation::ALL {
            assert_eq!(aggregation.check_amount(units(1)), Ok(()));
            let many = aggregation.check_amount(units(50));
            assert_eq!(
                many.is_err(),
                aggregation == Aggregation::Count,
                "{aggregation:?}"
            );
        }
    }
}
