//! What billing's catalog says.

use std::collections::HashMap;

use octroi_core::{Aggregation, Entitlements, FeaturePlans, Metric, MetricKind, MetricSlug, Recording};
use octroi_kit::db::{DatabaseError, corrupt};
use sqlx::{PgConnection, types::Json};

use super::begun::to_stored;
use crate::domain::{begun::Begun, holding::Catalog};

/// The catalog that was applied last.
pub async fn find_catalog(connection: &mut PgConnection) -> Result<Option<Catalog>, DatabaseError> {
    type Row = (i64, Json<Entitlements>, Json<Vec<FeaturePlans>>, i32);
    let row: Option<Row> = sqlx::query_as(
        "SELECT version, default_entitlements, feature_plans, restricted_percent FROM catalog",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some((version, default_entitlements, feature_plans, restricted_percent)) = row else {
        return Ok(None);
    };
    let rows: Vec<(String, String, String, bool, String)> =
        sqlx::query_as("SELECT slug, kind, aggregation, write, recording FROM metric")
            .fetch_all(connection)
            .await?;
    let metrics: Result<HashMap<MetricSlug, Metric>, DatabaseError> = rows
        .into_iter()
        .map(|row| metric(row).map(|metric| (metric.slug.clone(), metric)))
        .collect();
    Ok(Some(Catalog {
        version: u64::try_from(version).map_err(corrupt("catalog version"))?,
        metrics: metrics?,
        default_entitlements: default_entitlements.0,
        feature_plans: feature_plans.0,
        restricted_percent: u32::try_from(restricted_percent).map_err(corrupt("share"))?,
    }))
}

/// What people read of a metric, and what only usage counts by, stays with them.
fn metric(
    (slug, kind, aggregation, write, recording): (String, String, String, bool, String),
) -> Result<Metric, DatabaseError> {
    Ok(Metric {
        slug: MetricSlug::parse(&slug).map_err(corrupt("metric"))?,
        kind: MetricKind::from_name(&kind).ok_or(DatabaseError::Corrupt { what: "metric kind" })?,
        aggregation: Aggregation::from_name(&aggregation)
            .ok_or(DatabaseError::Corrupt { what: "aggregation" })?,
        display_name_en: String::new(),
        display_name_fr: String::new(),
        unit: String::new(),
        write,
        recording: Recording::from_name(&recording).ok_or(DatabaseError::Corrupt { what: "recording" })?,
        property: None,
    })
}

/// Makes `catalog` the one in force, whose default limits began then. Metrics that it does not have any more stay known.
pub async fn update_catalog(
    connection: &mut PgConnection,
    catalog: &Catalog,
    begun: &Begun,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO catalog (version, default_entitlements, feature_plans, restricted_percent, begun) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (singleton) DO UPDATE SET version = excluded.version, feature_plans = excluded.feature_plans,
             default_entitlements = excluded.default_entitlements, restricted_percent = excluded.restricted_percent,
             begun = excluded.begun",
    )
    .bind(i64::try_from(catalog.version).map_err(corrupt("catalog version"))?)
    .bind(Json(&catalog.default_entitlements))
    .bind(Json(&catalog.feature_plans))
    .bind(i32::try_from(catalog.restricted_percent).map_err(corrupt("share"))?)
    .bind(to_stored(begun))
    .execute(&mut *connection)
    .await?;
    for metric in catalog.metrics.values() {
        sqlx::query(
            "INSERT INTO metric (slug, kind, aggregation, write, recording) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (slug) DO UPDATE
             SET kind = excluded.kind, aggregation = excluded.aggregation, write = excluded.write,
                 recording = excluded.recording",
        )
        .bind(metric.slug.as_str())
        .bind(metric.kind.as_str())
        .bind(metric.aggregation.as_str())
        .bind(metric.write)
        .bind(metric.recording.as_str())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
