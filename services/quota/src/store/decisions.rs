//! Decisions that were written down to be explained.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, to_sql};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::domain::explained::Record;

/// Writes records down; one of the same number and account gives way to a later one that is no repeat.
pub async fn upsert_decisions(
    connection: &mut PgConnection,
    records: &[Arc<Record>],
) -> Result<(), DatabaseError> {
    // One statement writes no row twice; the last of the same is the newest. In one order, so that replicas do not
    // wait for each other in a circle.
    let mut last: BTreeMap<(u128, &AccountId), &Record> = BTreeMap::new();
    for record in records {
        let Some(number) = record.number() else {
            continue;
        };
        let key = (number, record.account());
        if !record.is_repeat() || !last.contains_key(&key) {
            last.insert(key, record);
        }
    }
    let ids: Vec<Uuid> = last.keys().map(|(number, _)| Uuid::from_u128(*number)).collect();
    let accounts: Vec<&str> = last.keys().map(|(_, account)| account.as_str()).collect();
    let times: Vec<_> = last.values().map(|record| to_sql(record.at())).collect();
    let bodies: Vec<Json<&Record>> = last.values().map(|record| Json(*record)).collect();
    sqlx::query(
        "INSERT INTO decision AS d (id, account_id, decided_at, record)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::jsonb[])
         ON CONFLICT (id, account_id) DO UPDATE SET decided_at = excluded.decided_at, record = excluded.record
         WHERE d.decided_at <= excluded.decided_at
             AND excluded.record #> '{decision,decision,repeated_request}' IS DISTINCT FROM 'true'",
    )
    .bind(ids)
    .bind(accounts)
    .bind(times)
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

/// What is written down under a number since `since`: of one account, where one is named.
pub async fn find_decision(
    connection: &mut PgConnection,
    number: u128,
    account: Option<&AccountId>,
    since: Timestamp,
) -> Result<Option<Record>, DatabaseError> {
    let found: Option<Json<Record>> = sqlx::query_scalar(
        "SELECT record FROM decision
         WHERE id = $1 AND ($2::text IS NULL OR account_id = $2) AND decided_at >= $3
         ORDER BY decided_at DESC LIMIT 1",
    )
    .bind(Uuid::from_u128(number))
    .bind(account.map(AccountId::as_str))
    .bind(to_sql(since))
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|record| record.0))
}

/// Deletes up to `count_max` of those from before an instant, the oldest first, and answers how many.
pub async fn delete_decisions(
    connection: &mut PgConnection,
    before: Timestamp,
    count_max: i64,
) -> Result<u64, DatabaseError> {
    let done = sqlx::query(
        "DELETE FROM decision WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM decision WHERE decided_at < $1 ORDER BY decided_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_sql(before))
    .bind(count_max)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
