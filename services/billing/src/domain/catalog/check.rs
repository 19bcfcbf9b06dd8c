//! The rules of a catalog, but for those of a plan.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use octroi_core::{
    Aggregation, FeatureSlug, Metric, MetricKind, MetricSlug, PlanSlug, PropertyKey, Recording, Stage,
    Violations, money::Currency,
};
use serde_yaml_ng::Value;

use super::{Catalog, DunningStep, Feature, Plan, plan, read::Table};
use crate::domain::currency;

/// The most bytes of a document: what one call may carry.
pub const DOCUMENT_BYTES_MAX: usize = 240 * 1024;

const CURRENCIES_MAX: usize = 20;
const METRICS_MAX: usize = 200;
pub(super) const FEATURES_MAX: usize = 200;
const PLANS_MAX: usize = 100;
const DUNNING_STEPS_MAX: usize = 4;

/// What plans may refer to. A metric whose entry is broken is known by its name, so that no plan is blamed
/// for it.
#[derive(Default)]
pub(super) struct Known {
    pub(super) currencies: Vec<Currency>,
    pub(super) metrics: BTreeMap<MetricSlug, Option<(MetricKind, Aggregation)>>,
    pub(super) features: BTreeSet<FeatureSlug>,
}

/// Reads a document and checks every rule.
///
/// # Errors
/// Everything that is wrong with it, each with its path.
pub fn check(document: &str) -> Result<Catalog, Violations> {
    let mut violations = Violations::default();
    let catalog = root(document, &mut violations).and_then(|root| read_catalog(root, &mut violations));
    violations.finish()?;
    // A part that could not be read left a violation.
    catalog.ok_or_else(|| {
        Violations(vec![octroi_core::FieldViolation::new(
            "document",
            "cannot be read",
        )])
    })
}

fn root(document: &str, violations: &mut Violations) -> Option<Table> {
    if document.len() > DOCUMENT_BYTES_MAX {
        violations.add(
            "document",
            format!("must have at most {DOCUMENT_BYTES_MAX} bytes"),
        );
        return None;
    }
    let value: Value = violations.take("document", serde_yaml_ng::from_str(document))?;
    if !value.is_mapping() {
        violations.add("document", "must be a table of keys and values");
        return None;
    }
    Table::open("", value, violations)
}

fn read_catalog(mut root: Table, violations: &mut Violations) -> Option<Catalog> {
    let mut known = Known::default();
    let currencies = read_currencies(&mut root, &mut known, violations);
    let metrics = read_metrics(&mut root, &mut known, violations);
    let features = read_features(&mut root, &mut known, violations);
    let mut plans = Vec::new();
    let mut plan_slugs = BTreeSet::new();
    for (path, value) in root.list("plans", PLANS_MAX, violations) {
        plans.extend(plan::read_plan(&path, value, &known, &mut plan_slugs, violations));
    }
    let restricted_percent: Option<u32> = root.required("restricted_percent", violations);
    if restricted_percent.is_some_and(|percent| percent > 100) {
        root.refuse("restricted_percent", "must be 0 to 100", violations);
    }
    let default_plan = root.parsed("default_plan", PlanSlug::parse, violations);
    if let Some(default_plan) = &default_plan {
        check_default_plan(&root, default_plan, &plans, &plan_slugs, violations);
    }
    let dunning = read_dunning(&mut root, violations);
    root.finish(violations);
    Some(Catalog {
        currencies,
        metrics,
        features,
        plans,
        default_plan: default_plan?,
        restricted_percent: restricted_percent?,
        dunning,
    })
}

fn read_currencies(root: &mut Table, known: &mut Known, violations: &mut Violations) -> Vec<Currency> {
    for (path, value) in root.list("currencies", CURRENCIES_MAX, violations) {
        let code = value.as_str().unwrap_or_default();
        let Some(currency) = Currency::parse(code)
            .ok()
            .filter(|code| currency::decimals(*code).is_some())
        else {
            violations.add(path, "must be a code of ISO 4217, such as EUR");
            continue;
        };
        if known.currencies.contains(&currency) {
            violations.add(path, "is listed before");
        } else {
            known.currencies.push(currency);
        }
    }
    if known.currencies.is_empty() {
        root.refuse("currencies", "must list at least one currency", violations);
    }
    known.currencies.clone()
}

fn read_metrics(root: &mut Table, known: &mut Known, violations: &mut Violations) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (path, value) in root.list("metrics", METRICS_MAX, violations) {
        let Some(mut table) = Table::open(&path, value, violations) else {
            continue;
        };
        let slug = table.parsed("slug", MetricSlug::parse, violations);
        let metric = read_metric(&mut table, slug.as_ref(), violations);
        table.finish(violations);
        let Some(slug) = slug else { continue };
        let traits = metric.as_ref().map(|metric| (metric.kind, metric.aggregation));
        match known.metrics.entry(slug) {
            Entry::Vacant(place) => {
                place.insert(traits);
            }
            Entry::Occupied(_) => violations.add(format!("{path}.slug"), "is the slug of a metric before"),
        }
        metrics.extend(metric);
    }
    if known.metrics.is_empty() {
        root.refuse("metrics", "must list at least one metric", violations);
    }
    metrics
}

