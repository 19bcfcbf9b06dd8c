//! What is summed from the ledger, and which metrics may be summed.

use octroi_core::{AccountId, Aggregation, MetricSlug, Source, Units, Violations, Window};

/// The use in one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UsageBucket {
    /// Its time.
    pub window: Window,
    /// The sum of amounts.
    pub amount: Units,
    /// The number of events.
    pub events: u64,
}

/// The use of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricStats {
    /// The metric.
    pub metric: MetricSlug,
    /// Buckets that tile the range.
    pub buckets: Vec<UsageBucket>,
}

/// Which sums of the ledger are asked for.
#[derive(Clone, Debug)]
pub struct TotalsQuery {
    /// The account; none means all.
    pub account: Option<AccountId>,
    /// The metrics.
    pub metrics: Vec<MetricSlug>,
    /// The range of event times.
    pub range: Window,
    /// Only events of this source.
    pub source: Option<Source>,
    /// Whether the same sums of the rollups are asked for.
    pub rollups: bool,
}

/// The sums of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricTotal {
    /// The metric.
    pub metric: MetricSlug,
    /// Units that decisions recorded.
    pub decided: Units,
    /// Units that were recorded after the fact.
    pub direct: Units,
    /// Units that were given back.
    pub returned: Units,
    /// Units of decisions that slices of a limit paid for.
    pub charged: Units,
    /// The number of events.
    pub events: u64,
    /// The sum of units as the rollups have it, over all sources; 0 where it was not asked for.
    pub rollup: Units,
}

/// Whether statistics can be made of these metrics: the rollups have nothing but sums and counts.
///
/// # Errors
/// [`Violations`] that name each metric of another aggregation by its place in `metrics`.
pub fn check_statistics(aggregations: &[Aggregation]) -> Result<(), Violations> {
    let mut violations = Violations::default();
    for (index, aggregation) in aggregations.iter().enumerate() {
        match aggregation {
            Aggregation::Sum | Aggregation::Count => {}
            Aggregation::Max | Aggregation::Unique | Aggregation::Latest => violations.add(
                format!("metrics[{index}]"),
                format!(
                    "must be a metric of the aggregation sum or count, not {}",
                    aggregation.as_str()
                ),
            ),
        }
    }
    violations.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_made_of_sums_and_counts_only() {
        assert_eq!(check_statistics(&[Aggregation::Sum, Aggregation::Count]), Ok(()));
        for aggregation in [Aggregation::Max, Aggregation::Unique, Aggregation::Latest] {
            let violations =
                check_statistics(&[Aggregation::Sum, aggregation]).expect_err("it cannot be summed");
            assert_eq!(violations.first_field(), Some("metrics[1]"));
            assert!(
                violations.to_string().contains(aggregation.as_str()),
                "{violations}"
            );
        }
    }
}
