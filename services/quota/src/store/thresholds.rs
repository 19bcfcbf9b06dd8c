//! Events that windows were told of, and thresholds that were crossed.

use std::collections::HashSet;

use jiff::Timestamp;
use octroi_core::{AccountId, Units};
use octroi_kit::db::{DatabaseError, corrupt, to_sql};
use sqlx::PgConnection;

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
             (account_id, metric, period, start_at, limit_amount, threshold_percent, used, notified, crossed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::numeric, $8, $9) ON CONFLICT DO NOTHING",
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
