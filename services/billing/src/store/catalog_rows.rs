//! How the rows of a catalog become what they mean.

use std::{collections::HashMap, num::NonZeroU64};

use octroi_core::{
    FeatureSlug, Limit, Metric, MetricSlug, Period, PlanSlug, PropertyKey, Units, money::Currency,
};
use octroi_kit::db::DatabaseError;
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection};

use super::{checked, from_name};
use crate::domain::{
    catalog::{Feature, Interval, Plan},
    price::{Price, Rate, Tier, UnitAmount},
};

/// A plan and one of its versions.
pub(super) type PlanKey = (String, i32);

const CORRUPT_PRICE: DatabaseError = DatabaseError::Corrupt { what: "price" };

pub(super) async fn list_metrics(connection: &mut PgConnection) -> Result<Vec<Metric>, DatabaseError> {
    let rows: Vec<MetricRow> = sqlx::query_as(
        "SELECT slug, kind, aggregation, display_name_en, display_name_fr, unit, write, recording, property FROM metric ORDER BY position",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(FromRow)]
struct MetricRow {
    slug: String,
    kind: String,
    aggregation: String,
    display_name_en: String,
    display_name_fr: String,
    unit: String,
    write: bool,
    recording: String,
    property: Option<String>,
}

impl TryFrom<MetricRow> for Metric {
    type Error = DatabaseError;

    fn try_from(row: MetricRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            slug: checked(MetricSlug::parse(&row.slug), "metric")?,
            kind: from_name(row.kind, "metric")?,
            aggregation: from_name(row.aggregation, "metric")?,
            display_name_en: row.display_name_en,
            display_name_fr: row.display_name_fr,
            unit: row.unit,
            write: row.write,
            recording: from_name(row.recording, "metric")?,
            property: checked(
                row.property.as_deref().map(PropertyKey::parse).transpose(),
                "metric",
            )?,
        })
    }
}

pub(super) async fn list_features(connection: &mut PgConnection) -> Result<Vec<Feature>, DatabaseError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT slug, display_name_en, display_name_fr FROM feature WHERE position IS NOT NULL ORDER BY position",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(slug, display_name_en, display_name_fr)| {
            Ok(Feature {
                slug: checked(FeatureSlug::parse(&slug), "feature")?,
                display_name_en,
                display_name_fr,
            })
        })
        .collect()
}

/// The named versions of plans, in the order of `keys`.
pub(super) async fn get_plans(
    connection: &mut PgConnection,
    keys: Vec<PlanKey>,
) -> Result<Vec<(u32, Plan)>, DatabaseError> {
    let named = Named::new(&keys);
    let mut plans: HashMap<PlanKey, PlanRow> = HashMap::new();
    let rows: Vec<PlanRow> = named
        .fetch(
            connection,
            "SELECT plan, version AS plan_version, display_name_en, display_name_fr, currency, billing_interval, public
             FROM plan_version JOIN unnest($1::text[], $2::int[]) AS named (plan, version) USING (plan, version)",
        )
        .await?;
    for row in rows {
        plans.insert((row.plan.clone(), row.plan_version), row);
    }
    let mut prices = list_prices(connection, &named).await?;
    let mut limits = list_limits(connection, &named).await?;
    let mut features = list_plan_features(connection, &named).await?;
    keys.into_iter()
        .map(|key| {
            let row = plans
                .remove(&key)
                .ok_or(DatabaseError::Corrupt { what: "plan version" })?;
            let plan = Plan {
                slug: checked(PlanSlug::parse(&row.plan), "plan")?,
                display_name_en: row.display_name_en,
                display_name_fr: row.display_name_fr,
                currency: checked(Currency::parse(&row.currency), "currency")?,
                interval: Interval::from_name(&row.billing_interval)
                    .ok_or(DatabaseError::Corrupt { what: "interval" })?,
                public: row.public,
                prices: prices.remove(&key).unwrap_or_default(),
                limits: sorted(limits.remove(&key).unwrap_or_default()),
                features: features.remove(&key).unwrap_or_default(),
            };
            Ok((checked(u32::try_from(key.1), "plan version")?, plan))
        })
        .collect()
}

