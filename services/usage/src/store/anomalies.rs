//! Anomalies that were found.

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{FromRow, PgConnection, types::Decimal};
use time::OffsetDateTime;
use uuid::Uuid;

use super::look::{Series, Sliced};
use crate::domain::anomaly::{AnomaliesQuery, Anomaly, Course, Kind, Peak};

/// The columns of an anomaly, of a table that is called `a`.
const COLUMNS: &str = "a.anomaly_id, a.account_id, a.metric, a.kind, a.start_at, a.end_at, a.hours, a.actual, a.expected,
     a.peak_start_at, a.peak_actual, a.peak_expected, a.peak_low, a.peak_high, a.peak_score, a.told_score, a.detected_at";

#[derive(FromRow)]
struct AnomalyRow {
    anomaly_id: Uuid,
    account_id: String,
    metric: String,
    kind: String,
    start_at: OffsetDateTime,
    end_at: OffsetDateTime,
    hours: i32,
    actual: Decimal,
    expected: Decimal,
    peak_start_at: OffsetDateTime,
    peak_actual: i64,
    peak_expected: i64,
    peak_low: i64,
    peak_high: i64,
    peak_score: i64,
    told_score: i64,
    detected_at: OffsetDateTime,
}

impl TryFrom<AnomalyRow> for Anomaly {
    type Error = DatabaseError;

    fn try_from(row: AnomalyRow) -> Result<Self, DatabaseError> {
        let count = |count: i64| u64::try_from(count).map_err(corrupt("amount of an anomaly"));
        let sum = |sum: Decimal| u128::try_from(sum.mantissa()).map_err(corrupt("sum of an anomaly"));
        let course = Course {
            kind: Kind::from_name(&row.kind).ok_or(DatabaseError::Corrupt {
                what: "kind of an anomaly",
            })?,
            start_at: from_sql(row.start_at),
            end_at: from_sql(row.end_at),
            hours: u32::try_from(row.hours).map_err(corrupt("hours of an anomaly"))?,
            peak: Peak {
                start_at: from_sql(row.peak_start_at),
                actual: count(row.peak_actual)?,
                expected: count(row.peak_expected)?,
                low: count(row.peak_low)?,
                high: count(row.peak_high)?,
                score: count(row.peak_score)?,
            },
            actual: sum(row.actual)?,
            expected: sum(row.expected)?,
            told_score: count(row.told_score)?,
        };
        Ok(Self {
            id: row.anomaly_id,
            account: AccountId::parse(&row.account_id).map_err(corrupt("account id"))?,
            metric: MetricSlug::parse(&row.metric).map_err(corrupt("metric"))?,
            course,
            detected_at: from_sql(row.detected_at),
        })
    }
}

/// Up to `limit` anomalies, the newest first.
pub async fn list_anomalies(
    connection: &mut PgConnection,
    query: &AnomaliesQuery,
    limit: i64,
) -> Result<Vec<Anomaly>, DatabaseError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM anomaly AS a
         WHERE a.account_id = $1 AND a.start_at < $3 AND a.end_at > $2 AND ($4::text[] IS NULL OR a.metric = ANY($4))
           AND ($5::text IS NULL OR a.kind = $5)
           AND ($6::timestamptz IS NULL OR a.start_at <= $6 AND (a.start_at, a.anomaly_id) < ($6, $7))
         ORDER BY a.start_at DESC, a.anomaly_id DESC LIMIT $8"
    );
    let metrics: Vec<&str> = query.metrics.iter().map(MetricSlug::as_str).collect();
    let rows: Vec<AnomalyRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(query.account.as_str())
        .bind(to_sql(query.range.start))
        .bind(to_sql(query.range.end))
        .bind((!metrics.is_empty()).then_some(metrics))
        .bind(query.kind.map(Kind::as_str))
        .bind(query.after.map(|place| to_sql(place.start_at)))
        .bind(query.after.map(|place| place.id))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(Anomaly::try_from).collect()
}

