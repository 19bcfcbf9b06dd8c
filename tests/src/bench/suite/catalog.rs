//! The catalog of the bench: the demo's, with metrics of which each has an hour, a day and a month.

use anyhow::Result;

use crate::harness::catalog;

/// Answered from memory and recorded later; its limits are far.
pub(super) const CLICKS: &str = "bench.clicks";
/// The same where an account has [`TIGHT_LIMIT`] a month.
pub(super) const TIGHT: &str = "bench.tight";
/// The same where an account has [`SMALL_LIMIT`] a month.
pub(super) const SMALL: &str = "bench.small";
/// The same where an account has one a month.
pub(super) const ONCE: &str = "bench.once";
/// Answered once it is in the ledger; its limits are far.
pub(super) const CALLS: &str = "bench.calls";

/// What is far: nobody gets there.
pub(super) const FAR_LIMIT: u64 = 100_000_000;
/// What an account has a month of [`TIGHT`]: the last twentieth of it lasts for about a round.
pub(super) const TIGHT_LIMIT: u64 = 2_000_000;
/// What an account has a month of [`SMALL`]: the last twentieth of it lasts for some milliseconds.
pub(super) const SMALL_LIMIT: u64 = 20_000;

const METRICS: [(&str, &str, u64); 5] = [
    (CLICKS, "buffered", FAR_LIMIT),
    (TIGHT, "buffered", TIGHT_LIMIT),
    (SMALL, "buffered", SMALL_LIMIT),
    (ONCE, "buffered", 1),
    (CALLS, "durable", FAR_LIMIT),
];

/// The catalog as a document.
pub(super) fn document() -> Result<String> {
    let (mut metrics, mut limits) = (Vec::new(), Vec::new());
    for (slug, recording, amount) in METRICS {
        metrics.push(format!(
            "{{ slug: {slug}, kind: flow, aggregation: sum, recording: {recording}, unit: unit, \
             name: {{ en: {slug}, fr: {slug} }} }}"
        ));
        // The month is what can be reached, so that no hour that ends changes what a case is about.
        for (period, amount) in [("hour", FAR_LIMIT), ("day", FAR_LIMIT), ("month", amount)] {
            limits.push(format!(
                "{{ metric: {slug}, period: {period}, amount: {amount}, mode: hard }}"
            ));
        }
    }
    catalog::with(&metrics, &limits)
}