/// As the document's reader orders them.
fn sorted(mut limits: Vec<Limit>) -> Vec<Limit> {
    limits.sort_by(|a, b| (&a.metric, a.period).cmp(&(&b.metric, b.period)));
    limits
}

/// Plan versions, as the statements take them.
struct Named {
    plans: Vec<String>,
    versions: Vec<i32>,
}

impl Named {
    fn new(keys: &[PlanKey]) -> Self {
        let (plans, versions) = keys.iter().cloned().unzip();
        Self { plans, versions }
    }

    async fn fetch<R>(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
    ) -> Result<Vec<R>, DatabaseError>
    where
        R: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let query = sqlx::query_as(statement).bind(&self.plans).bind(&self.versions);
        Ok(query.fetch_all(connection).await?)
    }
}

#[derive(FromRow)]
struct PlanRow {
    plan: String,
    plan_version: i32,
    display_name_en: String,
    display_name_fr: String,
    currency: String,
    billing_interval: String,
    public: bool,
}

#[derive(FromRow)]
struct PriceRow {
    plan: String,
    plan_version: i32,
    position: i32,
    model: String,
    metric: Option<String>,
    flat_amount_minor: Option<i64>,
    unit_amount: Option<Decimal>,
    included_units: i64,
    package_units: Option<i64>,
}

#[derive(FromRow)]
struct TierRow {
    plan: String,
    plan_version: i32,
    price_position: i32,
    up_to: Option<i64>,
    unit_amount: Decimal,
    flat_amount_minor: i64,
}

impl TryFrom<TierRow> for Tier {
    type Error = DatabaseError;

    fn try_from(row: TierRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            up_to: checked(row.up_to.map(Units::try_from).transpose(), "price")?,
            unit_amount: checked(UnitAmount::try_from(row.unit_amount), "price")?,
            flat_amount_minor: row.flat_amount_minor,
        })
    }
}

async fn list_prices(
    connection: &mut PgConnection,
    named: &Named,
) -> Result<HashMap<PlanKey, Vec<Price>>, DatabaseError> {
    let tier_rows: Vec<TierRow> = named
        .fetch(
            connection,
            "SELECT plan, plan_version, price_position, up_to, unit_amount, flat_amount_minor
             FROM price_tier JOIN unnest($1::text[], $2::int[]) AS named (plan, plan_version) USING (plan, plan_version)
             ORDER BY plan, plan_version, price_position, position",
        )
        .await?;
    let mut tiers: HashMap<(PlanKey, i32), Vec<Tier>> = HashMap::new();
    for row in tier_rows {
        let key = ((row.plan.clone(), row.plan_version), row.price_position);
        tiers.entry(key).or_default().push(row.try_into()?);
    }
    let rows: Vec<PriceRow> = named
        .fetch(
            connection,
            "SELECT plan, plan_version, position, model, metric, flat_amount_minor, unit_amount, included_units,
                    package_units
             FROM price JOIN unnest($1::text[], $2::int[]) AS named (plan, plan_version) USING (plan, plan_version)
             ORDER BY plan, plan_version, position",
        )
        .await?;
    let mut prices: HashMap<PlanKey, Vec<Price>> = HashMap::new();
    for row in rows {
        let key = (row.plan.clone(), row.plan_version);
        let price_tiers = tiers.remove(&(key.clone(), row.position)).unwrap_or_default();
        prices.entry(key).or_default().push(price(&row, price_tiers)?);
    }
    Ok(prices)
}

