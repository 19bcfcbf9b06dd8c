//! How often signing in failed, and how often somebody signed up. No account's data: the addresses may belong to nobody.

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::corrupt;
use crate::domain::throttle::{Count, Subject};

/// What a try counts against, with the keyed hash of the address.
pub(crate) type Key = (Subject, [u8; 32]);

/// The count of one subject, which no other try changes until the transaction ends; none where nothing
/// failed yet. A row is made first, so that two first tries wait for each other too.
pub(crate) async fn lock_count(
    connection: &mut PgConnection,
    (subject, key_hash): &Key,
    now: Timestamp,
) -> Result<Option<Count>, DatabaseError> {
    sqlx::query(
        "INSERT INTO sign_in_throttle (subject, key_hash, failures, failed_at, open_at) VALUES ($1, $2, 0, $3, $3)
         ON CONFLICT (subject, key_hash) DO NOTHING",
    )
    .bind(subject.as_str())
    .bind(key_hash.as_slice())
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    let row: Option<(i32, OffsetDateTime, OffsetDateTime)> = sqlx::query_as(
        "SELECT failures, failed_at, open_at FROM sign_in_throttle WHERE subject = $1 AND key_hash = $2 FOR UPDATE",
    )
    .bind(subject.as_str())
    .bind(key_hash.as_slice())
    .fetch_optional(connection)
    .await?;
    let Some((failures, failed_at, open_at)) = row else {
        return Ok(None);
    };
    let failures = u32::try_from(failures).map_err(|_| corrupt("count of failures"))?;
    Ok(Some(Count {
        failures,
        failed_at: from_sql(failed_at),
        open_at: from_sql(open_at),
    }))
}

/// Writes the count of one subject.
pub(crate) async fn upsert_count(
    connection: &mut PgConnection,
    (subject, key_hash): &Key,
    count: Count,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO sign_in_throttle (subject, key_hash, failures, failed_at, open_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (subject, key_hash) DO UPDATE SET failures = $3, failed_at = $4, open_at = $5",
    )
    .bind(subject.as_str())
    .bind(key_hash.as_slice())
    .bind(i32::try_from(count.failures).unwrap_or(i32::MAX))
    .bind(to_sql(count.failed_at))
    .bind(to_sql(count.open_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the count of one subject.
pub(crate) async fn delete_count(
    connection: &mut PgConnection,
    (subject, key_hash): &Key,
) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM sign_in_throttle WHERE subject = $1 AND key_hash = $2")
        .bind(subject.as_str())
        .bind(key_hash.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes one failure back, and the delay that it brought.
pub(crate) async fn update_count_less_one(
    connection: &mut PgConnection,
    (subject, key_hash): &Key,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE sign_in_throttle SET failures = greatest(failures - 1, 0), open_at = least(open_at, $3)
         WHERE subject = $1 AND key_hash = $2",
    )
    .bind(subject.as_str())
    .bind(key_hash.as_slice())
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes at most `limit` counts whose last failure is before `before`; how many.
pub(crate) async fn delete_old_counts(
    connection: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM sign_in_throttle WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM sign_in_throttle WHERE failed_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_sql(before))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
