//! How far the look at finished hours is, and what it reads of the rollups: by index, and only the hours that it compares.

use std::time::Duration;

use jiff::Timestamp;
use octroi_core::{Units, Window};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::{PgConnection, types::Decimal};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::anomaly::Sample;

/// One metric of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The account.
    pub account: String,
    /// The metric.
    pub metric: String,
}

/// How far the look is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The hour of UTC that is looked at next, or now; none before the first.
    pub hour_at: Option<Timestamp>,
    /// What was looked at last in this hour; empty before the first.
    pub after: Series,
}

/// Many series, as the database takes them.
pub(super) struct Sliced<'s> {
    pub(super) accounts: Vec<&'s str>,
    pub(super) metrics: Vec<&'s str>,
}

impl<'s> Sliced<'s> {
    pub(super) fn of(series: impl Iterator<Item = &'s Series>) -> Self {
        let (accounts, metrics) = series
            .map(|one| (one.account.as_str(), one.metric.as_str()))
            .unzip();
        Self { accounts, metrics }
    }
}

/// Takes the look, or keeps it, for `term`: none where another process has it. The term is told by the database's own
/// clock, which nobody moves.
pub async fn claim_look(
    connection: &mut PgConnection,
    holder: Uuid,
    term: Duration,
) -> Result<Option<Look>, DatabaseError> {
    let row: Option<(Option<OffsetDateTime>, String, String)> = sqlx::query_as(
        "UPDATE anomaly_look SET holder = $1, held_until = clock_timestamp() + make_interval(secs => $2)
         WHERE singleton AND (holder IS NULL OR holder = $1 OR held_until < clock_timestamp())
         RETURNING hour_at, after_account, after_metric",
    )
    .bind(holder)
    .bind(term.as_secs_f64())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(hour_at, account, metric)| Look {
        hour_at: hour_at.map(from_sql),
        after: Series { account, metric },
    }))
}

/// Gives the look up, where `holder` has it.
pub async fn release_look(connection: &mut PgConnection, holder: Uuid) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE anomaly_look SET holder = NULL WHERE singleton AND holder = $1")
        .bind(holder)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves the look on, where `holder` has it still.
pub async fn move_look(connection: &mut PgConnection, holder: Uuid, to: &Look) -> Result<(), DatabaseError> {
    let moved = sqlx::query(
        "UPDATE anomaly_look SET hour_at = $2, after_account = $3, after_metric = $4 WHERE singleton AND holder = $1",
    )
    .bind(holder)
    .bind(to.hour_at.map(to_sql))
    .bind(&to.after.account)
    .bind(&to.after.metric)
    .execute(connection)
    .await?;
    expect_rows(1, moved.rows_affected())
}

/// The first instant after what was looked at; none where nothing was yet.
pub async fn find_looked_until(connection: &mut PgConnection) -> Result<Option<Timestamp>, DatabaseError> {
    let hour_at: Option<OffsetDateTime> = sqlx::query_scalar("SELECT hour_at FROM anomaly_look")
        .fetch_one(connection)
        .await?;
    Ok(hour_at.map(from_sql))
}

/// Up to `limit` series behind `after`, with the first quarter of an hour of `range` in which each was used; none where it was
/// not, or its metric is none of `metrics`.
pub async fn list_series(
    connection: &mut PgConnection,
    after: &Series,
    range: Window,
    metrics: &[&str],
    limit: i32,
) -> Result<Vec<(Series, Option<Timestamp>)>, DatabaseError> {
    // From series to series by the index, however many days each has.
    let rows: Vec<(String, String, Option<OffsetDateTime>)> = sqlx::query_as(
        "WITH RECURSIVE walked (account_id, metric, place) AS (
             (SELECT account_id, metric, 1 FROM rollup_day
              WHERE (account_id, metric) > ($1, $2) ORDER BY account_id, metric LIMIT 1)
             UNION ALL
             SELECT d.account_id, d.metric, w.place + 1
             FROM walked AS w
             CROSS JOIN LATERAL (SELECT account_id, metric FROM rollup_day AS d
                                 WHERE (d.account_id, d.metric) > (w.account_id, w.metric)
                                 ORDER BY d.account_id, d.metric LIMIT 1) AS d
             WHERE w.place < $3)
         SELECT w.account_id, w.metric, q.bucket_at
         FROM walked AS w
         LEFT JOIN LATERAL (SELECT bucket_at FROM rollup_quarter AS q
                            WHERE q.account_id = w.account_id AND q.metric = w.metric AND q.bucket_at >= $4
                              AND q.bucket_at < $5 AND w.metric = ANY($6)
                            ORDER BY q.bucket_at LIMIT 1) AS q ON true
         ORDER BY w.place",
    )
    .bind(&after.account)
    .bind(&after.metric)
    .bind(limit)
    .bind(to_sql(range.start))
    .bind(to_sql(range.end))
    .bind(metrics)
    .fetch_all(connection)
    .await?;
    let series = rows
        .into_iter()
        .map(|(account, metric, first_at)| (Series { account, metric }, first_at.map(from_sql)));
    Ok(series.collect())
}

