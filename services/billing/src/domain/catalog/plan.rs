//! The rules of a plan: its limits, prices and features.

use std::{collections::BTreeSet, num::NonZeroU64};

use octroi_core::{
    FeatureSlug, Limit, LimitMode, MetricKind, MetricSlug, Period, PlanSlug, Units, UnreachablePolicy,
    Violations, entitlement::DEFAULT_THRESHOLDS, money::Currency,
};
use serde_yaml_ng::Value;

use super::{
    Interval, Plan,
    check::{FEATURES_MAX, Known},
    read::Table,
};
use crate::domain::price::{Price, Rate, Tier, UnitAmount};

const PRICES_MAX: usize = 50;
const LIMITS_MAX: usize = 100;
const TIERS_MAX: usize = 50;
const THRESHOLDS_MAX: usize = 10;
/// Far above any price, and low enough that sums stay within 64 bits.
const FIXED_AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000;

pub(super) fn read_plan(
    path: &str,
    value: Value,
    known: &Known,
    slugs: &mut BTreeSet<PlanSlug>,
    violations: &mut Violations,
) -> Option<Plan> {
    let mut table = Table::open(path, value, violations)?;
    let slug = table.parsed("slug", PlanSlug::parse, violations);
    if slug.as_ref().is_some_and(|slug| !slugs.insert(slug.clone())) {
        table.refuse("slug", "is the slug of a plan before", violations);
    }
    let names = table.names(violations);
    let currency = table.parsed("currency", Currency::parse, violations);
    if currency.is_some_and(|currency| !known.currencies.contains(&currency)) {
        table.refuse(
            "currency",
            "must be one that the catalog lists under currencies",
            violations,
        );
    }
    let interval = table.parsed(
        "interval",
        |name| Interval::from_name(name).ok_or("must be month or year"),
        violations,
    );
    let public = table.optional("public", violations);
    let prices = read_prices(&mut table, known, violations);
    let limits = read_limits(&mut table, known, violations);
    let features = read_features(&mut table, known, violations);
    table.finish(violations);
    let (display_name_en, display_name_fr) = names?;
    Some(Plan {
        slug: slug?,
        display_name_en,
        display_name_fr,
        currency: currency?,
        interval: interval?,
        public: public?.unwrap_or(true),
        prices,
        limits,
        features,
    })
}

fn read_features(table: &mut Table, known: &Known, violations: &mut Violations) -> Vec<FeatureSlug> {
    let mut features = BTreeSet::new();
    for (path, value) in table.list("features", FEATURES_MAX, violations) {
        let named = value.as_str().and_then(|slug| FeatureSlug::parse(slug).ok());
        let Some(feature) = named.filter(|feature| known.features.contains(feature)) else {
            violations.add(path, "must be the slug of a feature of this catalog");
            continue;
        };
        if !features.insert(feature) {
            violations.add(path, "is listed before");
        }
    }
    features.into_iter().collect()
}

fn read_limits(table: &mut Table, known: &Known, violations: &mut Violations) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for (path, value) in table.list("limits", LIMITS_MAX, violations) {
        let Some(limit) = read_limit(&path, value, known, violations) else {
            continue;
        };
        let same = |other: &Limit| (&other.metric, other.period) == (&limit.metric, limit.period);
        if limits.iter().any(same) {
            violations.add(path, "limits a metric and period that a limit before does");
        }
        limits.push(limit);
    }
    limits.sort_by(|a, b| (&a.metric, a.period).cmp(&(&b.metric, b.period)));
    limits
}

fn read_limit(path: &str, value: Value, known: &Known, violations: &mut Violations) -> Option<Limit> {
    let mut table = Table::open(path, value, violations)?;
    let metric = read_metric_slug(&mut table, known, violations);
    let period = table.required("period", violations);
    let amount: Option<Units> = table.required("amount", violations);
    let mode = table.required("mode", violations);
    let ceiling: Option<Option<Units>> = table.optional("ceiling", violations);
    let policy: Option<Option<UnreachablePolicy>> = table.optional("unreachable", violations);
    let thresholds = read_thresholds(&mut table, violations);
    if let (Some(metric), Some(period)) = (&metric, period) {
        check_limited(&table, metric, period, known, violations);
    }
    if let Some(Some(ceiling)) = ceiling {
        if mode.is_some_and(|mode| mode != LimitMode::Soft) {
            table.refuse("ceiling", "is only for soft limits", violations);
        }
        if amount.is_some_and(|amount| ceiling < amount) {
            table.refuse("ceiling", "must be at least the amount", violations);
        }
    }
    if mode == Some(LimitMode::Hard) && policy == Some(Some(UnreachablePolicy::Allow)) {
        table.refuse(
            "unreachable",
            "must be deny or lease: a hard limit never lets through what it cannot count",
            violations,
        );
    }
    table.finish(violations);
    Some(Limit {
        metric: metric?,
        period: period?,
        amount: amount?,
        mode: mode?,
        ceiling: ceiling?,
        unreachable_policy: policy?.unwrap_or(UnreachablePolicy::Deny),
        thresholds: thresholds?,
    })
}