/// The newest anomaly of each series and kind, where there is one.
pub async fn list_last_courses(
    connection: &mut PgConnection,
    series: &[(&Series, Kind)],
) -> Result<Vec<Option<Course>>, DatabaseError> {
    let statement = format!(
        "SELECT s.place, a.*
         FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS s (account_id, metric, kind, place)
         CROSS JOIN LATERAL (SELECT {COLUMNS} FROM anomaly AS a
                             WHERE a.account_id = s.account_id AND a.metric = s.metric AND a.kind = s.kind
                             ORDER BY a.start_at DESC LIMIT 1) AS a"
    );
    let sliced = Sliced::of(series.iter().map(|(series, _)| *series));
    let kinds: Vec<&str> = series.iter().map(|(_, kind)| kind.as_str()).collect();
    let rows: Vec<PlacedRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(&sliced.accounts)
        .bind(&sliced.metrics)
        .bind(kinds)
        .fetch_all(connection)
        .await?;
    let mut found: Vec<Option<Course>> = series.iter().map(|_| None).collect();
    for row in rows {
        let place = usize::try_from(row.place - 1).map_err(corrupt("place"))?;
        if let Some(slot) = found.get_mut(place) {
            *slot = Some(Anomaly::try_from(row.anomaly)?.course);
        }
    }
    Ok(found)
}

#[derive(FromRow)]
struct PlacedRow {
    place: i64,
    #[sqlx(flatten)]
    anomaly: AnomalyRow,
}

/// How many anomalies of each account began after `since`.
pub async fn count_anomalies_since(
    connection: &mut PgConnection,
    accounts: &[&str],
    since: Timestamp,
) -> Result<Vec<(String, i64)>, DatabaseError> {
    Ok(sqlx::query_as(
        "SELECT s.account_id, a.anomalies
         FROM unnest($1::text[]) AS s (account_id)
         CROSS JOIN LATERAL (SELECT count(*) AS anomalies FROM anomaly AS a
                             WHERE a.account_id = s.account_id AND a.start_at > $2 OFFSET 0) AS a",
    )
    .bind(accounts)
    .bind(to_sql(since))
    .fetch_all(connection)
    .await?)
}

/// Writes an anomaly down that begins, or what one has become, and answers its id.
pub async fn upsert_anomaly(
    connection: &mut PgConnection,
    series: &Series,
    course: &Course,
    now: Timestamp,
) -> Result<Uuid, DatabaseError> {
    let count = |count: u64| i64::try_from(count).map_err(corrupt("amount of an anomaly"));
    let sum = |sum: u128| {
        let sum = i128::try_from(sum).map_err(corrupt("sum of an anomaly"))?;
        Decimal::try_from_i128_with_scale(sum, 0).map_err(corrupt("sum of an anomaly"))
    };
    Ok(sqlx::query_scalar(
        "INSERT INTO anomaly AS a (account_id, metric, kind, start_at, end_at, hours, actual, expected, peak_start_at,
                                   peak_actual, peak_expected, peak_low, peak_high, peak_score, told_score, detected_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         ON CONFLICT (account_id, metric, kind, start_at) DO UPDATE
         SET end_at = excluded.end_at, hours = excluded.hours, actual = excluded.actual, expected = excluded.expected,
             peak_start_at = excluded.peak_start_at, peak_actual = excluded.peak_actual,
             peak_expected = excluded.peak_expected, peak_low = excluded.peak_low, peak_high = excluded.peak_high,
             peak_score = excluded.peak_score, told_score = excluded.told_score
         RETURNING anomaly_id",
    )
    .bind(&series.account)
    .bind(&series.metric)
    .bind(course.kind.as_str())
    .bind(to_sql(course.start_at))
    .bind(to_sql(course.end_at))
    .bind(i32::try_from(course.hours).map_err(corrupt("hours of an anomaly"))?)
    .bind(sum(course.actual)?)
    .bind(sum(course.expected)?)
    .bind(to_sql(course.peak.start_at))
    .bind(count(course.peak.actual)?)
    .bind(count(course.peak.expected)?)
    .bind(count(course.peak.low)?)
    .bind(count(course.peak.high)?)
    .bind(count(course.peak.score)?)
    .bind(count(course.told_score)?)
    .bind(to_sql(now))
    .fetch_one(connection)
    .await?)
}

/// Deletes up to `limit` anomalies that ended before an instant, and says how many.
pub async fn delete_anomalies_before(
    connection: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM anomaly
         WHERE anomaly_id = ANY (ARRAY(SELECT anomaly_id FROM anomaly WHERE end_at < $1 ORDER BY end_at LIMIT $2))",
    )
    .bind(to_sql(before))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
