//! What an account may use: limits, features, and the stage that reduces them.

use serde::{Deserialize, Serialize};

use crate::{FeatureSlug, MetricSlug, Period, PlanSlug, Units};

/// What happens at a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// Nothing beyond the limit is allowed.
    Hard,
    /// What is beyond is allowed and counted as overage, up to the ceiling where there is one.
    Soft,
    /// Evaluated and logged, never enforced.
    Shadow,
}

/// What a limit does while its counters cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnreachablePolicy {
    /// Refuse until they are back.
    #[default]
    Deny,
    /// Spend only what was granted to this replica before.
    Lease,
    /// Allow and journal; only for SOFT and SHADOW limits.
    Allow,
}

/// The shares of a limit, in percent, at which people are told unless the limit lists its own.
pub const DEFAULT_THRESHOLDS: [u32; 3] = [80, 95, 100];

/// The most that a metric may reach within one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What is limited.
    pub metric: MetricSlug,
    /// The length of a window.
    pub period: Period,
    /// The most that may be used in a window.
    pub amount: Units,
    /// What happens at the limit.
    pub mode: LimitMode,
    /// For SOFT limits, the HARD end of overage.
    pub ceiling: Option<Units>,
    /// What happens while counters cannot be reached.
    pub unreachable_policy: UnreachablePolicy,
    /// The shares, in percent and growing, at which people are told.
    pub thresholds: Vec<u32>,
}

/// Where an account stands with its payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// All paid.
    Current,
    /// A payment failed; nothing is reduced yet.
    Grace,
    /// Limits are reduced to the catalog's share.
    Restricted,
    /// Metrics marked `write` are at 0.
    ReadOnly,
    /// The default plan's limits apply.
    Suspended,
}

/// A feature and the plans that turn it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeaturePlans {
    /// The feature.
    pub feature: FeatureSlug,
    /// The plans that have it, in the catalog's order.
    pub plans: Vec<PlanSlug>,
}

/// What a plan entitles an account to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlements {
    /// The plan.
    pub plan: PlanSlug,
    /// Its version, from 1.
    pub plan_version: u32,
    /// Its limits; a metric and period at most once.
    pub limits: Vec<Limit>,
    /// Its features.
    pub features: Vec<FeatureSlug>,
}