fn read_metric(table: &mut Table, slug: Option<&MetricSlug>, violations: &mut Violations) -> Option<Metric> {
    let kind = table.required("kind", violations);
    let aggregation = table.required("aggregation", violations);
    let unit = table.text("unit", 32, violations);
    let write = table.optional("write", violations);
    let recording: Option<Recording> = table.optional("recording", violations).flatten();
    if kind == Some(MetricKind::Level) && recording == Some(Recording::Buffered) {
        table.refuse(
            "recording",
            "must be durable for a level, which is given back",
            violations,
        );
    }
    let property = read_property(table, aggregation, violations);
    let names = table.names(violations);
    let (display_name_en, display_name_fr) = names?;
    Some(Metric {
        slug: slug?.clone(),
        kind: kind?,
        aggregation: aggregation?,
        display_name_en,
        display_name_fr,
        unit: unit?,
        write: write?.unwrap_or(false),
        recording: recording.unwrap_or_default(),
        property,
    })
}

/// The property whose values are counted, which there is for `unique` and for nothing else.
fn read_property(
    table: &mut Table,
    aggregation: Option<Aggregation>,
    violations: &mut Violations,
) -> Option<PropertyKey> {
    let is_counted = aggregation == Some(Aggregation::Unique);
    let property = table.optional("property", violations)?;
    if property.is_none() && is_counted {
        let rule = "is required where the distinct values of a property are counted";
        table.refuse("property", rule, violations);
    }
    if property.is_some() && !is_counted && aggregation.is_some() {
        table.refuse("property", "is only for the aggregation unique", violations);
    }
    property
}

fn read_features(root: &mut Table, known: &mut Known, violations: &mut Violations) -> Vec<Feature> {
    let mut features = Vec::new();
    for (path, value) in root.list("features", FEATURES_MAX, violations) {
        let Some(mut table) = Table::open(&path, value, violations) else {
            continue;
        };
        let slug = table.parsed("slug", FeatureSlug::parse, violations);
        let names = table.names(violations);
        table.finish(violations);
        let Some(slug) = slug else { continue };
        if !known.features.insert(slug.clone()) {
            violations.add(format!("{path}.slug"), "is the slug of a feature before");
        }
        let Some((display_name_en, display_name_fr)) = names else {
            continue;
        };
        features.push(Feature {
            slug,
            display_name_en,
            display_name_fr,
        });
    }
    features
}

fn check_default_plan(
    root: &Table,
    default_plan: &PlanSlug,
    plans: &[Plan],
    plan_slugs: &BTreeSet<PlanSlug>,
    violations: &mut Violations,
) {
    if !plan_slugs.contains(default_plan) {
        root.refuse(
            "default_plan",
            "must be the slug of a plan of this catalog",
            violations,
        );
    }
    if plans
        .iter()
        .any(|plan| plan.slug == *default_plan && !plan.is_free())
    {
        root.refuse(
            "default_plan",
            "must be a plan that charges nothing: nobody agreed to pay",
            violations,
        );
    }
}

fn read_dunning(root: &mut Table, violations: &mut Violations) -> Vec<DunningStep> {
    let mut steps: Vec<DunningStep> = Vec::new();
    for (path, value) in root.list("dunning", DUNNING_STEPS_MAX, violations) {
        let Some(mut table) = Table::open(&path, value, violations) else {
            continue;
        };
        let after_days: Option<u32> = table.required("after_days", violations);
        let stage: Option<Stage> = table.required("stage", violations);
        if after_days.is_some_and(|days| days > 365) {
            table.refuse("after_days", "must be 0 to 365", violations);
        }
        let stage = stage.filter(|stage| *stage != Stage::Current).or_else(|| {
            if stage.is_some() {
                table.refuse("stage", "must be one that an unpaid invoice leads to", violations);
            }
            None
        });
        if let (Some(after_days), Some(stage)) = (after_days, stage) {
            let step = DunningStep { after_days, stage };
            if steps.last().is_some_and(|last| last.after_days >= after_days) {
                table.refuse("after_days", "must be more than at the step before", violations);
            }
            if steps
                .last()
                .is_some_and(|last| severity(last.stage) >= severity(stage))
            {
                table.refuse("stage", "must be further than at the step before", violations);
            }
            steps.push(step);
        }
        table.finish(violations);
    }
    steps
}

fn severity(stage: Stage) -> u8 {
    match stage {
        Stage::Current => 0,
        Stage::Grace => 1,
        Stage::Restricted => 2,
        Stage::ReadOnly => 3,
        Stage::Suspended => 4,
    }
}

