//! What one catalog changes about another, a line each.

use octroi_core::{Limit, LimitMode, Metric, Recording, UnreachablePolicy};

use super::{Catalog, DunningStep, Feature, Interval, Plan};
use crate::domain::price::{Price, Rate, Tier};

/// What `new` changes about `old`, a line each and none where nothing does. Without an old catalog
/// everything is new.
#[must_use]
pub fn diff(old: Option<&Catalog>, new: &Catalog) -> Vec<String> {
    let mut lines = Vec::new();
    let empty = Catalog {
        currencies: Vec::new(),
        metrics: Vec::new(),
        features: Vec::new(),
        plans: Vec::new(),
        default_plan: new.default_plan.clone(),
        restricted_percent: new.restricted_percent,
        dunning: Vec::new(),
    };
    let base = old.unwrap_or(&empty);
    diff_settings(base, new, &mut lines);
    each(
        &base.metrics,
        &new.metrics,
        |metric| metric.slug.as_str(),
        |change| match change {
            Change::Added(metric) => lines.push(format!("metric {} is added", metric.slug)),
            Change::Removed(metric) => lines.push(format!("metric {} is removed", metric.slug)),
            Change::Changed(old, new) => {
                lines.push(format!("metric {}: {}", new.slug, metric_change(old, new)))
            }
        },
    );
    each(
        &base.features,
        &new.features,
        |feature| feature.slug.as_str(),
        |change: Change<'_, Feature>| match change {
            Change::Added(feature) => lines.push(format!("feature {} is added", feature.slug)),
            Change::Removed(feature) => lines.push(format!("feature {} is removed", feature.slug)),
            Change::Changed(_, feature) => lines.push(format!("feature {}: the name changes", feature.slug)),
        },
    );
    each(
        &base.plans,
        &new.plans,
        |plan| plan.slug.as_str(),
        |change| match change {
            Change::Added(plan) => lines.push(format!("plan {} is added", plan.slug)),
            Change::Removed(plan) => {
                lines.push(format!(
                    "plan {} is no longer offered; who subscribed to it keeps it",
                    plan.slug
                ));
            }
            Change::Changed(old, new) => diff_plan(old, new, &mut lines),
        },
    );
    if lines.is_empty() && base != new {
        lines.push("the order in which metrics, features, plans or prices are listed changes".to_owned());
    }
    lines
}

enum Change<'a, T> {
    Added(&'a T),
    Removed(&'a T),
    Changed(&'a T, &'a T),
}

/// Tells what differs between two lists whose entries have names, in the order of the new one.
fn each<'a, T: PartialEq>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &str,
    mut tell: impl FnMut(Change<'a, T>),
) {
    for entry in new {
        match old.iter().find(|other| name(other) == name(entry)) {
            None => tell(Change::Added(entry)),
            Some(before) if before != entry => tell(Change::Changed(before, entry)),
            Some(_) => {}
        }
    }
    for entry in old {
        if !new.iter().any(|other| name(other) == name(entry)) {
            tell(Change::Removed(entry));
        }
    }
}

fn diff_settings(old: &Catalog, new: &Catalog, lines: &mut Vec<String>) {
    if old.currencies != new.currencies {
        let list: Vec<&str> = new.currencies.iter().map(|currency| currency.as_str()).collect();
        lines.push(format!("the currencies are {}", list.join(", ")));
    }
    if old.default_plan != new.default_plan {
        lines.push(format!(
            "the default plan is {} instead of {}",
            new.default_plan, old.default_plan
        ));
    }
    if old.restricted_percent != new.restricted_percent {
        let (before, after) = (old.restricted_percent, new.restricted_percent);
        lines.push(format!(
            "a restricted account keeps {after} % of its limits instead of {before} %"
        ));
    }
    if old.dunning != new.dunning {
        lines.push(format!("the dunning ladder is {}", ladder(&new.dunning)));
    }
}

fn ladder(steps: &[DunningStep]) -> String {
    let steps: Vec<String> = steps
        .iter()
        .map(|step| format!("{} after {} days", stage_name(*step), step.after_days))
        .collect();
    if steps.is_empty() {
        "empty".to_owned()
    } else {
        steps.join(", ")
    }
}

fn stage_name(step: DunningStep) -> &'static str {
    use octroi_core::Stage;
    match step.stage {
        Stage::Current => "current",
        Stage::Grace => "grace",
        Stage::Restricted => "restricted",
        Stage::ReadOnly => "read only",
        Stage::Suspended => "suspended",
    }
}

