//! What a replica remembers of an account, so that a check is decided without asking anybody.

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::{Aggregation, MetricSlug, Recording, Units};

use super::{
    decision::Asked,
    explained::Terms,
    holding::{AccountLimits, Catalog, Revision},
    window::WindowKey,
};

/// One metric of an account, with its limits and their windows of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMetric {
    /// The metric.
    pub metric: MetricSlug,
    /// When a decision about it is answered.
    pub recording: Recording,
    /// How amounts become one figure.
    pub aggregation: Aggregation,
    /// Its limits, none of which anything is asked of yet.
    pub asked: Vec<Asked>,
    /// The windows of the limits.
    pub keys: Vec<WindowKey>,
}

/// The limited metrics of an account, until something of them may be otherwise.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The metrics; accounts with the same limits in the same windows have them in one place.
    pub metrics: Arc<[PlannedMetric]>,
    /// Which state of the account this is.
    pub revision: Revision,
    /// What the limits follow from, to explain decisions.
    pub terms: Terms,
    /// Whether something replaces the amount of one of them.
    pub is_overridden: bool,
    /// From when on a window has ended, an override has, or the account may be closed.
    pub valid_until: Timestamp,
}

impl Plan {
    /// What holds at `now`, and at the most until `until`.
    #[must_use]
    pub fn new(limits: &AccountLimits, catalog: &Catalog, now: Timestamp, until: Timestamp) -> Self {
        let mut metrics: Vec<PlannedMetric> = Vec::new();
        let mut valid_until = until;
        for (effective, key) in limits.limits.iter().zip(limits.window_keys(now)) {
            let Some(metric) = catalog.metrics.get(&effective.limit.metric) else {
                continue;
            };
            let expires_at = effective.replaced_by.as_ref().and_then(|one| one.expires_at);
            valid_until = valid_until.min(key.end).min(expires_at.unwrap_or(Timestamp::MAX));
            if metrics.last().is_none_or(|last| last.metric != metric.slug) {
                metrics.push(PlannedMetric {
                    metric: metric.slug.clone(),
                    recording: metric.recording,
                    aggregation: metric.aggregation,
                    asked: Vec::new(),
                    keys: Vec::new(),
                });
            }
            // Limits are sorted by metric.
            if let Some(planned) = metrics.last_mut() {
                planned.asked.push(Asked {
                    effective: Arc::clone(effective),
                    window: key.window(),
                    amount: Units::ZERO,
                });
                planned.keys.push(key);
            }
        }
        Self {
            metrics: metrics.into(),
            revision: limits.revision,
            terms: Terms::of(limits),
            is_overridden: limits.limits.iter().any(|one| one.replaced_by.is_some()),
            valid_until,
        }
    }

    /// The same plan; its metrics are those of `other` where these are the same.
    #[must_use]
    pub fn sharing_with(self, other: &Arc<[PlannedMetric]>) -> Self {
        if self.metrics == *other {
            Self {
                metrics: Arc::clone(other),
                ..self
            }
        } else {
            self
        }
    }

    /// The metric of this name, where it is limited.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&PlannedMetric> {
        self.metrics
            .iter()
            .find(|planned| planned.metric.as_str() == name)
    }
}
