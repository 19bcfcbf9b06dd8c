//! What keeps every rule and still deserves a second look.

use octroi_core::{Limit, LimitMode, Period, Recording, Units};

use super::{Catalog, Plan};
use crate::domain::price::Price;

/// What an operator should look at twice, a line each.
#[must_use]
pub fn warnings(catalog: &Catalog) -> Vec<String> {
    let mut lines = Vec::new();
    for metric in &catalog.metrics {
        let used = catalog.plans.iter().any(|plan| {
            let limited = plan.limits.iter().any(|limit| limit.metric == metric.slug);
            limited
                || plan
                    .prices
                    .iter()
                    .any(|price| price.metric() == Some(&metric.slug))
        });
        if !used {
            lines.push(format!("metric {}: no plan limits or prices it", metric.slug));
        }
        let priced = catalog.plans.iter().flat_map(|plan| &plan.prices);
        if metric.recording == Recording::Buffered
            && priced.clone().any(|price| price.metric() == Some(&metric.slug))
        {
            lines.push(format!(
                "metric {}: it is priced and buffered, so what a replica did not record when it died is not billed",
                metric.slug
            ));
        }
    }
    for feature in catalog
        .feature_plans()
        .iter()
        .filter(|feature| feature.plans.is_empty())
    {
        lines.push(format!("feature {}: no plan turns it on", feature.feature));
    }
    for currency in &catalog.currencies {
        if !catalog.plans.iter().any(|plan| plan.currency == *currency) {
            lines.push(format!("currency {currency}: no plan uses it"));
        }
    }
    if catalog
        .plan(&catalog.default_plan)
        .is_some_and(|plan| plan.limits.is_empty())
    {
        lines.push(format!(
            "plan {}: an account without a subscription has no limit at all",
            catalog.default_plan
        ));
    }
    for plan in &catalog.plans {
        for line in plan_warnings(plan) {
            lines.push(format!("plan {}: {line}", plan.slug));
        }
    }
    lines
}

fn plan_warnings(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for limit in &plan.limits {
        if let Some(longer) = plan.limits.iter().find(|longer| is_never_reached(limit, longer)) {
            let (short, long) = (limit.period.as_str(), longer.period.as_str());
            lines.push(format!(
                "{}: the limit a {short} is not below the one a {long} and stops nothing",
                limit.metric
            ));
        }
        let priced = plan
            .prices
            .iter()
            .any(|price| price.metric() == Some(&limit.metric));
        if limit.mode == LimitMode::Soft && !priced && !plan.is_free() {
            lines.push(format!(
                "{}: the limit is soft and no price charges the overage",
                limit.metric
            ));
        }
    }
    for price in &plan.prices {
        let Price::Metered {
            metric,
            included_units,
            ..
        } = price
        else {
            continue;
        };
        let ends = |limit: &&Limit| limit.metric == *metric && end_of(limit).is_some();
        if !price.is_free() && !plan.limits.iter().any(|limit| ends(&limit)) {
            lines.push(format!(
                "{metric}: it is priced and no hard limit or ceiling bounds the bill"
            ));
        }
        let unreachable = |limit: &Limit| {
            limit.metric == *metric
                && matches!(limit.period, Period::Month | Period::Lifetime)
                && end_of(limit).is_some_and(|end| end <= *included_units)
        };
        if !price.is_free() && plan.limits.iter().any(unreachable) {
            lines.push(format!(
                "{metric}: the limit stops at the included units, so the price never charges"
            ));
        }
    }
    lines
}

/// Where a limit stops.
fn end_of(limit: &Limit) -> Option<Units> {
    match limit.mode {
        LimitMode::Hard => Some(limit.amount),
        LimitMode::Soft => limit.ceiling,
        LimitMode::Shadow => None,
    }
}

/// A window that lies within a longer one cannot hold more than the longer one allows.
fn is_never_reached(limit: &Limit, longer: &Limit) -> bool {
    limit.metric == longer.metric
        && limit.period < longer.period
        && limit.mode == longer.mode
        && limit.amount >= longer.amount
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            check,
            samples::{DEPLOYED, SMALL, small_with},
        },
        *,
    };

    #[track_caller]
    fn check_lines(document: &str, expected: &[&str]) {
        assert_eq!(warnings(&check(document).expect("a good catalog")), expected);
    }

    #[test]
    fn the_deployed_catalog_deserves_no_second_look() {
        check_lines(DEPLOYED, &[]);
    }

    #[test]
    fn what_deserves_a_second_look_is_told() {
        let unused = "metric users.active: no plan limits or prices it";
        check_lines(SMALL, &[unused]);
        check_lines(
            &small_with("currencies: [EUR]", "currencies: [EUR, USD]"),
            &[unused, "currency USD: no plan uses it"],
        );
        check_lines(
            &small_with(
                "aggregation: sum, unit: request,",
                "aggregation: sum, recording: buffered, unit: request,",
            ),
            &[
                "metric api.requests: it is priced and buffered, so what a replica did not record when it died is not billed",
                unused,
            ],
        );
        check_lines(
            &small_with("    features: [export]\n", ""),
            &[unused, "feature export: no plan turns it on"],
        );
        check_lines(
            &small_with(", ceiling: 50000", ""),
            &[
                unused,
                "plan pro: api.requests: it is priced and no hard limit or ceiling bounds the bill",
            ],
        );
        check_lines(
            &small_with("included_units: 10000", "included_units: 50000"),
            &[
                unused,
                "plan pro: api.requests: the limit stops at the included units, so the price never charges",
            ],
        );
        check_lines(
            &small_with(
                "      - { metric: files.stored, period: lifetime",
                "      - { metric: api.requests, period: month, amount: 100, mode: hard }\n      - { metric: files.stored, period: lifetime",
            ),
            &[
                unused,
                "plan free: api.requests: the limit a day is not below the one a month and stops nothing",
            ],
        );
        check_lines(
            &small_with(
                "unreachable: allow }",
                "unreachable: allow }\n      - { metric: files.stored, period: lifetime, amount: 5, mode: soft }",
            ),
            &[
                unused,
                "plan pro: files.stored: the limit is soft and no price charges the overage",
            ],
        );
    }
}
