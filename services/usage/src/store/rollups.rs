//! The sums of the ledger by quarters of an hour and days.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Units, Window};
use octroi_kit::db::{DatabaseError, corrupt, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::units;
use crate::{
    domain::sums::{MetricStats, UsageBucket},
    error::Error,
};

/// What one commit adds to one bucket of the rollups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// The sum of amounts; many events of 2^53 − 1 pass 64 bits.
    pub amount: u128,
    /// The number of events.
    pub events: i64,
}

/// Adds to the rollups.
pub async fn add_to_rollups(
    connection: &mut PgConnection,
    increments: &BTreeMap<(String, String, Timestamp), Increment>,
) -> Result<(), DatabaseError> {
    let amounts: Result<Vec<sqlx::types::Decimal>, _> = increments
        .values()
        .map(|one| {
            i128::try_from(one.amount)
                .ok()
                .and_then(|amount| sqlx::types::Decimal::try_from_i128_with_scale(amount, 0).ok())
                .ok_or(())
        })
        .collect();
    let amounts = amounts.map_err(corrupt("amount"))?;
    let accounts: Vec<&str> = increments.keys().map(|key| key.0.as_str()).collect();
    let metrics: Vec<&str> = increments.keys().map(|key| key.1.as_str()).collect();
    let buckets: Vec<OffsetDateTime> = increments.keys().map(|key| to_sql(key.2)).collect();
    let events: Vec<i64> = increments.values().map(|one| one.events).collect();
    for statement in [
        "INSERT INTO rollup_quarter AS r (account_id, metric, bucket_at, amount, events)
         SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])
         ON CONFLICT (account_id, metric, bucket_at)
         DO UPDATE SET amount = r.amount + excluded.amount, events = r.events + excluded.events",
        "INSERT INTO rollup_day AS r (account_id, metric, bucket_at, amount, events)
         SELECT account_id, metric, day_at, sum(amount), sum(events)::bigint
         FROM (SELECT account_id, metric, date_trunc('day', bucket_at, 'UTC') AS day_at, amount, events
               FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])
                    AS given (account_id, metric, bucket_at, amount, events)) AS days
         GROUP BY account_id, metric, day_at ORDER BY account_id, metric, day_at
         ON CONFLICT (account_id, metric, bucket_at)
         DO UPDATE SET amount = r.amount + excluded.amount, events = r.events + excluded.events",
    ] {
        sqlx::query(statement)
            .bind(&accounts)
            .bind(&metrics)
            .bind(&buckets)
            .bind(&amounts)
            .bind(&events)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Sums the rollups of an account by bucket. Buckets without use are there with 0.
pub async fn sum_buckets(
    connection: &mut PgConnection,
    account: &AccountId,
    metrics: &[MetricSlug],
    windows: &[Window],
) -> Result<Vec<MetricStats>, Error> {
    let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(
        "SELECT r.metric, b.place, sum(r.amount)::text, sum(r.events)::bigint
         FROM unnest($3::timestamptz[], $4::timestamptz[]) WITH ORDINALITY AS b (start_at, end_at, place)
         CROSS JOIN LATERAL (SELECT * FROM rollup_quarter AS r
                             WHERE r.account_id = $1 AND r.metric = ANY($2) AND r.bucket_at >= b.start_at
                               AND r.bucket_at < b.end_at OFFSET 0) AS r
         GROUP BY r.metric, b.place",
    )
    .bind(account.as_str())
    .bind(metrics.iter().map(MetricSlug::as_str).collect::<Vec<_>>())
    .bind(
        windows
            .iter()
            .map(|window| to_sql(window.start))
            .collect::<Vec<_>>(),
    )
    .bind(
        windows
            .iter()
            .map(|window| to_sql(window.end))
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await
    .map_err(DatabaseError::from)?;
    let mut sums: HashMap<(String, i64), (Units, u64)> = HashMap::with_capacity(rows.len());
    for (metric, place, amount, events) in rows {
        let events = u64::try_from(events).map_err(corrupt("number of events"))?;
        sums.insert((metric, place), (units(&amount)?, events));
    }
    let stats = metrics.iter().map(|metric| {
        let buckets = (1_i64..).zip(windows).map(|(place, window)| {
            let (amount, events) = sums
                .get(&(metric.to_string(), place))
                .copied()
                .unwrap_or_default();
            UsageBucket {
                window: *window,
                amount,
                events,
            }
        });
        MetricStats {
            metric: metric.clone(),
            buckets: buckets.collect(),
        }
    });
    Ok(stats.collect())
}

/// Events that the rollups do not have yet, over all accounts: what `rollup_lag` counts up with each commit of
/// the ledger and down with each of the rollups.
pub async fn count_rollup_lag(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    let lag: i64 = sqlx::query_scalar("SELECT coalesce(sum(events), 0)::bigint FROM rollup_lag")
        .fetch_one(connection)
        .await?;
    u64::try_from(lag).map_err(corrupt("rollup lag"))
}
