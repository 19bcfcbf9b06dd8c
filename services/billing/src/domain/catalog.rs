//! The catalog: what is counted, what is on offer, and at what price.
//!
//! An operator writes it as one YAML document, as `deploy/catalog.yaml` shows. [`check`] reads the document
//! and tells every rule that it breaks at once; [`check_succession`] adds the rules about what a catalog in
//! force may become; [`diff`] and [`warnings`] say what an operator should see before applying it.

mod check;
mod diff;
mod plan;
mod read;
mod warnings;

use std::collections::BTreeMap;

use octroi_core::{
    Entitlements, FeaturePlans, FeatureSlug, Limit, Metric, MetricSlug, PlanSlug, Stage, money::Currency,
    named,
};

pub use self::{
    check::{DOCUMENT_BYTES_MAX, check, check_succession},
    diff::diff,
    warnings::warnings,
};
use super::price::Price;

/// How long a billing period of a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interval {
    /// One month.
    Month,
    /// One year.
    Year,
}

named!(Interval { Month => "month", Year => "year" });

/// What a plan may turn on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub slug: FeatureSlug,
    /// The name people read, in English.
    pub display_name_en: String,
    /// The name people read, in French.
    pub display_name_fr: String,
}

/// What one plan says; a change of any of it makes another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub slug: PlanSlug,
    /// The name people read, in English.
    pub display_name_en: String,
    /// The name people read, in French.
    pub display_name_fr: String,
    /// The currency of its prices.
    pub currency: Currency,
    /// How long a billing period is.
    pub interval: Interval,
    /// Whether it is offered to customers.
    pub public: bool,
    /// What it charges, in the order of an invoice's lines.
    pub prices: Vec<Price>,
    /// What it limits, ordered by metric and period.
    pub limits: Vec<Limit>,
    /// What it turns on, ordered.
    pub features: Vec<FeatureSlug>,
}

impl Plan {
    /// Whether it never charges anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.prices.iter().all(Price::is_free)
    }

    /// What it entitles to, as version `plan_version`.
    #[must_use]
    pub fn entitlements(&self, plan_version: u32) -> Entitlements {
        Entitlements {
            plan: self.slug.clone(),
            plan_version,
            limits: self.limits.clone(),
            features: self.features.clone(),
        }
    }
}

/// One step of what happens to an account that does not pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DunningStep {
    /// Days after the payment failed.
    pub after_days: u32,
    /// Where the account stands from then on.
    pub stage: Stage,
}

/// A catalog that keeps every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// The currencies that plans may use.
    pub currencies: Vec<Currency>,
    /// What is counted.
    pub metrics: Vec<Metric>,
    /// What plans may turn on.
    pub features: Vec<Feature>,
    /// What is on offer.
    pub plans: Vec<Plan>,
    /// The plan of an account without a subscription.
    pub default_plan: PlanSlug,
    /// The share of each limit that RESTRICTED leaves, in percent.
    pub restricted_percent: u32,
    /// What happens to an account that does not pay, the first step first.
    pub dunning: Vec<DunningStep>,
}

impl Catalog {
    /// A metric by its slug.
    #[must_use]
    pub fn metric(&self, slug: &MetricSlug) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.slug == *slug)
    }

    /// A plan by its slug.
    #[must_use]
    pub fn plan(&self, slug: &PlanSlug) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.slug == *slug)
    }

    /// Every feature with the plans that have it.
    #[must_use]
    pub fn feature_plans(&self) -> Vec<FeaturePlans> {
        let plans_of = |feature: &Feature| {
            let having = self
                .plans
                .iter()
                .filter(|plan| plan.features.contains(&feature.slug));
            having.map(|plan| plan.slug.clone()).collect()
        };
        self.features
            .iter()
            .map(|feature| FeaturePlans {
                feature: feature.slug.clone(),
                plans: plans_of(feature),
            })
            .collect()
    }
}

/// A catalog with the versions it was given when it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCatalog {
    /// Its version, from 1.
    pub version: u64,
    /// What it says.
    pub catalog: Catalog,
    /// The version of each of its plans.
    pub plan_versions: BTreeMap<PlanSlug, u32>,
}

