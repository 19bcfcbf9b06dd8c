//! Events that windows were told of, and thresholds that were crossed.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Units};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::windows::{AccountWindow, period_from_name};
use crate::domain::window::WindowKey;

/// An event that quota tells its windows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Applied {
    /// Whose.
    pub account: AccountId,
    /// Who says so, in the ledger.
    pub source: String,
    /// Its id.
    pub event_id: String,
}

/// Notes that windows are told of events in this transaction, and answers of which they were not before.
pub async fn insert_applied(
    connection: &mut PgConnection,
    events: &[Applied],
    now: Timestamp,
) -> Result<HashSet<Applied>, DatabaseError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "INSERT INTO applied_event (account_id, source, event_id, applied_at)
         SELECT account_id, source, event_id, $4 FROM unnest($1::text[], $2::text[], $3::text[])
              AS e (account_id, source, event_id) ORDER BY 1, 2, 3
         ON CONFLICT DO NOTHING RETURNING account_id, source, event_id",
    )
    .bind(events.iter().map(|one| one.account.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|one| one.source.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|one| one.event_id.as_str()).collect::<Vec<_>>())
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(account, source, event_id)| {
            Ok(Applied {
                account: AccountId::parse(&account).map_err(corrupt("account id"))?,
                source,
                event_id,
            })
        })
        .collect()
}

/// Thresholds of windows that people were told of and that were not looked at since `before`, of about `limit` crossings,
/// each window once. They count as looked at from now on.
pub async fn claim_standing(
    connection: &mut PgConnection,
    before: Timestamp,
    now: Timestamp,
    limit: i64,
) -> Result<BTreeSet<AccountWindow>, DatabaseError> {
    let rows: Vec<(String, String, String, OffsetDateTime, Option<OffsetDateTime>)> = sqlx::query_as(
        "WITH claimed AS (
             UPDATE crossed_threshold AS c SET looked_at = $2
             WHERE c.ctid = ANY (ARRAY(
                 SELECT ctid FROM crossed_threshold WHERE notified AND back_at IS NULL AND looked_at < $1
                 ORDER BY looked_at LIMIT $3 FOR UPDATE SKIP LOCKED))
             RETURNING c.account_id, c.metric, c.period, c.start_at)
         SELECT DISTINCT c.account_id, c.metric, c.period, c.start_at, w.end_at
         FROM claimed AS c
         CROSS JOIN LATERAL (SELECT end_at FROM quota_window AS w
                             WHERE w.account_id = c.account_id AND w.metric = c.metric AND w.period = c.period
                               AND w.start_at = c.start_at OFFSET 0) AS w",
    )
    .bind(to_sql(before))
    .bind(to_sql(now))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let read = |(account, metric, period, start, end): (String, String, String, _, Option<_>)| {
        let key = WindowKey {
            metric: MetricSlug::parse(&metric).map_err(corrupt("metric"))?,
            period: period_from_name(&period)?,
            start: from_sql(start),
            end: end.map_or(Timestamp::MAX, from_sql),
        };
        Ok((AccountId::parse(&account).map_err(corrupt("account id"))?, key))
    };
    rows.into_iter().map(read).collect()
}

/// Notes that the thresholds of a window stand no more, and answers whether one did.
pub async fn end_standing(
    connection: &mut PgConnection,
    (account, key): &AccountWindow,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "UPDATE crossed_threshold SET back_at = $5
         WHERE account_id = $1 AND metric = $2 AND period = $3 AND start_at = $4 AND notified AND back_at IS NULL",
    )
    .bind(account.as_str())
    .bind(key.metric.as_str())
    .bind(key.period.as_str())
    .bind(to_sql(key.start))
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A threshold that a window's use has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Whose.
    pub account: AccountId,
    /// Which window.
    pub key: WindowKey,
    /// The limit in force.
    pub limit: Units,
    /// The share that was reached, in percent.
    pub percent: u32,
    /// The use that reached it.
    pub used: u128,
    /// Whether people are told of this one, or of a higher one at the same time.
    pub notified: bool,
}

/// Notes that a threshold was reached, and answers whether this is the first time.
pub async fn insert_crossing(
    connection: &mut PgConnection,
    crossing: &Crossing,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "INSERT INTO crossed_threshold
             (account_id, metric, period, start_at, limit_amount, threshold_percent, used, notified, crossed_at, looked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::numeric, $8, $9, $9) ON CONFLICT DO NOTHING",
    )
    .bind(crossing.account.as_str())
    .bind(crossing.key.metric.as_str())
    .bind(crossing.key.period.as_str())
    .bind(to_sql(crossing.key.start))
    .bind(crossing.limit.as_i64())
    .bind(i32::try_from(crossing.percent).map_err(corrupt("threshold"))?)
    .bind(crossing.used.to_string())
    .bind(crossing.notified)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
