//! The rows of a report of events: read page by page along the index, and no further.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, MetricSlug, Source, Units, Window};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::domain::{
    buckets::day_of,
    event::Origin,
    events::Place,
    report::{EventRow, Report},
};

/// Which relation the events of reports are read from. It has the columns that are named here.
macro_rules! events {
    () => {
        "effective_event"
    };
}

/// What a page may read of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// The metric.
    pub metric: &'a MetricSlug,
    /// Only events behind this place.
    pub after: Place,
    /// The most rows that are answered.
    pub rows: i64,
    /// The most events that are looked at, where not all of them are rows.
    pub scanned: i64,
}

type ReportRow = (
    OffsetDateTime,
    i64,
    String,
    String,
    i64,
    Json<BTreeMap<String, String>>,
    OffsetDateTime,
    String,
);

/// The first events of a stretch that are rows of the report, the oldest first.
pub async fn list_report_events(
    connection: &mut PgConnection,
    report: &Report,
    stretch: Stretch<'_>,
) -> Result<Vec<EventRow>, DatabaseError> {
    let filter = &report.query.filter;
    // As all that are looked at are rows, unless some are filtered out, no more than the page is looked at.
    let scanned = if filter.is_empty() {
        stretch.rows
    } else {
        stretch.scanned
    };
    let rows: Vec<ReportRow> = sqlx::query_as(concat!(
        "SELECT event_at, sequence, source, event_id, amount, properties, recorded_at, origin
         FROM (SELECT event_at, sequence, source, event_id, amount, properties, recorded_at, origin
               FROM ",
        events!(),
        " AS e
               WHERE e.account_id = $1 AND e.metric = $2 AND e.event_at >= $3 AND e.event_at < $4
                 AND (e.event_at, e.sequence) > ($3, $5) AND e.recorded_at < $6
               ORDER BY e.event_at, e.sequence LIMIT $7) AS e
         WHERE ($8::text IS NULL OR e.source = $8) AND ($9::jsonb IS NULL OR e.properties @> $9)
         ORDER BY event_at, sequence LIMIT $10"
    ))
    .bind(report.query.account.as_str())
    .bind(stretch.metric.as_str())
    .bind(to_sql(stretch.after.event_at))
    .bind(to_sql(report.query.end_at))
    .bind(stretch.after.sequence)
    .bind(to_sql(report.recorded_before))
    .bind(scanned)
    .bind(filter.source.as_ref().map(Source::as_str))
    .bind((!filter.properties.is_empty()).then_some(Json(&filter.properties)))
    .bind(stretch.rows)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| event_row(stretch.metric, row))
        .collect()
}

/// The last event that is looked at of a stretch, `until` at the most, and how many that are. None where there is no event.
pub async fn measure_stretch(
    connection: &mut PgConnection,
    report: &Report,
    stretch: Stretch<'_>,
    until: Option<Place>,
) -> Result<Option<(Place, i64)>, DatabaseError> {
    let row: Option<(OffsetDateTime, i64, i64)> = sqlx::query_as(concat!(
        "SELECT event_at, sequence, place
         FROM (SELECT event_at, sequence, row_number() OVER (ORDER BY event_at, sequence) AS place
               FROM (SELECT event_at, sequence FROM ",
        events!(),
        " AS e
                     WHERE e.account_id = $1 AND e.metric = $2 AND e.event_at >= $3 AND e.event_at < $4
                       AND (e.event_at, e.sequence) > ($3, $5) AND e.recorded_at < $6
                       AND ($8::timestamptz IS NULL OR (e.event_at, e.sequence) <= ($8, $9))
                     ORDER BY e.event_at, e.sequence LIMIT $7) AS e) AS e
         ORDER BY place DESC LIMIT 1"
    ))
    .bind(report.query.account.as_str())
    .bind(stretch.metric.as_str())
    .bind(to_sql(stretch.after.event_at))
    .bind(to_sql(report.query.end_at))
    .bind(stretch.after.sequence)
    .bind(to_sql(report.recorded_before))
    .bind(stretch.scanned)
    .bind(until.map(|place| to_sql(place.event_at)))
    .bind(until.map(|place| place.sequence))
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(event_at, sequence, number)| {
        let place = Place {
            event_at: from_sql(event_at),
            sequence,
        };
        (place, number)
    }))
}

/// The metrics of which an account has events in a range, in no order.
pub async fn list_used_metrics(
    connection: &mut PgConnection,
    account: &AccountId,
    range: Window,
) -> Result<Vec<MetricSlug>, DatabaseError> {
    // Each metric is one look into the index.
    let slugs: Vec<String> = sqlx::query_scalar(concat!(
        "SELECT m.slug FROM metric AS m
         CROSS JOIN LATERAL (SELECT 1 FROM ",
        events!(),
        " AS e
                             WHERE e.account_id = $1 AND e.metric = m.slug AND e.event_at >= $2 AND e.event_at < $3
                             ORDER BY e.event_at LIMIT 1) AS e"
    ))
    .bind(account.as_str())
    .bind(to_sql(range.start))
    .bind(to_sql(range.end))
    .fetch_all(connection)
    .await?;
    slugs_of(&slugs)
}

/// The metrics of which an account has figures on the days of UTC that a range touches, in no order. Figures are there of
/// months whose events were dropped, too.
pub async fn list_counted_metrics(
    connection: &mut PgConnection,
    account: &AccountId,
    range: Window,
) -> Result<Vec<MetricSlug>, DatabaseError> {
    let slugs: Vec<String> = sqlx::query_scalar(
        "SELECT m.slug FROM metric AS m
         CROSS JOIN LATERAL (SELECT 1 FROM rollup_day AS r
                             WHERE r.account_id = $1 AND r.metric = m.slug AND r.bucket_at >= $2 AND r.bucket_at < $3
                             LIMIT 1) AS r",
    )
    .bind(account.as_str())
    .bind(to_sql(day_of(range.start)))
    .bind(to_sql(range.end))
    .fetch_all(connection)
    .await?;
    slugs_of(&slugs)
}

fn slugs_of(slugs: &[String]) -> Result<Vec<MetricSlug>, DatabaseError> {
    slugs
        .iter()
        .map(|slug| MetricSlug::parse(slug).map_err(corrupt("metric")))
        .collect()
}

/// The time of the primary itself.
pub async fn get_primary_time(connection: &mut PgConnection) -> Result<Timestamp, DatabaseError> {
    let now: OffsetDateTime = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await?;
    Ok(from_sql(now))
}

/// What a transaction reads from now on is of one instant, and it has as long as it takes: for reports that are written in the
/// background. Nothing may have been read before.
pub async fn begin_long_read(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::raw_sql(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
         SET LOCAL statement_timeout = '60s';
         SET LOCAL idle_in_transaction_session_timeout = '60s'",
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn event_row(metric: &MetricSlug, row: ReportRow) -> Result<EventRow, DatabaseError> {
    let (event_at, sequence, source, event_id, amount, properties, recorded_at, origin) = row;
    Ok(EventRow {
        metric: metric.clone(),
        place: Place {
            event_at: from_sql(event_at),
            sequence,
        },
        source: Source::parse(&source).map_err(corrupt("source"))?,
        event_id: EventId::parse(&event_id).map_err(corrupt("event id"))?,
        amount: Units::try_from(amount).map_err(corrupt("amount"))?,
        properties: properties.0,
        origin: Origin::from_name(&origin).ok_or(DatabaseError::Corrupt { what: "origin" })?,
        recorded_at: from_sql(recorded_at),
    })
}
