//! The distinct values of metrics that count them, beside the other rollups.

use std::collections::{BTreeMap, HashMap};

use futures::TryStreamExt as _;
use octroi_core::MetricSlug;
use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::rollups::{Bounds, Bucket, Counted, window_key};
use crate::domain::{distinct::Distinct, figures::Figures};

/// How long a bucket is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Quarter,
    Day,
}

impl Width {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Quarter => "quarter",
            Self::Day => "day",
        }
    }
}

/// Adds the distinct values of buckets, whose rows of sums the transaction holds.
pub(super) async fn add(
    connection: &mut PgConnection,
    width: Width,
    buckets: &BTreeMap<Bucket, Figures>,
) -> Result<(), DatabaseError> {
    let buckets: BTreeMap<&Bucket, &Distinct> = (buckets.iter())
        .filter(|(_, figures)| !figures.distinct.is_empty())
        .map(|(bucket, figures)| (bucket, &figures.distinct))
        .collect();
    if buckets.is_empty() {
        return Ok(());
    }
    let accounts: Vec<&str> = buckets.keys().map(|bucket| bucket.account.as_str()).collect();
    let metrics: Vec<&str> = buckets.keys().map(|bucket| bucket.metric.as_str()).collect();
    let starts: Vec<OffsetDateTime> = buckets.keys().map(|bucket| to_sql(bucket.start_at)).collect();
    let rows: Vec<(String, String, OffsetDateTime, Vec<u8>)> = sqlx::query_as(
        "SELECT named.account_id, named.metric, named.bucket_at, hashes
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS named (account_id, metric, bucket_at)
         CROSS JOIN LATERAL (SELECT hashes FROM rollup_distinct AS r
                             WHERE r.account_id = named.account_id AND r.metric = named.metric AND r.width = $4
                               AND r.bucket_at = named.bucket_at OFFSET 0) AS r",
    )
    .bind(&accounts)
    .bind(&metrics)
    .bind(&starts)
    .bind(width.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let before: HashMap<Bucket, Distinct> = (rows.into_iter())
        .map(|(account, metric, start_at, hashes)| {
            let bucket = Bucket {
                account,
                metric,
                start_at: from_sql(start_at),
            };
            (bucket, Distinct::from_bytes(&hashes))
        })
        .collect();
    let mut changed: BTreeMap<&Bucket, Vec<u8>> = BTreeMap::new();
    for (bucket, added) in buckets {
        let known = before.get(bucket);
        let mut values = known.cloned().unwrap_or_default();
        values.add(added);
        if known != Some(&values) {
            changed.insert(bucket, values.to_bytes());
        }
    }
    write(connection, width, &changed).await
}

/// Puts other distinct values in the place of those that buckets have, whose rows of sums the transaction holds.
pub(super) async fn replace(
    connection: &mut PgConnection,
    width: Width,
    values: &BTreeMap<Bucket, Distinct>,
) -> Result<(), DatabaseError> {
    let hashes: BTreeMap<&Bucket, Vec<u8>> = (values.iter())
        .map(|(bucket, values)| (bucket, values.to_bytes()))
        .collect();
    write(connection, width, &hashes).await
}

async fn write(
    connection: &mut PgConnection,
    width: Width,
    hashes: &BTreeMap<&Bucket, Vec<u8>>,
) -> Result<(), DatabaseError> {
    if hashes.is_empty() {
        return Ok(());
    }
    let buckets = || hashes.keys();
    sqlx::query(
        "INSERT INTO rollup_distinct (account_id, metric, bucket_at, hashes, width)
         SELECT *, $5 FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bytea[])
         ON CONFLICT (account_id, metric, width, bucket_at) DO UPDATE SET hashes = excluded.hashes",
    )
    .bind(
        buckets()
            .map(|bucket| bucket.account.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(buckets().map(|bucket| bucket.metric.as_str()).collect::<Vec<_>>())
    .bind(
        buckets()
            .map(|bucket| to_sql(bucket.start_at))
            .collect::<Vec<_>>(),
    )
    .bind(hashes.values().map(Vec::as_slice).collect::<Vec<_>>())
    .bind(width.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// The distinct values of days, out of those of their quarters of an hour.
pub(super) async fn of_days<'b>(
    connection: &mut PgConnection,
    days: impl Iterator<Item = &'b Bucket> + Clone,
) -> Result<BTreeMap<Bucket, Distinct>, DatabaseError> {
    let mut found: BTreeMap<Bucket, Distinct> = BTreeMap::new();
    let mut rows = sqlx::query_as::<_, (String, String, OffsetDateTime, Vec<u8>)>(
        "SELECT k.account_id, k.metric, k.start_at, r.hashes
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (account_id, metric, start_at)
         CROSS JOIN LATERAL (SELECT hashes FROM rollup_distinct AS r
                             WHERE r.account_id = k.account_id AND r.metric = k.metric AND r.width = 'quarter'
                               AND r.bucket_at >= k.start_at AND r.bucket_at < k.start_at + interval '1 day' OFFSET 0) AS r",
    )
    .bind(days.clone().map(|day| day.account.as_str()).collect::<Vec<_>>())
    .bind(days.clone().map(|day| day.metric.as_str()).collect::<Vec<_>>())
    .bind(days.map(|day| to_sql(day.start_at)).collect::<Vec<_>>())
    .fetch(connection);
    while let Some((account, metric, start_at, hashes)) = rows.try_next().await? {
        let bucket = Bucket {
            account,
            metric,
            start_at: from_sql(start_at),
        };
        let values = found.entry(bucket).or_default();
        values.add(&Distinct::from_bytes(&hashes));
    }
    Ok(found)
}

/// The distinct values of windows, by metric and place. They are put together as they come: a bucket has up to 32 KiB.
pub(super) async fn list(
    connection: &mut PgConnection,
    counted: &Counted,
    bounds: &Bounds,
) -> Result<HashMap<(MetricSlug, usize), Distinct>, DatabaseError> {
    let mut rows = sqlx::query_as::<_, (String, i64, Vec<u8>)>(
        "SELECT r.metric, b.place, r.hashes
         FROM unnest($3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[]) WITH ORDINALITY
              AS b (start_at, days_start_at, days_end_at, end_at, place)
         CROSS JOIN LATERAL (
             SELECT metric, hashes FROM rollup_distinct
             WHERE account_id = $1 AND metric = ANY($2) AND width = 'quarter'
               AND bucket_at >= b.start_at AND bucket_at < b.days_start_at
             UNION ALL
             SELECT metric, hashes FROM rollup_distinct
             WHERE account_id = $1 AND metric = ANY($2) AND width = 'day'
               AND bucket_at >= b.days_start_at AND bucket_at < b.days_end_at
             UNION ALL
             SELECT metric, hashes FROM rollup_distinct
             WHERE account_id = $1 AND metric = ANY($2) AND width = 'quarter'
               AND bucket_at >= b.days_end_at AND bucket_at < b.end_at
             OFFSET 0) AS r",
    )
    .bind(counted.account.as_str())
    .bind(counted.unique.iter().map(|(metric, _)| metric.as_str()).collect::<Vec<_>>())
    .bind(&bounds.start_at)
    .bind(&bounds.days_start_at)
    .bind(&bounds.days_end_at)
    .bind(&bounds.end_at)
    .fetch(connection);
    let mut found: HashMap<(MetricSlug, usize), Distinct> = HashMap::new();
    while let Some((metric, place, hashes)) = rows.try_next().await? {
        let values = found.entry(window_key(&metric, place)?).or_default();
        values.add(&Distinct::from_bytes(&hashes));
    }
    Ok(found)
}
