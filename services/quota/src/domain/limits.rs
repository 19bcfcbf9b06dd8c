//! Which limits hold for an account: its plan's, reduced by the stage it is in.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{Entitlements, Limit, Metric, MetricSlug, Period, Stage, Units};
use serde::{Deserialize, Serialize};

/// A limit as it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveLimit {
    /// The limit; its amount is what the stage leaves.
    pub limit: Limit,
    /// The share of the amount that the stage leaves, in percent.
    pub stage_factor_percent: u32,
    /// The amount in the plan.
    pub plan_amount: Units,
    /// What replaces that amount, where something does.
    pub replaced_by: Option<LimitOverride>,
}

/// What replaces the amount of one of a plan's limits for one account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LimitOverride {
    /// The amount.
    pub amount: Units,
    /// Until when it holds; none until it is cleared.
    pub expires_at: Option<Timestamp>,
    /// Why, for people.
    pub note: String,
}

impl LimitOverride {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// The overrides of an account, by metric and period.
pub type Overrides = HashMap<(MetricSlug, Period), LimitOverride>;

/// Overrides as a list, for forms whose keys are texts.
pub(super) mod overrides_as_list {
    use octroi_core::{MetricSlug, Period};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{LimitOverride, Overrides};

    pub(in super::super) fn serialize<S: Serializer>(
        overrides: &Overrides,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        overrides.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Overrides, D::Error> {
        let list = Vec::<((MetricSlug, Period), LimitOverride)>::deserialize(deserializer)?;
        Ok(list.into_iter().collect())
    }
}

/// What the rules about stages depend on.
#[derive(Clone, Copy, Debug)]
pub struct StageRules<'a> {
    /// Every metric of the catalog.
    pub metrics: &'a HashMap<MetricSlug, Metric>,
    /// The default plan, which holds for SUSPENDED accounts.
    pub default_entitlements: &'a Entitlements,
    /// The share that RESTRICTED leaves, in percent.
    pub restricted_percent: u32,
}

/// Those of an account in `stage`: SUSPENDED ones have the default plan's.
#[must_use]
pub fn entitlements_in_force<'e>(
    entitlements: &'e Entitlements,
    stage: Stage,
    default_entitlements: &'e Entitlements,
) -> &'e Entitlements {
    if stage == Stage::Suspended {
        default_entitlements
    } else {
        entitlements
    }
}

/// The limits that hold in `stage` at `now`. A stage never takes back what is used: it lowers what may still be taken.
#[must_use]
pub fn effective_limits(
    entitlements: &Entitlements,
    overrides: &Overrides,
    stage: Stage,
    rules: StageRules<'_>,
    now: Timestamp,
) -> Vec<EffectiveLimit> {
    let entitlements = entitlements_in_force(entitlements, stage, rules.default_entitlements);
    let mut limits: Vec<EffectiveLimit> = entitlements
        .limits
        .iter()
        .map(|limit| {
            let percent = stage_factor_percent(&limit.metric, stage, rules);
            let replaced_by = overrides.get(&(limit.metric.clone(), limit.period));
            let replaced_by = replaced_by.filter(|one| one.holds(now)).cloned();
            let amount = (replaced_by.as_ref()).map_or(limit.amount, |one| one.amount);
            let amount = amount.percent(percent);
            // An override above the ceiling of the plan would not hold otherwise.
            let ceiling = limit.ceiling.map(|ceiling| ceiling.percent(percent).max(amount));
            EffectiveLimit {
                limit: Limit {
                    amount,
                    ceiling,
                    ..limit.clone()
                },
                stage_factor_percent: percent,
                plan_amount: limit.amount,
                replaced_by,
            }
        })
        .collect();
    limits.sort_by(|a, b| (&a.limit.metric, a.limit.period).cmp(&(&b.limit.metric, b.limit.period)));
    limits
}

fn stage_factor_percent(metric: &MetricSlug, stage: Stage, rules: StageRules<'_>) -> u32 {
    match stage {
        Stage::Current | Stage::Grace | Stage::Suspended => 100,
        Stage::Restricted => rules.restricted_percent,
        Stage::ReadOnly => {
            if rules.metrics.get(metric).is_some_and(|metric| metric.write) {
                0
            } else {
                100
            }
        }
    }
}