/// Only what adds up can be taken from; what is held now has no windows.
fn check_limited(
    table: &Table,
    metric: &MetricSlug,
    period: Period,
    known: &Known,
    violations: &mut Violations,
) {
    match known.metrics.get(metric).copied().flatten() {
        Some((MetricKind::Level, _)) if period != Period::Lifetime => {
            table.refuse("period", "must be lifetime: a level has no windows", violations);
        }
        Some((MetricKind::Flow, aggregation)) if !aggregation.may_be_limited() => {
            table.refuse(
                "metric",
                "must be a level, or a flow that is a sum or a count",
                violations,
            );
        }
        _ => {}
    }
}

fn read_metric_slug(table: &mut Table, known: &Known, violations: &mut Violations) -> Option<MetricSlug> {
    let metric = table.parsed("metric", MetricSlug::parse, violations)?;
    if !known.metrics.contains_key(&metric) {
        table.refuse(
            "metric",
            "must be the slug of a metric of this catalog",
            violations,
        );
    }
    Some(metric)
}

fn read_thresholds(table: &mut Table, violations: &mut Violations) -> Option<Vec<u32>> {
    let given: Option<Vec<u32>> = table.optional("thresholds", violations)?;
    let thresholds = given.unwrap_or_else(|| DEFAULT_THRESHOLDS.to_vec());
    let growing = thresholds.is_sorted_by(|a, b| a < b);
    let in_range = thresholds.iter().all(|percent| (1..=1_000).contains(percent));
    if thresholds.is_empty() || thresholds.len() > THRESHOLDS_MAX || !growing || !in_range {
        table.refuse(
            "thresholds",
            "must be 1 to 10 growing shares of 1 to 1000 percent",
            violations,
        );
    }
    Some(thresholds)
}

fn read_prices(table: &mut Table, known: &Known, violations: &mut Violations) -> Vec<Price> {
    let mut prices: Vec<Price> = Vec::new();
    for (path, value) in table.list("prices", PRICES_MAX, violations) {
        let Some(mut entry) = Table::open(&path, value, violations) else {
            continue;
        };
        let price = read_price(&mut entry, known, violations);
        entry.finish(violations);
        let Some(price) = price else { continue };
        if prices.iter().any(|other| other.metric() == price.metric()) {
            violations.add(path, "prices what a price before does");
        }
        prices.push(price);
    }
    prices
}

fn read_price(table: &mut Table, known: &Known, violations: &mut Violations) -> Option<Price> {
    let model: Option<String> = table.required("model", violations);
    let Some(model) = model.filter(|model| is_model(model, table, violations)) else {
        table.leave_rest();
        return None;
    };
    if model == "flat" {
        let amount_minor = read_fixed_amount(table, "amount_minor", violations)?;
        return Some(Price::Flat { amount_minor });
    }
    let metric = read_metric_slug(table, known, violations);
    let included_units: Option<Option<Units>> = table.optional("included_units", violations);
    let rate = match model.as_str() {
        "per_unit" => read_unit_amount(table, violations).map(|unit_amount| Rate::PerUnit { unit_amount }),
        "graduated" => read_tiers(table, violations).map(|tiers| Rate::Graduated { tiers }),
        "volume" => read_tiers(table, violations).map(|tiers| Rate::Volume { tiers }),
        _ => read_package(table, violations),
    };
    Some(Price::Metered {
        metric: metric?,
        included_units: included_units?.unwrap_or(Units::ZERO),
        rate: rate?,
    })
}

fn is_model(model: &str, table: &Table, violations: &mut Violations) -> bool {
    let known = ["flat", "per_unit", "graduated", "volume", "package"].contains(&model);
    if !known {
        table.refuse(
            "model",
            "must be flat, per_unit, graduated, volume or package",
            violations,
        );
    }
    known
}

