//! What is summed from the ledger.

use octroi_core::{AccountId, Aggregation, MetricSlug, Source, Units, Window};

use super::figures::Figures;

/// The use of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricStats {
    /// The metric.
    pub metric: MetricSlug,
    /// How its amounts become one figure.
    pub aggregation: Aggregation,
    /// Windows that tile the range, and what each comes to.
    pub buckets: Vec<(Window, Figures)>,
    /// The counterpart of each in the period before; none where that was not asked for.
    pub previous: Vec<(Window, Figures)>,
    /// The same buckets by the values of a property, those with most events first; none where that was not asked for.
    pub groups: Vec<UsageGroup>,
    /// How many more groups there are.
    pub groups_left_off: u64,
}

/// The use of one metric by events that have one value of a property.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageGroup {
    /// The value; none of events that do not have the property.
    pub value: Option<String>,
    /// Windows that tile the range, and what each comes to.
    pub buckets: Vec<(Window, Figures)>,
}

/// The most groups of one metric.
pub const GROUPS_MAX: usize = 100;
/// The most buckets of all groups of one answer.
pub const GROUP_BUCKETS_MAX: usize = 20_000;
/// The most events that are read for groups, which no rollup has.
pub const GROUPED_EVENTS_MAX: u64 = 500_000;

/// How many groups of each of `metrics` an answer of so many buckets has room for.
#[must_use]
pub fn groups_max(metrics: usize, buckets: usize) -> usize {
    (GROUP_BUCKETS_MAX / (metrics * buckets).max(1)).clamp(1, GROUPS_MAX)
}

/// What windows come to together.
#[must_use]
pub fn total(buckets: &[(Window, Figures)]) -> Figures {
    let mut total = Figures::default();
    for (_, figures) in buckets {
        total.add(figures);
    }
    total
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
