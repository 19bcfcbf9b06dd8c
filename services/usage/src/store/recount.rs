//! What cannot be taken off again: the largest, the newest and the distinct values of buckets in which events were
//! corrected are found anew, from the ledger.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{PgConnection, types::Decimal};
use time::OffsetDateTime;

use super::{
    catalog::get_salt,
    distinct::{self, Width},
    rollups::Bucket,
};
use crate::domain::{
    buckets::day_of,
    distinct::{Distinct, hash_of},
};

/// How corrections move the sums of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The sum of amounts, up or down.
    pub amount: i128,
    /// The number of events, up or down.
    pub events: i64,
}

/// Adds what corrections change in quarters of an hour: to them, and to their days.
pub async fn correct_rollups(
    connection: &mut PgConnection,
    quarters: &BTreeMap<Bucket, Shift>,
) -> Result<(), DatabaseError> {
    let mut days: BTreeMap<Bucket, Shift> = BTreeMap::new();
    for (bucket, shift) in quarters {
        let sum = days.entry(day(bucket)).or_default();
        sum.amount += shift.amount;
        sum.events += shift.events;
    }
    for (table, buckets) in [("rollup_quarter", quarters), ("rollup_day", &days)] {
        shift(connection, table, buckets).await?;
    }
    recount(connection, &quarters.keys().collect::<Vec<_>>()).await
}

fn day(bucket: &Bucket) -> Bucket {
    Bucket {
        start_at: day_of(bucket.start_at),
        ..bucket.clone()
    }
}

async fn shift(
    connection: &mut PgConnection,
    table: &'static str,
    buckets: &BTreeMap<Bucket, Shift>,
) -> Result<(), DatabaseError> {
    let amounts: Result<Vec<Decimal>, _> = (buckets.values())
        .map(|shift| Decimal::try_from_i128_with_scale(shift.amount, 0).map_err(corrupt("amount")))
        .collect();
    let keys = Keys::of(buckets.keys());
    let statement = format!(
        "INSERT INTO {table} AS r (account_id, metric, bucket_at, amount, events)
         SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])
         ON CONFLICT (account_id, metric, bucket_at) DO UPDATE
         SET amount = r.amount + excluded.amount, events = r.events + excluded.events"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(keys.accounts)
        .bind(keys.metrics)
        .bind(keys.starts)
        .bind(amounts?)
        .bind(buckets.values().map(|shift| shift.events).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Buckets in columns.
struct Keys<'b> {
    accounts: Vec<&'b str>,
    metrics: Vec<&'b str>,
    starts: Vec<OffsetDateTime>,
}

impl<'b> Keys<'b> {
    fn of(buckets: impl Iterator<Item = &'b Bucket> + Clone) -> Self {
        Self {
            accounts: buckets.clone().map(|one| one.account.as_str()).collect(),
            metrics: buckets.clone().map(|one| one.metric.as_str()).collect(),
            starts: buckets.map(|one| to_sql(one.start_at)).collect(),
        }
    }
}

/// The quarters of an hour of those of the events that were corrected.
pub(super) async fn list_corrected<'b>(
    connection: &mut PgConnection,
    events: &'b [(Bucket, Timestamp)],
) -> Result<BTreeSet<&'b Bucket>, DatabaseError> {
    let times = || events.iter().map(|(_, event_at)| *event_at);
    let Some((first, last)) = times().min().zip(times().max()) else {
        return Ok(BTreeSet::new());
    };
    // Hardly ever is anything of that time corrected, and then nothing more is asked.
    let are_some: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM correction WHERE event_at >= $1 AND event_at <= $2)",
    )
    .bind(to_sql(first))
    .bind(to_sql(last))
    .fetch_one(&mut *connection)
    .await?;
    if !are_some {
        return Ok(BTreeSet::new());
    }
    let keys = Keys::of(events.iter().map(|(bucket, _)| bucket));
    let places: Vec<i64> = sqlx::query_scalar(
        "SELECT k.place FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY
              AS k (account_id, metric, event_at, place)
         CROSS JOIN LATERAL (SELECT 1 FROM correction AS c
                             WHERE c.account_id = k.account_id AND c.metric = k.metric AND c.event_at = k.event_at
                             LIMIT 1) AS c",
    )
    .bind(keys.accounts)
    .bind(keys.metrics)
    .bind(times().map(to_sql).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let places: BTreeSet<i64> = places.into_iter().collect();
    let corrected = events
        .iter()
        .zip(1_i64..)
        .filter(|(_, place)| places.contains(place));
    Ok(corrected.map(|((bucket, _), _)| bucket).collect())
}

/// Finds anew what quarters of an hour have besides sums, and then their days. The transaction holds the rows of all of them, so
/// whatever else was or will be added to them is seen, or is added to what is found here.
pub(super) async fn recount(
    connection: &mut PgConnection,
    quarters: &[&Bucket],
) -> Result<(), DatabaseError> {
    if quarters.is_empty() {
        return Ok(());
    }
    let found = find_extremes(connection, QUARTER_EXTREMES, quarters.iter().copied()).await?;
    replace_extremes(connection, "rollup_quarter", &found).await?;
    let values = find_distinct(connection, quarters).await?;
    distinct::replace(connection, Width::Quarter, &values).await?;
    let days: BTreeSet<Bucket> = quarters.iter().map(|quarter| day(quarter)).collect();
    let found = find_extremes(connection, DAY_EXTREMES, days.iter()).await?;
    replace_extremes(connection, "rollup_day", &found).await?;
    let of_unique: BTreeSet<&Bucket> = days
        .iter()
        .filter(|day| values.keys().any(|quarter| day_of_is(quarter, day)))
        .collect();
    let values = distinct::of_days(connection, of_unique.iter().copied()).await?;
    distinct::replace(connection, Width::Day, &values).await
}

