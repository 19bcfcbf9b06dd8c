//! The metrics that may be recorded.

use octroi_core::{Aggregation, Metric, MetricKind, MetricSlug, PropertyKey};
use octroi_kit::db::{DatabaseError, corrupt};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{domain::distinct::Salt, error::Error};

/// How a metric counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Whether it adds up or is held.
    pub kind: MetricKind,
    /// How amounts become one figure.
    pub aggregation: Aggregation,
    /// The property whose distinct values are counted.
    pub property: Option<PropertyKey>,
}

impl Counting {
    /// Whether it is not said yet which property's values are counted.
    #[must_use]
    pub fn lacks_property(&self) -> bool {
        self.aggregation == Aggregation::Unique && self.property.is_none()
    }
}

/// The metrics of the catalog, with how they count.
pub async fn list_metrics(
    connection: &mut PgConnection,
) -> Result<Vec<(MetricSlug, Counting)>, DatabaseError> {
    let rows: Vec<(String, String, String, Option<String>)> =
        sqlx::query_as("SELECT slug, kind, aggregation, property FROM metric")
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|(slug, kind, aggregation, property)| {
            let slug = MetricSlug::parse(&slug).map_err(corrupt("metric"))?;
            let aggregation =
                Aggregation::from_name(&aggregation).ok_or(DatabaseError::Corrupt { what: "aggregation" })?;
            let kind = MetricKind::from_name(&kind).ok_or(DatabaseError::Corrupt { what: "metric kind" })?;
            let property = property.as_deref().map(PropertyKey::parse).transpose();
            let counting = Counting {
                kind,
                aggregation,
                property: property.map_err(corrupt("property"))?,
            };
            Ok((slug, counting))
        })
        .collect()
}

/// What values of properties are hashed with.
pub async fn get_salt(connection: &mut PgConnection) -> Result<Salt, DatabaseError> {
    let salt: Uuid = sqlx::query_scalar("SELECT salt FROM distinct_salt")
        .fetch_one(connection)
        .await?;
    Ok(salt.into_bytes())
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
            "INSERT INTO metric (slug, kind, aggregation, property) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slug) DO UPDATE
             SET kind = excluded.kind, aggregation = excluded.aggregation, property = excluded.property",
        )
        .bind(metric.slug.as_str())
        .bind(metric.kind.as_str())
        .bind(metric.aggregation.as_str())
        .bind(metric.property.as_ref().map(PropertyKey::as_str))
        .execute(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
    }
    Ok(())
}
