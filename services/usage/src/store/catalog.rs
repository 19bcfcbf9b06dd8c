//! The metrics that may be recorded.

use octroi_core::{Aggregation, Metric, MetricKind, MetricSlug};
use octroi_kit::db::{DatabaseError, corrupt};
use sqlx::PgConnection;

use crate::error::Error;

/// How a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Whether it adds up or is held.
    pub kind: MetricKind,
    /// How amounts become one figure.
    pub aggregation: Aggregation,
}

/// The metrics of the catalog, with how they count.
pub async fn list_metrics(
    connection: &mut PgConnection,
) -> Result<Vec<(MetricSlug, Counting)>, DatabaseError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as("SELECT slug, kind, aggregation FROM metric")
        .fetch_all(connection)
        .await?;
    rows.into_iter()
        .map(|(slug, kind, aggregation)| {
            let slug = MetricSlug::parse(&slug).map_err(corrupt("metric"))?;
            let aggregation =
                Aggregation::from_name(&aggregation).ok_or(DatabaseError::Corrupt { what: "aggregation" })?;
            let kind = MetricKind::from_name(&kind).ok_or(DatabaseError::Corrupt { what: "metric kind" })?;
            Ok((slug, Counting { kind, aggregation }))
        })
        .collect()
}

/// Sets version and metrics. A metric that is not in the new catalog stays: the ledger speaks of it.
pub async fn update_catalog(
    connection: &mut PgConnection,
    version: u64,
    metrics: &[Metric],
) -> Result<(), Error> {
    let version = i64::try_from(version).map_err(corrupt("catalog version"))?;
    sqlx::query("INSERT INTO catalog (version) VALUES ($1) ON CONFLICT (singleton) DO UPDATE SET version = excluded.version")
        .bind(version)
        .execute(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
    for metric in metrics {
        sqlx::query(
            "INSERT INTO metric (slug, kind, aggregation) VALUES ($1, $2, $3)
             ON CONFLICT (slug) DO UPDATE SET kind = excluded.kind, aggregation = excluded.aggregation",
        )
        .bind(metric.slug.as_str())
        .bind(metric.kind.as_str())
        .bind(metric.aggregation.as_str())
        .execute(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
    }
    Ok(())
}