/// The rules about what a catalog in force may become: what was counted stays counted, and the same way,
/// because the ledger is full of it.
///
/// # Errors
/// Every metric of `stored` that `next` lacks or counts in another way.
pub fn check_succession(stored: &Catalog, next: &Catalog) -> Result<(), Violations> {
    let mut violations = Violations::default();
    for old in &stored.metrics {
        let Some((index, new)) = next
            .metrics
            .iter()
            .enumerate()
            .find(|(_, metric)| metric.slug == old.slug)
        else {
            violations.add(
                "metrics",
                format!("must keep {}: a metric that was applied is not removed", old.slug),
            );
            continue;
        };
        if new.kind != old.kind {
            let rule = format!(
                "must stay {}: the kind of a metric that was applied does not change",
                kind_name(old.kind)
            );
            violations.add(format!("metrics[{index}].kind"), rule);
        }
        if new.aggregation != old.aggregation {
            let rule = "must stay as it is: the aggregation of a metric that was applied does not change";
            violations.add(format!("metrics[{index}].aggregation"), rule);
        }
        if old.property.is_some() && new.property != old.property {
            let rule = "must stay as it is: what a metric that was applied counts does not change";
            violations.add(format!("metrics[{index}].property"), rule);
        }
    }
    violations.finish()
}

fn kind_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Flow => "flow",
        MetricKind::Level => "level",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{DEPLOYED, SMALL, small_with},
        *,
    };

    /// The paths of what is wrong with `SMALL` after one text is replaced.
    #[track_caller]
    fn check_refused(from: &str, to: &str, paths: &[&str]) {
        let violations = check(&small_with(from, to)).expect_err("a broken rule");
        let found: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(found, paths, "{violations}");
    }

    #[test]
    fn the_samples_keep_every_rule() {
        check(SMALL).expect("a good catalog");
        check(DEPLOYED).expect("a good catalog");
    }

    #[test]
    fn a_broken_rule_is_told_with_its_path() {
        check_refused(
            "currencies: [EUR]",
            "currencies: [EUR, eur, EUR]",
            &["currencies[1]", "currencies[2]"],
        );
        check_refused(
            "restricted_percent: 25",
            "restricted_percent: 101",
            &["restricted_percent"],
        );
        check_refused(
            "restricted_percent: 25",
            "restricted: 25",
            &["restricted_percent", "restricted"],
        );
        check_refused("default_plan: free", "default_plan: gold", &["default_plan"]);
        check_refused("default_plan: free", "default_plan: pro", &["default_plan"]);
        check_refused(
            "{ slug: users.active,",
            "{ slug: api.requests,",
            &["metrics[1].slug"],
        );
        check_refused(
            "aggregation: unique,",
            "aggregation: median,",
            &["metrics[1].aggregation"],
        );
        check_refused("property: user, ", "", &["metrics[1].property"]);
        check_refused("property: user, ", "property: 'a b', ", &["metrics[1].property"]);
        check_refused(
            "unit: file,",
            "unit: file, property: path,",
            &["metrics[2].property"],
        );
        check_refused("unit: file,", "unit: '',", &["metrics[2].unit"]);
        check_refused(
            "unit: file, write: true, name",
            "unit: file, wrote: true, name",
            &["metrics[2].wrote"],
        );
        check_refused(
            "{ en: Files, fr: Fichiers }",
            "{ en: Files }",
            &["metrics[2].name.fr"],
        );
        check_refused(
            "  - { slug: export, name",
            "  - { slug: Export, name",
            &["features[0].slug", "plans[1].features[0]"],
        );
        check_refused("after_days: 14", "after_days: 0", &["dunning[1].after_days"]);
        check_refused("stage: suspended", "stage: current", &["dunning[1].stage"]);
        check_refused("stage: suspended", "stage: gone", &["dunning[1].stage"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let document = SMALL
            .replace("restricted_percent: 25", "restricted_percent: 200")
            .replace("amount: 100,", "amount: -1,")
            .replace("\"0.05\"", "0.05")
            .replace("stage: grace", "stage: grave");
        let violations = check(&document).expect_err("four broken rules");
        let found: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        let expected = [
            "plans[0].limits[0].amount",
            "plans[1].prices[1].unit_amount",
            "restricted_percent",
            "dunning[0].stage",
        ];
        assert_eq!(found, expected, "{violations}");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let too_large = "#".repeat(DOCUMENT_BYTES_MAX + 1);
        let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\n".to_owned() + &"c: [*b,*b,*b,*b]\n".repeat(2);
        for document in [
            "",
            "[]",
            "just text",
            "a: b: c",
            "\u{0}",
            &too_large,
            &bomb,
            "plans: {}",
        ] {
            assert!(check(document).is_err(), "{document:.40}");
        }
    }

    #[test]
    fn a_metric_that_was_applied_stays_and_is_counted_the_same_way() {
        let stored = check(SMALL).expect("a good catalog");
        let mut next = stored.clone();
        assert_eq!(check_succession(&stored, &next), Ok(()));
        next.metrics[0].unit = "call".into();
        assert_eq!(check_succession(&stored, &next), Ok(()));
        next.metrics[0].kind = MetricKind::Level;
        next.metrics[1].aggregation = Aggregation::Sum;
        next.metrics.pop();
        let violations = check_succession(&stored, &next).expect_err("three broken rules");
        let found: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(found, ["metrics[0].kind", "metrics[1].aggregation", "metrics"]);
    }
}
