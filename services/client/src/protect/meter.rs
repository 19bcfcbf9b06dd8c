//! How a handler says what it used.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::rule::{Item, Measure, Rule};

/// What a handler tells how much was used; it is in the request's extensions where the layer has `amount_by_meter`.
///
/// Cloning shares it, so that it can go on into the body of a response.
#[derive(Clone, Debug)]
pub struct Meter(Arc<[(String, AtomicU64)]>);

impl Meter {
    /// A meter for what is metered of a rule; none, and no memory, where nothing is.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let is_metered = |item: &&Item| matches!(item.measure, Measure::Meter);
        rule.items.iter().find(is_metered)?;
        let metered = rule.items.iter().filter(is_metered);
        let counters = metered.map(|item| (item.metric.clone(), AtomicU64::new(0)));
        Some(Self(counters.collect()))
    }

    /// So much more was used of the metric, or of the first one that is metered.
    pub fn add(&self, amount: u64) {
        if let Some((_, counted)) = self.0.first() {
            counted.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// So much more was used of `metric`; nothing where that is not metered here.
    pub fn add_to(&self, metric: &str, amount: u64) {
        if let Some((_, counted)) = self.0.iter().find(|(name, _)| name == metric) {
            counted.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// What was used of each metric by now.
    pub(super) fn read(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .map(|(metric, counted)| (metric.as_str(), counted.load(Ordering::Relaxed)))
    }
}
