//! What holds for an account: the catalog, what billing pushed, and the limits and windows that follow.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{
    Anchor, Entitlements, FeaturePlans, FeatureSlug, Metric, MetricSlug, Stage, period::window_containing,
};

use super::{
    limits::{EffectiveLimit, StageRules, effective_limits},
    window::WindowKey,
};

/// What billing's catalog says.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Its version.
    pub version: u64,
    /// Every metric.
    pub metrics: HashMap<MetricSlug, Metric>,
    /// The plan of accounts without a subscription.
    pub default_entitlements: Entitlements,
    /// Which plans have which feature.
    pub feature_plans: Vec<FeaturePlans>,
    /// The share that RESTRICTED leaves, in percent.
    pub restricted_percent: u32,
}

impl Catalog {
    /// A missing feature with the plans that have it.
    #[must_use]
    pub fn plans_with(&self, feature: &FeatureSlug) -> FeaturePlans {
        let known = self.feature_plans.iter().find(|one| one.feature == *feature);
        known.cloned().unwrap_or_else(|| FeaturePlans {
            feature: feature.clone(),
            plans: Vec::new(),
        })
    }
}

/// What billing pushed for an account.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountEntitlements {
    /// Grows with every change.
    pub version: u64,
    /// Plan, limits, features.
    pub entitlements: Entitlements,
    /// The first instant of the subscription's first period.
    pub anchor_at: Timestamp,
    /// Where the account stands with its payments.
    pub stage: Stage,
}

/// What holds for one account.
#[derive(Clone, Debug)]
pub struct AccountLimits {
    /// The plan with its limits and features.
    pub entitlements: Entitlements,
    /// The version that billing pushed; 0 for the default plan.
    pub version: u64,
    /// Where the account stands with its payments.
    pub stage: Stage,
    /// The limits in force, by metric and period.
    pub limits: Vec<EffectiveLimit>,
    /// From where MONTH windows are counted.
    pub anchor: Anchor,
    /// The zone of HOUR and DAY windows.
    pub zone: TimeZone,
}

impl AccountLimits {
    /// What holds, given what was pushed; the catalog's default plan where nothing was.
    #[must_use]
    pub fn new(pushed: Option<AccountEntitlements>, catalog: &Catalog, zone: &TimeZone) -> Self {
        let (entitlements, version, stage, anchor) = match pushed {
            Some(pushed) => (
                pushed.entitlements,
                pushed.version,
                pushed.stage,
                Anchor::at(pushed.anchor_at, zone),
            ),
            None => (
                catalog.default_entitlements.clone(),
                0,
                Stage::Current,
                Anchor::FIRST_OF_MONTH,
            ),
        };
        let rules = StageRules {
            metrics: &catalog.metrics,
            default_entitlements: &catalog.default_entitlements,
            restricted_percent: catalog.restricted_percent,
        };
        let limits = effective_limits(&entitlements, stage, rules);
        Self {
            entitlements,
            version,
            stage,
            limits,
            anchor,
            zone: zone.clone(),
        }
    }

    /// The limits of one metric.
    pub fn of_metric<'a>(&'a self, metric: &'a MetricSlug) -> impl Iterator<Item = &'a EffectiveLimit> {
        self.limits
            .iter()
            .filter(move |limit| limit.limit.metric == *metric)
    }

    /// The window of a limit that contains `at`.
    #[must_use]
    pub fn window_key(&self, limit: &EffectiveLimit, at: Timestamp) -> WindowKey {
        let period = limit.limit.period;
        WindowKey::new(
            &limit.limit.metric,
            period,
            window_containing(period, at, &self.zone, self.anchor),
        )
    }

    /// Whether the plan has the feature.
    #[must_use]
    pub fn has_feature(&self, feature: &FeatureSlug) -> bool {
        self.entitlements.features.contains(feature)
    }
}