fn read_fixed_amount(table: &mut Table, key: &str, violations: &mut Violations) -> Option<i64> {
    let amount_minor: i64 = table.required(key, violations)?;
    if !(0..=FIXED_AMOUNT_MINOR_MAX).contains(&amount_minor) {
        table.refuse(
            key,
            format!("must be 0 to {FIXED_AMOUNT_MINOR_MAX} minor units"),
            violations,
        );
    }
    Some(amount_minor)
}

fn read_unit_amount(table: &mut Table, violations: &mut Violations) -> Option<UnitAmount> {
    table.parsed("unit_amount", UnitAmount::parse, violations)
}

fn read_package(table: &mut Table, violations: &mut Violations) -> Option<Rate> {
    let unit_amount = read_unit_amount(table, violations);
    let units: Option<Units> = table.required("package_units", violations);
    let package_units = NonZeroU64::new(units?.get());
    if package_units.is_none() {
        table.refuse("package_units", "must be at least 1", violations);
    }
    Some(Rate::Package {
        unit_amount: unit_amount?,
        package_units: package_units?,
    })
}

fn read_tiers(table: &mut Table, violations: &mut Violations) -> Option<Vec<Tier>> {
    let entries = table.list("tiers", TIERS_MAX, violations);
    let count = entries.len();
    if count == 0 {
        table.refuse("tiers", "must list at least one tier", violations);
    }
    let mut tiers: Vec<Tier> = Vec::new();
    for (index, (path, value)) in entries.into_iter().enumerate() {
        let Some(mut entry) = Table::open(&path, value, violations) else {
            continue;
        };
        let tier = read_tier(&mut entry, violations);
        if let Some(tier) = tier {
            let before = tiers
                .last()
                .map_or(Units::ZERO, |last| last.up_to.unwrap_or(Units::MAX));
            match tier.up_to {
                Some(_) if index + 1 == count => {
                    entry.refuse("up_to", "must be absent at the last tier", violations)
                }
                Some(up_to) if up_to <= before => {
                    entry.refuse("up_to", "must be more than at the tier before", violations);
                }
                None if index + 1 < count => {
                    entry.refuse("up_to", "is required but at the last tier", violations)
                }
                _ => {}
            }
            tiers.push(tier);
        }
        entry.finish(violations);
    }
    Some(tiers)
}

