//! How a handler says what it used.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::rule::{Measure, Rule};

/// What a handler tells how much was used; it is in the request's extensions where the layer has `amount_by_meter`.
///
/// Cloning shares it, so that it can go on into the body of a response.
#[derive(Clone, Debug)]
pub struct Meter(Arc<[(String, AtomicU64)]>);

impl Meter {
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let metered = rule
            .items
            .iter()
            .filter(|item| matches!(item.measure, Measure::Meter));
        let meter: Arc<[_]> = metered
            .map(|item| (item.metric.clone(), AtomicU64::new(0)))
            .collect();
        (!meter.is_empty()).then_some(Self(meter))
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