fn metric_change(old: &Metric, new: &Metric) -> String {
    let mut parts = Vec::new();
    let counting = |metric: &Metric| (metric.kind, metric.aggregation, metric.property.clone());
    if counting(old) != counting(new) {
        parts.push("is counted in another way");
    }
    if old.unit != new.unit {
        parts.push("the unit changes");
    }
    if old.recording != new.recording {
        parts.push(match new.recording {
            Recording::Durable => "is answered once it is recorded",
            Recording::Buffered => "is answered before it is recorded",
        });
    }
    if old.write != new.write {
        parts.push(if new.write {
            "becomes a write"
        } else {
            "is no longer a write"
        });
    }
    if (&old.display_name_en, &old.display_name_fr) != (&new.display_name_en, &new.display_name_fr) {
        parts.push("the name changes");
    }
    parts.join(", ")
}

fn diff_plan(old: &Plan, new: &Plan, lines: &mut Vec<String>) {
    let slug = &new.slug;
    let before = lines.len();
    let mut say = |line: String| lines.push(format!("plan {slug}: {line}"));
    if (&old.display_name_en, &old.display_name_fr) != (&new.display_name_en, &new.display_name_fr) {
        say("the name changes".to_owned());
    }
    if old.public != new.public {
        say(if new.public {
            "is offered to customers"
        } else {
            "is no longer offered to customers"
        }
        .to_owned());
    }
    if old.currency != new.currency {
        say(format!(
            "the currency is {} instead of {}",
            new.currency, old.currency
        ));
    }
    if old.interval != new.interval {
        say(format!(
            "a period is {} instead of {}",
            interval(new.interval),
            interval(old.interval)
        ));
    }
    each(
        &old.prices,
        &new.prices,
        |price| price.metric().map_or("", |metric| metric.as_str()),
        |change| match change {
            Change::Added(price) => say(format!("{} is priced: {}", priced(price), price_text(price))),
            Change::Removed(price) => say(format!("{} is no longer priced", priced(price))),
            Change::Changed(old, new) => {
                say(format!(
                    "{} costs {} instead of {}",
                    priced(new),
                    price_text(new),
                    price_text(old)
                ));
            }
        },
    );
    diff_limits(old, new, &mut say);
    for feature in new
        .features
        .iter()
        .filter(|feature| !old.features.contains(feature))
    {
        say(format!("{feature} is turned on"));
    }
    for feature in old
        .features
        .iter()
        .filter(|feature| !new.features.contains(feature))
    {
        say(format!("{feature} is turned off"));
    }
    if lines.len() == before {
        lines.push(format!("plan {slug}: the prices are listed in another order"));
    }
}

fn diff_limits(old: &Plan, new: &Plan, say: &mut impl FnMut(String)) {
    let same = |a: &Limit, b: &Limit| (&a.metric, a.period) == (&b.metric, b.period);
    for limit in &new.limits {
        match old.limits.iter().find(|other| same(limit, other)) {
            None => say(format!("{} is limited to {}", limited(limit), limit_text(limit))),
            Some(before) if before != limit => {
                say(format!(
                    "{} is limited to {} instead of {}",
                    limited(limit),
                    limit_text(limit),
                    limit_text(before)
                ));
            }
            Some(_) => {}
        }
    }
    for limit in old
        .limits
        .iter()
        .filter(|limit| !new.limits.iter().any(|other| same(limit, other)))
    {
        say(format!("{} is no longer limited", limited(limit)));
    }
}

fn interval(interval: Interval) -> &'static str {
    match interval {
        Interval::Month => "a month",
        Interval::Year => "a year",
    }
}

fn priced(price: &Price) -> &str {
    price.metric().map_or("the period", |metric| metric.as_str())
}

fn price_text(price: &Price) -> String {
    let (included, rate) = match price {
        Price::Flat { amount_minor } => return format!("{amount_minor} minor units"),
        Price::Metered {
            included_units, rate, ..
        } => (included_units, rate),
    };
    let text = match rate {
        Rate::PerUnit { unit_amount } => format!("{unit_amount} a unit"),
        Rate::Package {
            unit_amount,
            package_units,
        } => format!("{unit_amount} a package of {package_units}"),
        Rate::Graduated { tiers } => format!("graduated {}", tiers_text(tiers)),
        Rate::Volume { tiers } => format!("by volume {}", tiers_text(tiers)),
    };
    if included.get() == 0 {
        text
    } else {
        format!("{text} above {included}")
    }
}

