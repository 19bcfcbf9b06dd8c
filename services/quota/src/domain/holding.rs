//! What holds for an account: the catalog, what billing pushed, and the limits and windows that follow.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use octroi_core::{
    Entitlements, FeaturePlans, FeatureSlug, Metric, MetricKind, MetricSlug, Period, Stage, Window,
};
use serde::{Deserialize, Serialize};

use super::{
    calendar::Calendar,
    limits::{EffectiveLimit, Overrides, StageRules, effective_limits},
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
    /// The kind of a metric. One that is gone from the catalog has no limit, and adds up like any other.
    #[must_use]
    pub fn kind_of(&self, metric: &MetricSlug) -> MetricKind {
        (self.metrics.get(metric)).map_or(MetricKind::Flow, |metric| metric.kind)
    }

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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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

/// Which state of an account's limits something was made from. Each change of what it depends on makes another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Of the account: entitlements, overrides, stage, calendar.
    pub account: u64,
    /// Of the catalog.
    pub catalog: u64,
}

impl Revision {
    /// The later of each part: what is known by now, where the two were read at different times.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        Self {
            account: self.account.max(other.account),
            catalog: self.catalog.max(other.catalog),
        }
    }

    /// Whether something of it has changed by `latest`.
    #[must_use]
    pub fn is_older_than(self, latest: Self) -> bool {
        self.account < latest.account || self.catalog < latest.catalog
    }
}

/// What quota keeps of an account.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AccountState {
    /// Grows with every change.
    pub revision: u64,
    /// Its windows.
    pub calendar: Calendar,
    /// What billing pushed.
    pub pushed: Option<AccountEntitlements>,
    /// What replaces amounts of the plan.
    #[serde(with = "super::limits::overrides_as_list")]
    pub overrides: Overrides,
}

/// What holds for one account.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountLimits {
    /// The plan with its limits and features.
    pub entitlements: Arc<Entitlements>,
    /// The version that billing pushed; 0 for the default plan.
    pub version: u64,
    /// Where the account stands with its payments.
    pub stage: Stage,
    /// The limits in force, by metric and period.
    pub limits: Arc<[Arc<EffectiveLimit>]>,
    /// Where windows begin and end.
    pub calendar: Calendar,
    /// Which state of the account this is.
    pub revision: Revision,
}

impl AccountLimits {
    /// What holds at `now`; the catalog's default plan where nothing was pushed.
    #[must_use]
    pub fn new(state: &AccountState, catalog: &Catalog, now: Timestamp) -> Self {
        let pushed = state.pushed.as_ref();
        let entitlements = pushed.map_or(&catalog.default_entitlements, |pushed| &pushed.entitlements);
        let stage = pushed.map_or(Stage::Current, |pushed| pushed.stage);
        let rules = StageRules {
            metrics: &catalog.metrics,
            default_entitlements: &catalog.default_entitlements,
            restricted_percent: catalog.restricted_percent,
        };
        Self {
            limits: (effective_limits(entitlements, &state.overrides, stage, rules, now).into_iter())
                .map(Arc::new)
                .collect(),
            entitlements: Arc::new(entitlements.clone()),
            version: pushed.map_or(0, |pushed| pushed.version),
            stage,
            calendar: state.calendar.clone(),
            revision: Revision {
                account: state.revision,
                catalog: catalog.version,
            },
        }
    }

    /// Has the same in one place with another account of the same plan, where it is the same: accounts are many, and plans
    /// are few.
    #[must_use]
    pub fn sharing_with(mut self, other: &Self) -> Self {
        if self.entitlements == other.entitlements {
            self.entitlements = Arc::clone(&other.entitlements);
        }
        if self.limits == other.limits {
            self.limits = Arc::clone(&other.limits);
        }
        self
    }

    /// The limits of one metric.
    pub fn of_metric<'a>(&'a self, metric: &'a MetricSlug) -> impl Iterator<Item = &'a Arc<EffectiveLimit>> {
        self.limits
            .iter()
            .filter(move |limit| limit.limit.metric == *metric)
    }

    /// The window of a limit that contains `at`.
    #[must_use]
    pub fn window_key(&self, limit: &EffectiveLimit, at: Timestamp) -> WindowKey {
        let period = limit.limit.period;
        WindowKey::new(&limit.limit.metric, period, self.calendar.window(period, at))
    }

    /// The windows that use of a metric at `at` counts in, with their limits. What is held of a LEVEL metric counts also
    /// where nothing limits it now: a limit that comes later finds it there.
    #[must_use]
    pub fn windows_of<'a>(
        &'a self,
        metric: &'a MetricSlug,
        kind: MetricKind,
        at: Timestamp,
    ) -> Vec<(WindowKey, Option<&'a Arc<EffectiveLimit>>)> {
        let limited = self.of_metric(metric);
        let mut windows: Vec<_> = limited
            .map(|limit| (self.window_key(limit, at), Some(limit)))
            .collect();
        if kind == MetricKind::Level && windows.is_empty() {
            let key = WindowKey::new(metric, Period::Lifetime, Window::LIFETIME);
            windows.push((key, None));
        }
        windows
    }

    /// The windows of every limit that contain `at`, in the order of the limits.
    #[must_use]
    pub fn window_keys(&self, at: Timestamp) -> Vec<WindowKey> {
        // Limits are many, and periods few: the calendar is asked once for each.
        let mut windows: Vec<(Period, Window)> = Vec::with_capacity(4);
        let mut window = |period: Period| {
            let known = windows.iter().find(|(of, _)| *of == period);
            known.map(|(_, window)| *window).unwrap_or_else(|| {
                let window = self.calendar.window(period, at);
                windows.push((period, window));
                window
            })
        };
        let key = |limit: &Arc<EffectiveLimit>| {
            let period = limit.limit.period;
            WindowKey::new(&limit.limit.metric, period, window(period))
        };
        self.limits.iter().map(key).collect()
    }

    /// Whether the plan has the feature.
    #[must_use]
    pub fn has_feature(&self, feature: &FeatureSlug) -> bool {
        self.entitlements.features.contains(feature)
    }
}
