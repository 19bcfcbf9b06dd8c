//! What the ledger itself comes to where a range begins or ends within a quarter of an hour.

use std::collections::HashMap;

use octroi_core::{MetricSlug, Window};
use octroi_kit::db::{DatabaseError, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::rollups::{Counted, WindowRow, window_figures, window_key};
use crate::domain::{
    distinct::{Distinct, hash_of},
    figures::Figures,
};

/// What edges come to, by metric and the place that each has; one without events is not there.
pub async fn sum_edges(
    connection: &mut PgConnection,
    counted: &Counted,
    edges: &[(usize, Window)],
) -> Result<HashMap<(MetricSlug, usize), Figures>, DatabaseError> {
    if edges.is_empty() {
        return Ok(HashMap::new());
    }
    let places: Vec<i64> = edges
        .iter()
        .map(|(place, _)| i64::try_from(*place).map_or(i64::MAX, |place| place + 1))
        .collect();
    let starts: Vec<OffsetDateTime> = edges.iter().map(|(_, edge)| to_sql(edge.start)).collect();
    let ends: Vec<OffsetDateTime> = edges.iter().map(|(_, edge)| to_sql(edge.end)).collect();
    let rows: Vec<WindowRow> = sqlx::query_as(
        "SELECT e.metric, b.place, coalesce(sum(e.amount) FILTER (WHERE taken), 0), count(*),
                max(e.amount) FILTER (WHERE taken), max(e.event_at) FILTER (WHERE taken),
                (array_agg(e.amount ORDER BY e.event_at DESC, e.amount DESC) FILTER (WHERE taken))[1]
         FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS b (place, start_at, end_at)
         CROSS JOIN LATERAL (SELECT metric, amount, event_at, origin <> 'return' AS taken FROM usage_event AS e
                             WHERE e.account_id = $1 AND e.metric = ANY($2) AND e.event_at >= b.start_at
                               AND e.event_at < b.end_at OFFSET 0) AS e
         GROUP BY e.metric, b.place",
    )
    .bind(counted.account.as_str())
    .bind(counted.metrics.iter().map(MetricSlug::as_str).collect::<Vec<_>>())
    .bind(&places)
    .bind(&starts)
    .bind(&ends)
    .fetch_all(&mut *connection)
    .await?;
    let mut sums: HashMap<(MetricSlug, usize), Figures> = HashMap::with_capacity(rows.len());
    for row in rows {
        let (key, figures) = window_figures(row)?;
        sums.entry(key).or_default().add(&figures);
    }
    if counted.unique.is_empty() {
        return Ok(sums);
    }
    let values: Vec<(String, i64, Vec<String>)> = sqlx::query_as(
        "SELECT m.metric, b.place, array_agg(DISTINCT e.value)
         FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS b (place, start_at, end_at)
         CROSS JOIN unnest($2::text[], $6::text[]) AS m (metric, property)
         CROSS JOIN LATERAL (SELECT properties ->> m.property AS value FROM usage_event AS e
                             WHERE e.account_id = $1 AND e.metric = m.metric AND e.event_at >= b.start_at
                               AND e.event_at < b.end_at OFFSET 0) AS e
         WHERE e.value IS NOT NULL
         GROUP BY m.metric, b.place",
    )
    .bind(counted.account.as_str())
    .bind(
        counted
            .unique
            .iter()
            .map(|(metric, _)| metric.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(&places)
    .bind(&starts)
    .bind(&ends)
    .bind(
        counted
            .unique
            .iter()
            .map(|(_, property)| property.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    for (metric, place, values) in values {
        let distinct = Distinct::of(values.iter().map(|value| hash_of(&counted.salt, value)));
        let figures = sums.entry(window_key(&metric, place)?).or_default();
        figures.distinct.add(&distinct);
    }
    Ok(sums)
}
