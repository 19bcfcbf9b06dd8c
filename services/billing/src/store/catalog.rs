//! The catalog: its versions, and what was pushed of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{PlanSlug, PropertyKey, money::Currency};
use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::PgConnection;

use super::{
    catalog_rows::{self, PlanKey},
    checked, from_name, to_name,
};
use crate::domain::{
    catalog::{AppliedCatalog, Catalog, DunningStep, Feature, NextPlan, Plan},
    price::{Price, Rate, Tier},
};

/// Lets one apply after another; readers do not wait.
pub(crate) async fn lock_catalog(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query("LOCK TABLE catalog_version IN SHARE ROW EXCLUSIVE MODE")
        .execute(connection)
        .await?;
    Ok(())
}

/// The newest catalog; none before the first apply.
pub(crate) async fn find_catalog(
    connection: &mut PgConnection,
) -> Result<Option<AppliedCatalog>, DatabaseError> {
    let row: Option<(i64, Vec<String>, String, i32)> = sqlx::query_as(
        "SELECT version, currencies, default_plan, restricted_percent
         FROM catalog_version ORDER BY version DESC LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some((version, currencies, default_plan, restricted_percent)) = row else {
        return Ok(None);
    };
    let currencies = currencies
        .iter()
        .map(|code| checked(Currency::parse(code), "currency"))
        .collect::<Result<_, _>>()?;
    let offered: Vec<PlanKey> =
        sqlx::query_as("SELECT slug, version_newest FROM plan WHERE position IS NOT NULL ORDER BY position")
            .fetch_all(&mut *connection)
            .await?;
    let plans = catalog_rows::get_plans(connection, offered).await?;
    let plan_versions = plans
        .iter()
        .map(|(version, plan)| (plan.slug.clone(), *version))
        .collect();
    let catalog = Catalog {
        currencies,
        metrics: catalog_rows::list_metrics(connection).await?,
        features: catalog_rows::list_features(connection).await?,
        plans: plans.into_iter().map(|(_, plan)| plan).collect(),
        default_plan: checked(PlanSlug::parse(&default_plan), "plan")?,
        restricted_percent: checked(u32::try_from(restricted_percent), "catalog")?,
        dunning: list_dunning_steps(connection, version).await?,
    };
    let version = checked(u64::try_from(version), "catalog")?;
    Ok(Some(AppliedCatalog {
        version,
        catalog,
        plan_versions,
    }))
}

async fn list_dunning_steps(
    connection: &mut PgConnection,
    version: i64,
) -> Result<Vec<DunningStep>, DatabaseError> {
    let rows: Vec<(i32, String)> = sqlx::query_as(
        "SELECT after_days, stage FROM dunning_step WHERE catalog_version = $1 ORDER BY after_days",
    )
    .bind(version)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(after_days, stage)| {
            let after_days = checked(u32::try_from(after_days), "dunning step")?;
            Ok(DunningStep {
                after_days,
                stage: from_name(stage, "stage")?,
            })
        })
        .collect()
}

/// The newest version of every plan that ever was, offered or not.
pub(crate) async fn list_newest_plans(
    connection: &mut PgConnection,
) -> Result<BTreeMap<PlanSlug, (u32, Plan)>, DatabaseError> {
    let keys: Vec<PlanKey> = sqlx::query_as("SELECT slug, version_newest FROM plan")
        .fetch_all(&mut *connection)
        .await?;
    let plans = catalog_rows::get_plans(connection, keys).await?;
    Ok(plans
        .into_iter()
        .map(|(version, plan)| (plan.slug.clone(), (version, plan)))
        .collect())
}

/// One version of a plan, as it was sold.
pub(crate) async fn get_plan(
    connection: &mut PgConnection,
    plan: &PlanSlug,
    version: u32,
) -> Result<Plan, DatabaseError> {
    let version = checked(i32::try_from(version), "plan version")?;
    let mut plans = catalog_rows::get_plans(connection, vec![(plan.to_string(), version)]).await?;
    plans
        .pop()
        .map(|(_, plan)| plan)
        .ok_or(DatabaseError::Corrupt { what: "plan version" })
}