/// What hours used by the rollups, and the hours around each, in the order asked.
pub async fn sum_hours(
    connection: &mut PgConnection,
    hours: &[(&Series, Timestamp)],
) -> Result<Vec<Sample>, DatabaseError> {
    let (sliced, starts) = sliced(hours);
    let rows: Vec<(i64, OffsetDateTime, Decimal)> = sqlx::query_as(
        "SELECT s.place, q.hour_at, q.amount
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS s (account_id, metric, start_at, place)
         CROSS JOIN LATERAL (
             SELECT date_bin('1 hour', q.bucket_at, s.start_at) AS hour_at, greatest(sum(q.amount), 0) AS amount
             FROM rollup_quarter AS q
             WHERE q.account_id = s.account_id AND q.metric = s.metric
               AND q.bucket_at >= s.start_at - interval '2 hours' AND q.bucket_at < s.start_at + interval '3 hours'
             GROUP BY 1 OFFSET 0) AS q",
    )
    .bind(&sliced.accounts)
    .bind(&sliced.metrics)
    .bind(starts)
    .fetch_all(connection)
    .await?;
    let mut samples = vec![Sample::default(); hours.len()];
    for (place, hour_at, sum) in rows {
        let place = usize::try_from(place - 1).map_err(corrupt("place"))?;
        if let Some((sample, (_, start_at))) = samples.get_mut(place).zip(hours.get(place)) {
            let after = from_sql(hour_at).duration_since(*start_at).as_hours();
            sample.set(after, amount(sum)?);
        }
    }
    Ok(samples)
}

/// The most that an hour used since `since`, of the hours before each that is asked for.
pub async fn largest_hours(
    connection: &mut PgConnection,
    hours: &[(&Series, Timestamp)],
    since: Timestamp,
) -> Result<Vec<u64>, DatabaseError> {
    let (sliced, starts) = sliced(hours);
    let rows: Vec<(i64, Decimal)> = sqlx::query_as(
        "SELECT s.place, h.amount
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS s (account_id, metric, start_at, place)
         CROSS JOIN LATERAL (
             SELECT greatest(max(h.amount), 0) AS amount
             FROM (SELECT sum(amount) AS amount FROM rollup_quarter AS q
                   WHERE q.account_id = s.account_id AND q.metric = s.metric AND q.bucket_at >= $4
                     AND q.bucket_at < s.start_at
                   GROUP BY date_bin('1 hour', q.bucket_at, s.start_at)) AS h
             OFFSET 0) AS h",
    )
    .bind(&sliced.accounts)
    .bind(&sliced.metrics)
    .bind(starts)
    .bind(to_sql(since))
    .fetch_all(connection)
    .await?;
    let mut amounts = vec![0; hours.len()];
    for (place, sum) in rows {
        let place = usize::try_from(place - 1).map_err(corrupt("place"))?;
        if let Some(slot) = amounts.get_mut(place) {
            *slot = amount(sum)?;
        }
    }
    Ok(amounts)
}

/// The most events of an hour that are read of the ledger.
const LEDGER_EVENTS_MAX: i64 = 10_000;

/// What hours used by the ledger itself, which has what the rollups lack; none where an hour has too many events.
pub async fn sum_ledger_hours(
    connection: &mut PgConnection,
    hours: &[(&Series, Timestamp)],
) -> Result<Vec<Option<u64>>, DatabaseError> {
    // However many events an hour has, no more are read.
    let statement = "SELECT s.place, CASE WHEN e.events <= $4 THEN e.amount END
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS s (account_id, metric, start_at, place)
         CROSS JOIN LATERAL (
             SELECT count(*) AS events, coalesce(sum(amount) FILTER (WHERE origin <> 'return'), 0) AS amount
             FROM (SELECT amount, origin FROM effective_event AS e
                   WHERE e.account_id = s.account_id AND e.metric = s.metric AND e.event_at >= s.start_at
                     AND e.event_at < s.start_at + interval '1 hour' LIMIT $4 + 1) AS e
             OFFSET 0) AS e";
    let (sliced, starts) = sliced(hours);
    let rows: Vec<(i64, Option<Decimal>)> = sqlx::query_as(statement)
        .bind(&sliced.accounts)
        .bind(&sliced.metrics)
        .bind(starts)
        .bind(LEDGER_EVENTS_MAX)
        .fetch_all(connection)
        .await?;
    let mut amounts = vec![None; hours.len()];
    for (place, sum) in rows {
        let place = usize::try_from(place - 1).map_err(corrupt("place"))?;
        if let Some(slot) = amounts.get_mut(place) {
            *slot = sum.map(amount).transpose()?;
        }
    }
    Ok(amounts)
}

fn sliced<'s>(hours: &[(&'s Series, Timestamp)]) -> (Sliced<'s>, Vec<OffsetDateTime>) {
    let starts = hours.iter().map(|(_, start_at)| to_sql(*start_at)).collect();
    (Sliced::of(hours.iter().map(|(series, _)| *series)), starts)
}

/// What each quarter of an hour of a range used.
pub async fn list_quarters(
    connection: &mut PgConnection,
    series: &Series,
    range: Window,
) -> Result<Vec<(Timestamp, u128)>, DatabaseError> {
    let rows: Vec<(OffsetDateTime, Decimal)> = sqlx::query_as(
        "SELECT bucket_at, greatest(amount, 0) FROM rollup_quarter
         WHERE account_id = $1 AND metric = $2 AND bucket_at >= $3 AND bucket_at < $4",
    )
    .bind(&series.account)
    .bind(&series.metric)
    .bind(to_sql(range.start))
    .bind(to_sql(range.end))
    .fetch_all(connection)
    .await?;
    let quarters = rows.into_iter().map(|(at, amount)| {
        let amount = u128::try_from(amount.mantissa()).map_err(corrupt("sum"))?;
        Ok((from_sql(at), amount))
    });
    quarters.collect()
}

/// A sum of an hour; more than can be counted is the most that can.
fn amount(sum: Decimal) -> Result<u64, DatabaseError> {
    let sum = u128::try_from(sum.mantissa()).map_err(corrupt("sum"))?;
    Ok(u64::try_from(sum).map_or(Units::MAX.get(), |sum| sum.min(Units::MAX.get())))
}