fn price(row: &PriceRow, tiers: Vec<Tier>) -> Result<Price, DatabaseError> {
    let unit_amount = || {
        let amount = row.unit_amount.ok_or(CORRUPT_PRICE)?;
        checked(UnitAmount::try_from(amount), "price")
    };
    let rate = match row.model.as_str() {
        "flat" => {
            return Ok(Price::Flat {
                amount_minor: row.flat_amount_minor.ok_or(CORRUPT_PRICE)?,
            });
        }
        "per_unit" => Rate::PerUnit {
            unit_amount: unit_amount()?,
        },
        "graduated" => Rate::Graduated { tiers },
        "volume" => Rate::Volume { tiers },
        "package" => {
            let units = row
                .package_units
                .and_then(|units| u64::try_from(units).ok())
                .and_then(NonZeroU64::new);
            Rate::Package {
                unit_amount: unit_amount()?,
                package_units: units.ok_or(CORRUPT_PRICE)?,
            }
        }
        _ => return Err(CORRUPT_PRICE),
    };
    let metric = row.metric.as_deref().map(MetricSlug::parse).transpose();
    Ok(Price::Metered {
        metric: checked(metric, "price")?.ok_or(CORRUPT_PRICE)?,
        included_units: checked(Units::try_from(row.included_units), "price")?,
        rate,
    })
}

#[derive(FromRow)]
struct LimitRow {
    plan: String,
    plan_version: i32,
    metric: String,
    period: String,
    amount: i64,
    mode: String,
    ceiling: Option<i64>,
    unreachable_policy: String,
    thresholds: Vec<i32>,
}

impl TryFrom<LimitRow> for Limit {
    type Error = DatabaseError;

    fn try_from(row: LimitRow) -> Result<Self, DatabaseError> {
        let thresholds = row
            .thresholds
            .into_iter()
            .map(u32::try_from)
            .collect::<Result<_, _>>();
        Ok(Self {
            metric: checked(MetricSlug::parse(&row.metric), "limit")?,
            period: Period::from_name(&row.period).ok_or(DatabaseError::Corrupt { what: "limit" })?,
            amount: checked(Units::try_from(row.amount), "limit")?,
            mode: from_name(row.mode, "limit")?,
            ceiling: checked(row.ceiling.map(Units::try_from).transpose(), "limit")?,
            unreachable_policy: from_name(row.unreachable_policy, "limit")?,
            thresholds: checked(thresholds, "limit")?,
        })
    }
}

async fn list_limits(
    connection: &mut PgConnection,
    named: &Named,
) -> Result<HashMap<PlanKey, Vec<Limit>>, DatabaseError> {
    let rows: Vec<LimitRow> = named
        .fetch(
            connection,
            "SELECT plan, plan_version, metric, period, amount, mode, ceiling, unreachable_policy, thresholds
             FROM limit_template
             JOIN unnest($1::text[], $2::int[]) AS named (plan, plan_version) USING (plan, plan_version)",
        )
        .await?;
    let mut limits: HashMap<PlanKey, Vec<Limit>> = HashMap::new();
    for row in rows {
        limits
            .entry((row.plan.clone(), row.plan_version))
            .or_default()
            .push(row.try_into()?);
    }
    Ok(limits)
}

async fn list_plan_features(
    connection: &mut PgConnection,
    named: &Named,
) -> Result<HashMap<PlanKey, Vec<FeatureSlug>>, DatabaseError> {
    let rows: Vec<(String, i32, String)> = named
        .fetch(
            connection,
            // Byte by byte, as the document's reader orders them.
            "SELECT plan, plan_version, feature FROM plan_feature
             JOIN unnest($1::text[], $2::int[]) AS named (plan, plan_version) USING (plan, plan_version)
             ORDER BY feature COLLATE \"C\"",
        )
        .await?;
    let mut features: HashMap<PlanKey, Vec<FeatureSlug>> = HashMap::new();
    for (plan, plan_version, feature) in rows {
        features
            .entry((plan, plan_version))
            .or_default()
            .push(checked(FeatureSlug::parse(&feature), "feature")?);
    }
    Ok(features)
}