/// Writes a catalog that changes something.
pub(crate) async fn insert_catalog(
    connection: &mut PgConnection,
    version: u64,
    document: &str,
    catalog: &Catalog,
    plans: &[NextPlan<'_>],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let version = checked(i64::try_from(version), "catalog")?;
    insert_version(connection, version, document, catalog, now).await?;
    for (position, metric) in (0_i32..).zip(&catalog.metrics) {
        sqlx::query(
            "INSERT INTO metric (slug, kind, aggregation, display_name_en, display_name_fr, unit, write, recording,
                                 property, position)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (slug) DO UPDATE
             SET display_name_en = excluded.display_name_en, display_name_fr = excluded.display_name_fr,
                 unit = excluded.unit, write = excluded.write, recording = excluded.recording,
                 property = excluded.property, position = excluded.position",
        )
        .bind(metric.slug.as_str())
        .bind(to_name(&metric.kind)?)
        .bind(to_name(&metric.aggregation)?)
        .bind(&metric.display_name_en)
        .bind(&metric.display_name_fr)
        .bind(&metric.unit)
        .bind(metric.write)
        .bind(metric.recording.as_str())
        .bind(metric.property.as_ref().map(PropertyKey::as_str))
        .bind(position)
        .execute(&mut *connection)
        .await?;
    }
    upsert_features(connection, &catalog.features).await?;
    sqlx::query("UPDATE plan SET position = NULL")
        .execute(&mut *connection)
        .await?;
    for (position, next) in (0_i32..).zip(plans) {
        upsert_plan(connection, version, position, next).await?;
    }
    Ok(())
}