fn tiers_text(tiers: &[Tier]) -> String {
    let texts: Vec<String> = tiers
        .iter()
        .map(|tier| {
            let end = tier
                .up_to
                .map_or_else(|| "then".to_owned(), |up_to| format!("to {up_to}"));
            let flat = if tier.flat_amount_minor == 0 {
                String::new()
            } else {
                format!(" plus {}", tier.flat_amount_minor)
            };
            format!("{end} {}{flat}", tier.unit_amount)
        })
        .collect();
    format!("({})", texts.join(", "))
}

fn limited(limit: &Limit) -> String {
    format!("{} a {}", limit.metric, limit.period.as_str())
}

fn limit_text(limit: &Limit) -> String {
    let mode = match limit.mode {
        LimitMode::Hard => "hard",
        LimitMode::Soft => "soft",
        LimitMode::Shadow => "shadow",
    };
    let ceiling = limit
        .ceiling
        .map_or_else(String::new, |ceiling| format!(" up to {ceiling}"));
    let policy = match limit.unreachable_policy {
        UnreachablePolicy::Deny => "deny",
        UnreachablePolicy::Lease => "lease",
        UnreachablePolicy::Allow => "allow",
    };
    let thresholds: Vec<String> = limit.thresholds.iter().map(ToString::to_string).collect();
    format!(
        "{} {mode}{ceiling} ({policy} when unreachable, told at {} %)",
        limit.amount,
        thresholds.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            check,
            samples::{SMALL, small_with},
        },
        *,
    };

    #[track_caller]
    fn check_lines(from: &str, to: &str, expected: &[&str]) {
        let old = check(SMALL).expect("a good catalog");
        let new = check(&small_with(from, to)).expect("a good catalog");
        assert_eq!(diff(Some(&old), &new), expected);
    }

    #[test]
    fn a_change_is_told_in_one_line_and_none_in_none() {
        check_lines("currencies: [EUR]", "currencies:\n  - EUR # the same", &[]);
        check_lines(
            "restricted_percent: 25",
            "restricted_percent: 50",
            &["a restricted account keeps 50 % of its limits instead of 25 %"],
        );
        check_lines(
            "unit: file, write: true",
            "unit: document",
            &["metric files.stored: the unit changes, is no longer a write"],
        );
        check_lines("fr: Gratuit", "fr: Libre", &["plan free: the name changes"]);
        check_lines(
            "    features: [export]\n",
            "",
            &["plan pro: export is turned off"],
        );
        check_lines(
            "amount_minor: 1900",
            "amount_minor: 2900",
            &["plan pro: the period costs 2900 minor units instead of 1900 minor units"],
        );
        check_lines("\"0.05\"", "\"0.050\"", &[]);
        check_lines(
            "\"0.05\"",
            "\"0.04\"",
            &["plan pro: api.requests costs 0.04 a unit above 10000 instead of 0.05 a unit above 10000"],
        );
        check_lines(
            "period: day, amount: 100, mode: hard",
            "period: day, amount: 200, mode: hard",
            &[
                "plan free: api.requests a day is limited to 200 hard (deny when unreachable, told at 80, 95, 100 %) instead of 100 hard (deny when unreachable, told at 80, 95, 100 %)",
            ],
        );
        check_lines(
            "after_days: 14",
            "after_days: 30",
            &["the dunning ladder is grace after 0 days, suspended after 30 days"],
        );
    }

    #[test]
    fn without_an_old_catalog_everything_is_new() {
        let new = check(SMALL).expect("a good catalog");
        let lines = diff(None, &new);
        for expected in [
            "the currencies are EUR",
            "metric api.requests is added",
            "feature export is added",
            "plan pro is added",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected} is not in {lines:#?}"
            );
        }
    }

    #[test]
    fn no_difference_goes_unsaid() {
        let old = check(SMALL).expect("a good catalog");
        let mut swapped = old.clone();
        swapped.plans.swap(0, 1);
        let mut prices = old.clone();
        prices.plans[1].prices.swap(0, 1);
        for new in [swapped, prices] {
            assert_eq!(diff(Some(&old), &new).len(), 1);
        }
        assert_eq!(diff(Some(&old), &old.clone()), Vec::<String>::new());
    }
}