fn day_of_is(quarter: &Bucket, day: &Bucket) -> bool {
    quarter.account == day.account && quarter.metric == day.metric && day_of(quarter.start_at) == day.start_at
}

/// The largest and the newest event of the ledger in each quarter of an hour.
const QUARTER_EXTREMES: &str = "SELECT max(e.amount) AS max_amount, max(e.event_at) AS latest_at,
            (array_agg(e.amount ORDER BY e.event_at DESC, e.amount DESC))[1] AS latest_amount
     FROM effective_event AS e
     WHERE e.account_id = k.account_id AND e.metric = k.metric AND e.event_at >= k.start_at
       AND e.event_at < k.start_at + interval '15 minutes' AND e.origin <> 'return'";
/// The same of the quarters of each day.
const DAY_EXTREMES: &str = "SELECT max(r.max_amount) AS max_amount, max(r.latest_at) AS latest_at,
            (array_agg(r.latest_amount ORDER BY r.latest_at DESC NULLS LAST, r.latest_amount DESC))[1] AS latest_amount
     FROM rollup_quarter AS r
     WHERE r.account_id = k.account_id AND r.metric = k.metric AND r.bucket_at >= k.start_at
       AND r.bucket_at < k.start_at + interval '1 day'";

/// The largest amount, and when and how much the newest is.
type Extremes = (Option<i64>, Option<OffsetDateTime>, Option<i64>);

async fn find_extremes<'b>(
    connection: &mut PgConnection,
    of_one: &'static str,
    buckets: impl Iterator<Item = &'b Bucket> + Clone,
) -> Result<Vec<(&'b Bucket, Extremes)>, DatabaseError> {
    let keys = Keys::of(buckets.clone());
    let statement = format!(
        "SELECT e.max_amount, e.latest_at, e.latest_amount
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS k (account_id, metric, start_at, place)
         CROSS JOIN LATERAL ({of_one}) AS e ORDER BY k.place"
    );
    let rows: Vec<Extremes> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(keys.accounts)
        .bind(keys.metrics)
        .bind(keys.starts)
        .fetch_all(connection)
        .await?;
    Ok(buckets.zip(rows).collect())
}

async fn replace_extremes(
    connection: &mut PgConnection,
    table: &'static str,
    found: &[(&Bucket, Extremes)],
) -> Result<(), DatabaseError> {
    let keys = Keys::of(found.iter().map(|(bucket, _)| *bucket));
    let statement = format!(
        "INSERT INTO {table} (account_id, metric, bucket_at, amount, events, max_amount, latest_at, latest_amount)
         SELECT account_id, metric, bucket_at, 0, 0, max_amount, latest_at, latest_amount
         FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::timestamptz[], $6::bigint[])
              AS k (account_id, metric, bucket_at, max_amount, latest_at, latest_amount)
         ON CONFLICT (account_id, metric, bucket_at) DO UPDATE
         SET max_amount = excluded.max_amount, latest_at = excluded.latest_at, latest_amount = excluded.latest_amount"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(keys.accounts)
        .bind(keys.metrics)
        .bind(keys.starts)
        .bind(found.iter().map(|(_, one)| one.0).collect::<Vec<_>>())
        .bind(found.iter().map(|(_, one)| one.1).collect::<Vec<_>>())
        .bind(found.iter().map(|(_, one)| one.2).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// The distinct values in the quarters of metrics that count them; one without any is there all the same.
async fn find_distinct(
    connection: &mut PgConnection,
    quarters: &[&Bucket],
) -> Result<BTreeMap<Bucket, Distinct>, DatabaseError> {
    let keys = Keys::of(quarters.iter().copied());
    let rows: Vec<(String, String, OffsetDateTime, Option<Vec<String>>)> = sqlx::query_as(
        "SELECT k.account_id, k.metric, k.start_at, e.values
         FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (account_id, metric, start_at)
         CROSS JOIN LATERAL (SELECT property FROM metric AS m
                             WHERE m.slug = k.metric AND m.property IS NOT NULL OFFSET 0) AS m
         CROSS JOIN LATERAL (SELECT array_agg(DISTINCT e.properties ->> m.property)
                                        FILTER (WHERE e.properties ->> m.property IS NOT NULL) AS values
                             FROM effective_event AS e
                             WHERE e.account_id = k.account_id AND e.metric = k.metric AND e.event_at >= k.start_at
                               AND e.event_at < k.start_at + interval '15 minutes' AND e.origin <> 'return') AS e",
    )
    .bind(keys.accounts)
    .bind(keys.metrics)
    .bind(keys.starts)
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(BTreeMap::new());
    }
    let salt = get_salt(connection).await?;
    let found = rows.into_iter().map(|(account, metric, start_at, values)| {
        let bucket = Bucket {
            account,
            metric,
            start_at: from_sql(start_at),
        };
        let hashes = values.unwrap_or_default();
        (
            bucket,
            Distinct::of(hashes.iter().map(|value| hash_of(&salt, value))),
        )
    });
    Ok(found.collect())
}