async fn insert_version(
    connection: &mut PgConnection,
    version: i64,
    document: &str,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let currencies: Vec<&str> = catalog
        .currencies
        .iter()
        .map(|currency| currency.as_str())
        .collect();
    sqlx::query(
        "INSERT INTO catalog_version (version, document, currencies, default_plan, restricted_percent, applied_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(version)
    .bind(document)
    .bind(currencies)
    .bind(catalog.default_plan.as_str())
    .bind(checked(i32::try_from(catalog.restricted_percent), "catalog")?)
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    for step in &catalog.dunning {
        sqlx::query("INSERT INTO dunning_step (catalog_version, after_days, stage) VALUES ($1, $2, $3)")
            .bind(version)
            .bind(checked(i32::try_from(step.after_days), "dunning step")?)
            .bind(to_name(&step.stage)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn upsert_features(connection: &mut PgConnection, features: &[Feature]) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE feature SET position = NULL")
        .execute(&mut *connection)
        .await?;
    for (position, feature) in (0_i32..).zip(features) {
        sqlx::query(
            "INSERT INTO feature (slug, display_name_en, display_name_fr, position) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slug) DO UPDATE
             SET display_name_en = excluded.display_name_en, display_name_fr = excluded.display_name_fr,
                 position = excluded.position",
        )
        .bind(feature.slug.as_str())
        .bind(&feature.display_name_en)
        .bind(&feature.display_name_fr)
        .bind(position)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn upsert_plan(
    connection: &mut PgConnection,
    catalog_version: i64,
    position: i32,
    next: &NextPlan<'_>,
) -> Result<(), DatabaseError> {
    let version = checked(i32::try_from(next.version), "plan version")?;
    sqlx::query(
        "INSERT INTO plan (slug, version_newest, position) VALUES ($1, $2, $3)
         ON CONFLICT (slug) DO UPDATE SET version_newest = excluded.version_newest, position = excluded.position",
    )
    .bind(next.plan.slug.as_str())
    .bind(version)
    .bind(position)
    .execute(&mut *connection)
    .await?;
    if next.changed {
        insert_plan_version(connection, catalog_version, version, next.plan).await?;
    }
    Ok(())
}

async fn insert_plan_version(
    connection: &mut PgConnection,
    catalog_version: i64,
    version: i32,
    plan: &Plan,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO plan_version (plan, version, catalog_version, display_name_en, display_name_fr, currency,
                                   billing_interval, public)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(plan.slug.as_str())
    .bind(version)
    .bind(catalog_version)
    .bind(&plan.display_name_en)
    .bind(&plan.display_name_fr)
    .bind(plan.currency.as_str())
    .bind(plan.interval.as_str())
    .bind(plan.public)
    .execute(&mut *connection)
    .await?;
    for (position, price) in (0_i32..).zip(&plan.prices) {
        insert_price(connection, &plan.slug, version, position, price).await?;
    }
    for limit in &plan.limits {
        insert_limit(connection, &plan.slug, version, limit).await?;
    }
    let features: Vec<&str> = plan.features.iter().map(|feature| feature.as_str()).collect();
    sqlx::query("INSERT INTO plan_feature (plan, plan_version, feature) SELECT $1, $2, unnest($3::text[])")
        .bind(plan.slug.as_str())
        .bind(version)
        .bind(features)
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_limit(
    connection: &mut PgConnection,
    plan: &PlanSlug,
    version: i32,
    limit: &octroi_core::Limit,
) -> Result<(), DatabaseError> {
    let thresholds: Vec<i32> = limit
        .thresholds
        .iter()
        .filter_map(|percent| i32::try_from(*percent).ok())
        .collect();
    sqlx::query(
        "INSERT INTO limit_template (plan, plan_version, metric, period, amount, mode, ceiling, unreachable_policy,
                                     thresholds)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(plan.as_str())
    .bind(version)
    .bind(limit.metric.as_str())
    .bind(limit.period.as_str())
    .bind(limit.amount.as_i64())
    .bind(to_name(&limit.mode)?)
    .bind(limit.ceiling.map(octroi_core::Units::as_i64))
    .bind(to_name(&limit.unreachable_policy)?)
    .bind(thresholds)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_price(
    connection: &mut PgConnection,
    plan: &PlanSlug,
    version: i32,
    position: i32,
    price: &Price,
) -> Result<(), DatabaseError> {
    let (model, unit_amount, package_units, tiers): (_, _, _, &[Tier]) = match price {
        Price::Flat { .. } => ("flat", None, None, &[]),
        Price::Metered { rate, .. } => match rate {
            Rate::PerUnit { unit_amount } => ("per_unit", Some(unit_amount.decimal()), None, &[]),
            Rate::Graduated { tiers } => ("graduated", None, None, tiers),
            Rate::Volume { tiers } => ("volume", None, None, tiers),
            Rate::Package {
                unit_amount,
                package_units,
            } => {
                let package_units = checked(i64::try_from(package_units.get()), "price")?;
                ("package", Some(unit_amount.decimal()), Some(package_units), &[])
            }
        },
    };
    let (flat_amount_minor, included_units) = match price {
        Price::Flat { amount_minor } => (Some(*amount_minor), 0),
        Price::Metered { included_units, .. } => (None, included_units.as_i64()),
    };
    sqlx::query(
        "INSERT INTO price (plan, plan_version, position, model, metric, flat_amount_minor, unit_amount,
                            included_units, package_units)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(plan.as_str())
    .bind(version)
    .bind(position)
    .bind(model)
    .bind(price.metric().map(|metric| metric.as_str()))
    .bind(flat_amount_minor)
    .bind(unit_amount)
    .bind(included_units)
    .bind(package_units)
    .execute(&mut *connection)
    .await?;
    for (tier_position, tier) in (0_i32..).zip(tiers) {
        sqlx::query(
            "INSERT INTO price_tier (plan, plan_version, price_position, position, up_to, unit_amount,
                                     flat_amount_minor)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(plan.as_str())
        .bind(version)
        .bind(position)
        .bind(tier_position)
        .bind(tier.up_to.map(octroi_core::Units::as_i64))
        .bind(tier.unit_amount.decimal())
        .bind(tier.flat_amount_minor)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// How far the catalog is: what was applied, and what the services took of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The newest version; 0 before the first apply.
    pub(crate) newest: u64,
    /// The newest version that usage took; 0 where it took none.
    pub(crate) usage_has: u64,
    /// The newest version that quota took; 0 where it took none.
    pub(crate) quota_has: u64,
}

/// How far the catalog is, in one statement and without reading it.
pub(crate) async fn get_versions(connection: &mut PgConnection) -> Result<Versions, DatabaseError> {
    let (newest, usage_has, quota_has): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT coalesce(max(version), 0) FROM catalog_version), usage.version_accepted, quota.version_accepted
         FROM catalog_push AS usage, catalog_push AS quota
         WHERE usage.service = 'usage' AND quota.service = 'quota'",
    )
    .fetch_one(connection)
    .await?;
    let version = |version: i64| checked(u64::try_from(version), "catalog push");
    Ok(Versions {
        newest: version(newest)?,
        usage_has: version(usage_has)?,
        quota_has: version(quota_has)?,
    })
}

/// Notes that `service` took a version.
pub(crate) async fn update_version_accepted(
    connection: &mut PgConnection,
    service: &str,
    version: u64,
) -> Result<(), DatabaseError> {
    let done = sqlx::query(
        "UPDATE catalog_push SET version_accepted = greatest(version_accepted, $2) WHERE service = $1",
    )
    .bind(service)
    .bind(checked(i64::try_from(version), "catalog push")?)
    .execute(connection)
    .await?;
    expect_rows(1, done.rows_affected())
}