/// The most that may ever be taken in a window of the limit: none where nothing ends it.
#[must_use]
pub fn hard_max(limit: &Limit) -> Option<Units> {
    use octroi_core::LimitMode::{Hard, Shadow, Soft};
    match limit.mode {
        Hard => Some(limit.amount),
        Soft => limit.ceiling,
        Shadow => None,
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::{
        Aggregation, LimitMode, MetricKind, Period, PlanSlug, Recording, UnreachablePolicy,
        entitlement::DEFAULT_THRESHOLDS,
    };

    use super::*;

    fn metric(slug: &str, write: bool) -> Metric {
        Metric {
            slug: MetricSlug::parse(slug).expect("a slug"),
            kind: MetricKind::Flow,
            aggregation: Aggregation::Sum,
            display_name_en: slug.into(),
            display_name_fr: slug.into(),
            unit: "unit".into(),
            write,
            recording: Recording::Durable,
            property: None,
        }
    }

    fn plan(name: &str, amount: u64) -> Entitlements {
        let limit = |metric: &str| Limit {
            metric: MetricSlug::parse(metric).expect("a slug"),
            period: Period::Day,
            amount: Units::new(amount).expect("an amount"),
            mode: LimitMode::Hard,
            ceiling: None,
            unreachable_policy: UnreachablePolicy::Deny,
            thresholds: DEFAULT_THRESHOLDS.to_vec(),
        };
        Entitlements {
            plan: PlanSlug::parse(name).expect("a slug"),
            plan_version: 1,
            limits: vec![limit("notes.created"), limit("api.requests")],
            features: Vec::new(),
        }
    }

    #[track_caller]
    fn check(stage: Stage, requests: u64, notes: u64) {
        let metrics: HashMap<_, _> = [metric("api.requests", false), metric("notes.created", true)]
            .into_iter()
            .map(|metric| (metric.slug.clone(), metric))
            .collect();
        let default_entitlements = plan("free", 10);
        let rules = StageRules {
            metrics: &metrics,
            default_entitlements: &default_entitlements,
            restricted_percent: 50,
        };
        let none = Overrides::new();
        let limits = effective_limits(&plan("pro", 101), &none, stage, rules, Timestamp::UNIX_EPOCH);
        let amounts: Vec<u64> = limits.iter().map(|limit| limit.limit.amount.get()).collect();
        assert_eq!(amounts, [requests, notes], "{stage:?}");
    }

    #[test]
    fn an_override_above_the_ceiling_raises_it_and_one_below_leaves_it() {
        let entitlements = Entitlements {
            limits: (plan("pro", 100).limits.into_iter())
                .map(|limit| Limit {
                    mode: LimitMode::Soft,
                    ceiling: Some(Units::new(150).expect("an amount")),
                    ..limit
                })
                .collect(),
            ..plan("pro", 100)
        };
        let (metrics, default_entitlements) = (HashMap::new(), plan("free", 10));
        let rules = StageRules {
            metrics: &metrics,
            default_entitlements: &default_entitlements,
            restricted_percent: 50,
        };
        for (amount, stage, max) in [
            (120, Stage::Current, 150),
            (200, Stage::Current, 200),
            (200, Stage::Restricted, 100),
        ] {
            let replaced = LimitOverride {
                amount: Units::new(amount).expect("an amount"),
                expires_at: None,
                note: String::new(),
            };
            let metric = MetricSlug::parse("api.requests").expect("a slug");
            let overrides = Overrides::from([((metric.clone(), Period::Day), replaced)]);
            let limits = effective_limits(&entitlements, &overrides, stage, rules, Timestamp::UNIX_EPOCH);
            let found = limits.iter().find(|one| one.limit.metric == metric);
            let found = found.and_then(|one| hard_max(&one.limit)).map(Units::get);
            assert_eq!(found, Some(max), "{amount} {stage:?}");
        }
    }

    #[test]
    fn each_stage_leaves_its_share_of_each_limit() {
        check(Stage::Current, 101, 101);
        check(Stage::Grace, 101, 101);
        check(Stage::Restricted, 50, 50);
        check(Stage::ReadOnly, 101, 0);
        check(Stage::Suspended, 10, 10);
    }
}
