//! What the ledger itself comes to: where a range begins or ends within a quarter of an hour, and by the values of a property,
//! which the rollups do not have.

use std::collections::HashMap;

use octroi_core::{MetricSlug, PropertyKey, Source, Window};
use octroi_kit::db::{DatabaseError, to_sql};
use sqlx::{AssertSqlSafe, FromRow as _, PgConnection, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;

use super::rollups::{Counted, WindowRow, window_figures, window_key};
use crate::domain::{
    distinct::{Distinct, hash_of},
    figures::Figures,
    report::Filter,
};

/// A metric, the place of a window, and the value of the property that is grouped by, where the event has it.
pub type GroupKey = (MetricSlug, usize, Option<String>);

/// Which events are summed, and how.
#[derive(Clone, Debug, Default)]
pub struct Narrowed {
    /// The property by whose values they are grouped. Without it all are of one group, whose value is none.
    pub group_by: Option<PropertyKey>,
    /// Which events.
    pub filter: Filter,
}

/// What windows come to, by metric, place and group; those of one place come to one sum, and one without events is not there.
pub async fn sum_ledger_windows(
    connection: &mut PgConnection,
    counted: &Counted,
    windows: &[(usize, Window)],
    narrowed: &Narrowed,
) -> Result<HashMap<GroupKey, Figures>, DatabaseError> {
    let mut sums = HashMap::new();
    if windows.is_empty() {
        return Ok(sums);
    }
    let windows = Windows::of(windows);
    let events = relation(connection, counted, &windows).await?;
    let statement = format!(
        "SELECT e.metric, b.place, coalesce(sum(e.amount) FILTER (WHERE taken), 0), count(*),
                max(e.amount) FILTER (WHERE taken), max(e.event_at) FILTER (WHERE taken),
                (array_agg(e.amount ORDER BY e.event_at DESC, e.amount DESC) FILTER (WHERE taken))[1], e.group_value
         FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS b (place, start_at, end_at)
         CROSS JOIN LATERAL (SELECT metric, amount, event_at, origin <> 'return' AS taken, properties ->> $6 AS group_value
                             FROM {events} AS e
                             WHERE e.account_id = $1 AND e.metric = ANY($2) AND e.event_at >= b.start_at
                               AND e.event_at < b.end_at AND ($7::text IS NULL OR e.source = $7)
                               AND ($8::jsonb IS NULL OR e.properties @> $8) OFFSET 0) AS e
         GROUP BY e.metric, b.place, e.group_value"
    );
    let rows = sqlx::query(AssertSqlSafe(statement))
        .bind(counted.account.as_str())
        .bind(metrics(counted))
        .bind(&windows.places)
        .bind(&windows.starts)
        .bind(&windows.ends)
        .bind(narrowed.group_by.as_ref().map(PropertyKey::as_str))
        .bind(narrowed.filter.source.as_ref().map(Source::as_str))
        .bind((!narrowed.filter.properties.is_empty()).then_some(Json(&narrowed.filter.properties)))
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let (key, figures) = group_figures(&row)?;
        sums.insert(key, figures);
    }
    if !counted.unique.is_empty() {
        for (key, values) in list_values(connection, counted, &windows, (events, narrowed)).await? {
            let figures: &mut Figures = sums.entry(key).or_default();
            figures.distinct.add(&values);
        }
    }
    Ok(sums)
}

/// Where windows lie, as the database takes them.
struct Windows {
    /// Counted from 1.
    places: Vec<i64>,
    starts: Vec<OffsetDateTime>,
    ends: Vec<OffsetDateTime>,
}

impl Windows {
    fn of(windows: &[(usize, Window)]) -> Self {
        let place = |place: usize| i64::try_from(place).map_or(i64::MAX, |place| place + 1);
        Self {
            places: windows.iter().map(|(at, _)| place(*at)).collect(),
            starts: windows.iter().map(|(_, window)| to_sql(window.start)).collect(),
            ends: windows.iter().map(|(_, window)| to_sql(window.end)).collect(),
        }
    }
}

/// What has the events of windows as they come to: the ledger itself where none of them was corrected, which is nearly always
/// and spares a look at the corrections for each.
async fn relation(
    connection: &mut PgConnection,
    counted: &Counted,
    windows: &Windows,
) -> Result<&'static str, DatabaseError> {
    let is_corrected: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT 1 FROM unnest($3::timestamptz[], $4::timestamptz[]) AS b (start_at, end_at)
             CROSS JOIN unnest($2::text[]) AS m (metric)
             CROSS JOIN LATERAL (SELECT 1 FROM correction AS c
                                 WHERE c.account_id = $1 AND c.metric = m.metric AND c.event_at >= b.start_at
                                   AND c.event_at < b.end_at LIMIT 1) AS c)",
    )
    .bind(counted.account.as_str())
    .bind(metrics(counted))
    .bind(&windows.starts)
    .bind(&windows.ends)
    .fetch_one(connection)
    .await?;
    Ok(if is_corrected { "effective_event" } else { "ledger" })
}

fn metrics(counted: &Counted) -> Vec<&str> {
    counted.metrics.iter().map(MetricSlug::as_str).collect()
}

fn group_figures(row: &PgRow) -> Result<(GroupKey, Figures), DatabaseError> {
    let group: Option<String> = row.try_get("group_value")?;
    let ((metric, place), figures) = window_figures(WindowRow::from_row(row)?)?;
    Ok(((metric, place, group), figures))
}

/// The distinct values of the metrics that count them.
async fn list_values(
    connection: &mut PgConnection,
    counted: &Counted,
    windows: &Windows,
    (events, narrowed): (&'static str, &Narrowed),
) -> Result<Vec<(GroupKey, Distinct)>, DatabaseError> {
    let statement = format!(
        "SELECT m.metric, b.place, e.group_value, array_agg(DISTINCT e.value)
         FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS b (place, start_at, end_at)
         CROSS JOIN unnest($2::text[], $6::text[]) AS m (metric, property)
         CROSS JOIN LATERAL (SELECT properties ->> m.property AS value, properties ->> $7 AS group_value FROM {events} AS e
                             WHERE e.account_id = $1 AND e.metric = m.metric AND e.event_at >= b.start_at
                               AND e.event_at < b.end_at AND ($8::text IS NULL OR e.source = $8)
                               AND ($9::jsonb IS NULL OR e.properties @> $9) OFFSET 0) AS e
         WHERE e.value IS NOT NULL
         GROUP BY m.metric, b.place, e.group_value"
    );
    let (unique, properties): (Vec<&str>, Vec<&str>) = (counted.unique.iter())
        .map(|(metric, property)| (metric.as_str(), property.as_str()))
        .unzip();
    let rows: Vec<(String, i64, Option<String>, Vec<String>)> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(counted.account.as_str())
        .bind(unique)
        .bind(&windows.places)
        .bind(&windows.starts)
        .bind(&windows.ends)
        .bind(properties)
        .bind(narrowed.group_by.as_ref().map(PropertyKey::as_str))
        .bind(narrowed.filter.source.as_ref().map(Source::as_str))
        .bind((!narrowed.filter.properties.is_empty()).then_some(Json(&narrowed.filter.properties)))
        .fetch_all(connection)
        .await?;
    let values = rows.into_iter().map(|(metric, place, group, values)| {
        let (metric, place) = window_key(&metric, place)?;
        let distinct = Distinct::of(values.iter().map(|value| hash_of(&counted.salt, value)));
        Ok(((metric, place, group), distinct))
    });
    values.collect()
}