impl AppliedCatalog {
    /// A plan that it offers, with its version.
    #[must_use]
    pub fn plan(&self, slug: &PlanSlug) -> Option<(u32, &Plan)> {
        Some((*self.plan_versions.get(slug)?, self.catalog.plan(slug)?))
    }
}

/// A plan of a catalog that is being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPlan<'a> {
    /// What it says.
    pub plan: &'a Plan,
    /// The version that it has from now on.
    pub version: u32,
    /// Whether the version is new.
    pub changed: bool,
}

/// The version of each plan of `next`: another one only where a plan says something else than its `newest`
/// version, whether that is still offered or not.
#[must_use]
pub fn next_plans<'a>(newest: &BTreeMap<PlanSlug, (u32, Plan)>, next: &'a Catalog) -> Vec<NextPlan<'a>> {
    let versioned = |plan: &'a Plan| match newest.get(&plan.slug) {
        None => NextPlan {
            plan,
            version: 1,
            changed: true,
        },
        Some((version, same)) if same == plan => NextPlan {
            plan,
            version: *version,
            changed: false,
        },
        Some((version, _)) => NextPlan {
            plan,
            version: version + 1,
            changed: true,
        },
    };
    next.plans.iter().map(versioned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plan_that_says_something_else_gets_another_version() {
        let stored = check(samples::SMALL).expect("a good catalog");
        let newest = stored
            .plans
            .iter()
            .map(|plan| (plan.slug.clone(), (3, plan.clone())))
            .collect();
        let next =
            check(&samples::small_with("amount_minor: 1900", "amount_minor: 2900")).expect("a good catalog");
        let versions = |newest, next| -> Vec<(u32, bool)> {
            next_plans(newest, next)
                .iter()
                .map(|plan| (plan.version, plan.changed))
                .collect()
        };
        assert_eq!(versions(&newest, &stored), [(3, false), (3, false)]);
        assert_eq!(versions(&newest, &next), [(3, false), (4, true)]);
        assert_eq!(versions(&BTreeMap::new(), &next), [(1, true), (1, true)]);
    }
}

#[cfg(test)]
pub(crate) mod samples {
    /// The catalog that `make up` applies.
    pub(crate) const DEPLOYED: &str = include_str!("../../../../deploy/catalog.yaml");

    /// A small catalog that keeps every rule.
    pub(crate) const SMALL: &str = r#"
currencies: [EUR]
restricted_percent: 25
default_plan: free
metrics:
  - { slug: api.requests, kind: flow, aggregation: sum, unit: request, name: { en: Requests, fr: Requêtes } }
  - { slug: users.active, kind: flow, aggregation: unique, property: user, unit: user, name: { en: Active users, fr: Utilisateurs } }
  - { slug: files.stored, kind: level, aggregation: sum, unit: file, write: true, name: { en: Files, fr: Fichiers } }
features:
  - { slug: export, name: { en: Export, fr: Export } }
plans:
  - slug: free
    name: { en: Free, fr: Gratuit }
    currency: EUR
    interval: month
    limits:
      - { metric: api.requests, period: day, amount: 100, mode: hard }
      - { metric: files.stored, period: lifetime, amount: 3, mode: hard }
  - slug: pro
    name: { en: Pro, fr: Pro }
    currency: EUR
    interval: month
    prices:
      - { model: flat, amount_minor: 1900 }
      - { model: per_unit, metric: api.requests, included_units: 10000, unit_amount: "0.05" }
    limits:
      - { metric: api.requests, period: month, amount: 10000, mode: soft, ceiling: 50000, unreachable: allow }
    features: [export]
dunning:
  - { after_days: 0, stage: grace }
  - { after_days: 14, stage: suspended }
"#;

    /// `SMALL` with one text replaced by another, once.
    #[track_caller]
    pub(crate) fn small_with(from: &str, to: &str) -> String {
        assert_eq!(
            SMALL.matches(from).count(),
            1,
            "{from:?} must be in the sample once"
        );
        SMALL.replacen(from, to, 1)
    }
}
