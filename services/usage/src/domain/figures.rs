//! What many events of one metric come to.

use jiff::Timestamp;
use octroi_core::{Aggregation, Units};

use super::distinct::Distinct;

/// What events of one metric come to, whatever its aggregation.
///
/// The figures of two lots of events together are [`Figures::add`]ed, in any order: every lot comes to the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The sum of amounts; many events of 2^53 − 1 pass 64 bits.
    pub amount: u128,
    /// The number of events.
    pub events: u64,
    /// The largest amount; none without events.
    pub max: Option<Units>,
    /// The newest event.
    pub latest: Option<Latest>,
    /// The distinct values of the metric's property.
    pub distinct: Distinct,
}

/// The newest event. Of two at one instant it is the larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latest {
    /// When it counts.
    pub event_at: Timestamp,
    /// Its amount.
    pub amount: Units,
}

/// A figure of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// The figure.
    pub value: u128,
    /// Whether it is an estimate.
    pub is_estimated: bool,
}

impl Figures {
    /// What one event comes to. `distinct` is the hash of the value that its metric counts.
    #[must_use]
    pub fn of_one(amount: Units, event_at: Timestamp, distinct: Option<u64>) -> Self {
        Self {
            amount: u128::from(amount.get()),
            events: 1,
            max: Some(amount),
            latest: Some(Latest { event_at, amount }),
            distinct: Distinct::of(distinct),
        }
    }

    /// Adds the figures of other events.
    pub fn add(&mut self, other: &Self) {
        self.amount += other.amount;
        self.events += other.events;
        self.max = self.max.max(other.max);
        self.latest = self.latest.max(other.latest);
        self.distinct.add(&other.distinct);
    }

    /// The figure by the metric's aggregation: 0 where there are no events.
    #[must_use]
    pub fn figure(&self, aggregation: Aggregation) -> Figure {
        let exact = |value| Figure {
            value,
            is_estimated: false,
        };
        let amount = |amount: Option<Units>| u128::from(amount.unwrap_or(Units::ZERO).get());
        match aggregation {
            Aggregation::Sum => exact(self.amount),
            Aggregation::Count => exact(u128::from(self.events)),
            Aggregation::Max => exact(amount(self.max)),
            Aggregation::Latest => exact(amount(self.latest.map(|latest| latest.amount))),
            Aggregation::Unique => Figure {
                value: u128::from(self.distinct.count()),
                is_estimated: self.distinct.is_estimated(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_one(second: i64, amount: u64) -> Figures {
        let event_at = Timestamp::from_second(second).expect("an instant");
        Figures::of_one(Units::new(amount).expect("an amount"), event_at, Some(amount))
    }

    fn sum<'f>(all: impl IntoIterator<Item = &'f Figures>) -> Figures {
        let mut sum = Figures::default();
        for one in all {
            sum.add(one);
        }
        sum
    }

    #[test]
    fn each_aggregation_has_its_figure() {
        let figures = sum(&[of_one(3, 5), of_one(9, 2), of_one(9, 1), of_one(1, 5)]);
        for (aggregation, value) in [
            (Aggregation::Sum, 13),
            (Aggregation::Count, 4),
            (Aggregation::Max, 5),
            (Aggregation::Latest, 2),
            (Aggregation::Unique, 3),
        ] {
            assert_eq!(figures.figure(aggregation).value, value, "{aggregation:?}");
            assert_eq!(
                Figures::default().figure(aggregation),
                Figure::default(),
                "{aggregation:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn events_come_to_the_same_in_any_order_and_in_any_lots(
            events in proptest::collection::vec((0_i64..20, 1_u64..9), 1..20), cut in 0_usize..20,
        ) {
            let each: Vec<Figures> = events.iter().map(|(second, amount)| of_one(*second, *amount)).collect();
            let (first, second) = each.split_at(cut.min(each.len()));
            let lots = [sum(second), sum(first)];
            prop_assert_eq!(sum(&lots), sum(&each));
        }
    }
}
