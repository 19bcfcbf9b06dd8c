//! Commits that the rollups do not have yet, and how far back the oldest lies.

use jiff::{SignedDuration, Timestamp};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Notes the commit of this transaction, which `message_id` tells the rollups of, and counts what it has that they lack: so many
/// events or corrections, as [`count_lag`](super::count_lag) does. It comes last.
pub async fn insert_pending(
    connection: &mut PgConnection,
    (ledger_transaction, message_id): (u64, Uuid),
    lacking: usize,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "WITH pending AS (
             INSERT INTO rollup_pending (ledger_transaction, message_id, recorded_at) VALUES ($1, $2, $3))
         UPDATE rollup_lag SET events = events + $4 WHERE slot = pg_backend_pid() % 256",
    )
    .bind(i64::try_from(ledger_transaction).map_err(corrupt("transaction"))?)
    .bind(message_id)
    .bind(to_sql(now))
    .bind(i64::try_from(lacking).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// The rollups have the commits.
pub async fn delete_pending(
    connection: &mut PgConnection,
    ledger_transactions: &[u64],
) -> Result<(), DatabaseError> {
    let transactions: Result<Vec<i64>, _> = ledger_transactions
        .iter()
        .map(|one| i64::try_from(*one))
        .collect();
    sqlx::query("DELETE FROM rollup_pending WHERE ledger_transaction = ANY($1)")
        .bind(transactions.map_err(corrupt("transaction"))?)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets commits that programs of the version before have added to the rollups: they leave them here.
pub async fn delete_added(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query(
        "DELETE FROM rollup_pending AS p WHERE EXISTS (
             SELECT 1 FROM inbox WHERE consumer = 'usage.rollup' AND message_id = p.message_id)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When the oldest of the commits was recorded that the rollups do not have yet, and for how long the oldest transaction has
/// run that may yet commit.
pub async fn find_oldest(
    connection: &mut PgConnection,
) -> Result<(Option<Timestamp>, SignedDuration), DatabaseError> {
    // What runs is looked at before what waits: whatever commits in between waits then. Whoever is to commit writes at once; what
    // has written nothing for ten seconds only reads, as long reports do.
    let age_us: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start) * 1000000), 0)::bigint
         FROM pg_stat_activity
         WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
           AND (backend_xid IS NOT NULL OR xact_start > clock_timestamp() - interval '10 seconds')",
    )
    .fetch_one(&mut *connection)
    .await?;
    let oldest: Option<OffsetDateTime> = sqlx::query_scalar("SELECT min(recorded_at) FROM rollup_pending")
        .fetch_one(connection)
        .await?;
    Ok((oldest.map(from_sql), SignedDuration::from_micros(age_us)))
}