fn read_tier(table: &mut Table, violations: &mut Violations) -> Option<Tier> {
    let up_to: Option<Option<Units>> = table.optional("up_to", violations);
    let unit_amount = read_unit_amount(table, violations);
    let flat: Option<Option<i64>> = table.optional("flat_amount_minor", violations);
    let flat_amount_minor = flat?.unwrap_or(0);
    if !(0..=FIXED_AMOUNT_MINOR_MAX).contains(&flat_amount_minor) {
        let rule = format!("must be 0 to {FIXED_AMOUNT_MINOR_MAX} minor units");
        table.refuse("flat_amount_minor", rule, violations);
    }
    Some(Tier {
        up_to: up_to?,
        unit_amount: unit_amount?,
        flat_amount_minor,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{check, samples::small_with};

    #[track_caller]
    fn check_refused(from: &str, to: &str, paths: &[&str]) {
        let violations = check(&small_with(from, to)).expect_err("a broken rule");
        let found: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(found, paths, "{violations}");
    }

    const DAY_LIMIT: &str = "{ metric: api.requests, period: day, amount: 100, mode: hard }";
    const SOFT_LIMIT: &str = "{ metric: api.requests, period: month, amount: 10000, mode: soft, ceiling: 50000, unreachable: allow }";
    const UNIT_PRICE: &str =
        "{ model: per_unit, metric: api.requests, included_units: 10000, unit_amount: \"0.05\" }";

    #[test]
    fn a_limit_that_breaks_a_rule_is_told_with_its_path() {
        let path = |field: &str| format!("plans[0].limits[0].{field}");
        for (to, field) in [
            (
                "{ metric: nothing, period: day, amount: 100, mode: hard }",
                "metric",
            ),
            (
                "{ metric: users.active, period: day, amount: 100, mode: hard }",
                "metric",
            ),
            (
                "{ metric: files.stored, period: day, amount: 100, mode: hard }",
                "period",
            ),
            (
                "{ metric: api.requests, period: week, amount: 100, mode: hard }",
                "period",
            ),
            (
                "{ metric: api.requests, period: day, amount: 9007199254740992, mode: hard }",
                "amount",
            ),
            (
                "{ metric: api.requests, period: day, amount: 1.5, mode: hard }",
                "amount",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: firm }",
                "mode",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, ceiling: 200 }",
                "ceiling",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: shadow, ceiling: 200 }",
                "ceiling",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: soft, ceiling: 99 }",
                "ceiling",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, unreachable: allow }",
                "unreachable",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, thresholds: [] }",
                "thresholds",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, thresholds: [90, 80] }",
                "thresholds",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, thresholds: [0] }",
                "thresholds",
            ),
            (
                "{ metric: api.requests, period: day, amount: 100, mode: hard, burst: 3 }",
                "burst",
            ),
        ] {
            check_refused(DAY_LIMIT, to, &[&path(field)]);
        }
        let twice = format!("{DAY_LIMIT}\n      - {DAY_LIMIT}");
        check_refused(DAY_LIMIT, &twice, &["plans[0].limits[1]"]);
    }

    #[test]
    fn soft_and_shadow_limits_may_let_through_what_cannot_be_counted() {
        for mode in ["soft", "shadow"] {
            let limit = format!(
                "{{ metric: api.requests, period: month, amount: 10, mode: {mode}, unreachable: allow }}"
            );
            check(&small_with(SOFT_LIMIT, &limit)).expect("a good catalog");
        }
    }

    #[test]
    fn a_price_that_breaks_a_rule_is_told_with_its_path() {
        let path = |field: &str| format!("plans[1].prices[1].{field}");
        for (to, field) in [
            ("{ metric: api.requests, unit_amount: \"1\" }", "model"),
            ("{ model: free, metric: api.requests }", "model"),
            ("{ model: flat, amount_minor: 1900.5 }", "amount_minor"),
            (
                "{ model: per_unit, metric: nothing, unit_amount: \"1\" }",
                "metric",
            ),
            (
                "{ model: per_unit, metric: api.requests, unit_amount: \"-1\" }",
                "unit_amount",
            ),
            (
                "{ model: per_unit, metric: api.requests, unit_amount: 1 }",
                "unit_amount",
            ),
            (
                "{ model: package, metric: api.requests, unit_amount: \"1\", package_units: 0 }",
                "package_units",
            ),
            ("{ model: volume, metric: api.requests }", "tiers"),
            (
                "{ model: volume, metric: api.requests, tiers: [{ up_to: 5, unit_amount: \"1\" }] }",
                "tiers[0].up_to",
            ),
            (
                "{ model: graduated, metric: api.requests, tiers: [{ unit_amount: \"1\" }, { unit_amount: \"1\" }] }",
                "tiers[0].up_to",
            ),
            (
                "{ model: graduated, metric: api.requests, tiers: [{ up_to: 0, unit_amount: \"1\" }, { unit_amount: \"1\" }] }",
                "tiers[0].up_to",
            ),
            (
                "{ model: volume, metric: api.requests, tiers: [{ flat_amount_minor: -1, unit_amount: \"1\" }] }",
                "tiers[0].flat_amount_minor",
            ),
        ] {
            check_refused(UNIT_PRICE, to, &[&path(field)]);
        }
        let twice = format!("{UNIT_PRICE}\n      - {UNIT_PRICE}");
        check_refused(UNIT_PRICE, &twice, &["plans[1].prices[2]"]);
    }

    #[test]
    fn every_price_model_is_read() {
        let tiers =
            "tiers: [{ up_to: 10, unit_amount: \"2\", flat_amount_minor: 5 }, { unit_amount: \"0.5\" }]";
        for price in [
            format!("{{ model: graduated, metric: api.requests, included_units: 3, {tiers} }}"),
            format!("{{ model: volume, metric: api.requests, {tiers} }}"),
            "{ model: package, metric: api.requests, unit_amount: \"100\", package_units: 1000 }".to_owned(),
        ] {
            let catalog = check(&small_with(UNIT_PRICE, &price)).expect("a good catalog");
            assert_eq!(catalog.plans[1].prices.len(), 2, "{price}");
        }
    }

    #[test]
    fn the_order_of_limits_and_features_means_nothing() {
        let swapped = small_with(
            "      - { metric: api.requests, period: day, amount: 100, mode: hard }\n      - { metric: files.stored, period: lifetime, amount: 3, mode: hard }\n",
            "      - { metric: files.stored, period: lifetime, amount: 3, mode: hard }\n      - { metric: api.requests, period: day, amount: 100, mode: hard }\n",
        );
        assert_eq!(check(&swapped), check(super::super::samples::SMALL));
    }
}
