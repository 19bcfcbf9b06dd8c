//! Sums of the ledger itself, and of the rollups beside it.

use octroi_core::{AccountId, MetricSlug, Source, Units};
use octroi_kit::db::{DatabaseError, corrupt, to_sql};
use sqlx::PgConnection;

use super::units;
use crate::{
    domain::sums::{MetricTotal, TotalsQuery},
    error::Error,
};

/// Sums the ledger by origin, and the rollups beside it where they are asked for, with the snapshot that says which
/// commits the sums of the ledger have. An empty range is not looked up, and has no snapshot.
pub async fn sum_ledger(
    connection: &mut PgConnection,
    query: &TotalsQuery,
) -> Result<(Vec<MetricTotal>, String), Error> {
    if query.range.end <= query.range.start {
        let empty = query.metrics.iter().map(|metric| total_of(metric, &[], &[]));
        let empty: Result<Vec<MetricTotal>, Error> = empty.collect();
        return Ok((empty?, String::new()));
    }
    let account = query.account.as_ref().map(AccountId::as_str);
    let metrics: Vec<&str> = query.metrics.iter().map(MetricSlug::as_str).collect();
    let start = to_sql(query.range.start);
    let end = query.range.is_bounded().then(|| to_sql(query.range.end));
    // One statement sees one moment, so the snapshot is that of the sums.
    let ledger: Vec<LedgerRow> = sqlx::query_as(
        "SELECT named.metric, (coalesce(sums.decided, 0) + coalesce(changes.decided, 0))::text,
                (coalesce(sums.direct, 0) + coalesce(changes.direct, 0))::text,
                (coalesce(sums.returned, 0) + coalesce(changes.returned, 0))::text,
                coalesce(charged, 0)::text, coalesce(sums.events, 0) + coalesce(changes.events, 0)::bigint,
                pg_current_snapshot()::text
         FROM unnest($2::text[]) AS named (metric) LEFT JOIN
             (SELECT metric, sum(amount) FILTER (WHERE origin = 'decision') AS decided,
                     sum(amount) FILTER (WHERE origin = 'direct') AS direct,
                     sum(amount) FILTER (WHERE origin = 'return') AS returned,
                     sum(charged_amount) AS charged, count(*) AS events
              FROM ledger
              WHERE ($1::text IS NULL OR account_id = $1) AND metric = ANY($2) AND event_at >= $3
                AND ($4::timestamptz IS NULL OR event_at < $4) AND ($5::text IS NULL OR source = $5)
              GROUP BY metric) AS sums USING (metric) LEFT JOIN
             -- What corrections change, one after the other, adds up to what events come to in the end.
             (SELECT metric, sum(change) FILTER (WHERE origin = 'decision') AS decided,
                     sum(change) FILTER (WHERE origin = 'direct') AS direct,
                     sum(change) FILTER (WHERE origin = 'return') AS returned,
                     sum(voided_before::int - voided_after::int) AS events
              FROM (SELECT *, CASE WHEN voided_after THEN 0 ELSE amount_after END
                              - CASE WHEN voided_before THEN 0 ELSE amount_before END AS change
                    FROM correction) AS c
              WHERE ($1::text IS NULL OR account_id = $1) AND metric = ANY($2) AND event_at >= $3
                AND ($4::timestamptz IS NULL OR event_at < $4) AND ($5::text IS NULL OR source = $5)
              GROUP BY metric) AS changes USING (metric)",
    )
    .bind(account)
    .bind(&metrics)
    .bind(start)
    .bind(end)
    .bind(query.source.as_ref().map(Source::as_str))
    .fetch_all(&mut *connection)
    .await
    .map_err(DatabaseError::from)?;
    let rollups = if query.rollups {
        sum_rollups(connection, query).await?
    } else {
        Vec::new()
    };
    let snapshot = ledger.first().map(|row| row.6.clone()).unwrap_or_default();
    let totals = (query.metrics.iter()).map(|metric| total_of(metric, &ledger, &rollups));
    let totals: Result<Vec<MetricTotal>, Error> = totals.collect();
    Ok((totals?, snapshot))
}

/// Metric; decided, direct, returned and charged units; number of events; the snapshot.
type LedgerRow = (String, String, String, String, String, i64, String);

async fn sum_rollups(
    connection: &mut PgConnection,
    query: &TotalsQuery,
) -> Result<Vec<(String, String)>, DatabaseError> {
    let end = query.range.is_bounded().then(|| to_sql(query.range.end));
    Ok(sqlx::query_as(
        "SELECT metric, greatest(sum(amount), 0)::text FROM rollup_quarter
         WHERE ($1::text IS NULL OR account_id = $1) AND metric = ANY($2) AND bucket_at >= $3
           AND ($4::timestamptz IS NULL OR bucket_at < $4)
         GROUP BY metric",
    )
    .bind(query.account.as_ref().map(AccountId::as_str))
    .bind(query.metrics.iter().map(MetricSlug::as_str).collect::<Vec<_>>())
    .bind(to_sql(query.range.start))
    .bind(end)
    .fetch_all(connection)
    .await?)
}

fn total_of(
    metric: &MetricSlug,
    ledger: &[LedgerRow],
    rollups: &[(String, String)],
) -> Result<MetricTotal, Error> {
    let mut total = MetricTotal {
        metric: metric.clone(),
        decided: Units::ZERO,
        direct: Units::ZERO,
        returned: Units::ZERO,
        charged: Units::ZERO,
        events: 0,
        rollup: Units::ZERO,
    };
    if let Some((_, decided, direct, returned, charged, events, _)) =
        ledger.iter().find(|row| row.0 == metric.as_str())
    {
        total.decided = units(decided)?;
        total.direct = units(direct)?;
        total.returned = units(returned)?;
        total.charged = units(charged)?;
        total.events = u64::try_from(*events).map_err(corrupt("number of events"))?;
    }
    if let Some((_, amount)) = rollups.iter().find(|row| row.0 == metric.as_str()) {
        total.rollup = units(amount)?;
    }
    Ok(total)
}
