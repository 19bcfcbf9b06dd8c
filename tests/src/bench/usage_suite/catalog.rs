//! The catalog of the bench: the demo's, with two metrics.

use anyhow::Result;

use crate::harness::catalog;

/// What is recorded; its limits of an hour, a day and a month are far.
pub(super) const CALLS: &str = "bench.calls";
/// The same where an account has [`TIGHT_LIMIT`] a month.
pub(super) const TIGHT: &str = "bench.tight";

/// Of this many units, 80 in 100 are told to people.
pub(super) const TIGHT_LIMIT: u64 = 100;

const FAR_LIMIT: u64 = 1_000_000_000_000;

/// The catalog as a document.
pub(super) fn document() -> Result<String> {
    let (mut metrics, mut limits) = (Vec::new(), Vec::new());
    for (slug, month) in [(CALLS, FAR_LIMIT), (TIGHT, TIGHT_LIMIT)] {
        metrics.push(format!(
            "{{ slug: {slug}, kind: flow, aggregation: sum, unit: unit, name: {{ en: {slug}, fr: {slug} }} }}"
        ));
        for (period, amount) in [("hour", FAR_LIMIT), ("day", FAR_LIMIT), ("month", month)] {
            limits.push(format!(
                "{{ metric: {slug}, period: {period}, amount: {amount}, mode: soft }}"
            ));
        }
    }
    catalog::with(&metrics, &limits)
}
