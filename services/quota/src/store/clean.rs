//! What was kept for long enough.

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, to_sql};
use sqlx::PgConnection;

/// Deletes holds that ended, and notes of what windows were told at once, of before an instant: the oldest, so many of
/// each at the most. Answers how many went.
pub async fn delete_old(
    connection: &mut PgConnection,
    before: Timestamp,
    at_once: i64,
) -> Result<u64, DatabaseError> {
    let holds = sqlx::query(
        "DELETE FROM slice WHERE id = ANY (ARRAY(
             SELECT id FROM slice WHERE state = 'sealed' AND hard_end_at < $1 ORDER BY hard_end_at LIMIT $2))",
    )
    .bind(to_sql(before))
    .bind(at_once)
    .execute(&mut *connection)
    .await?;
    let applied = sqlx::query(
        "DELETE FROM applied_event WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM applied_event WHERE applied_at < $1 ORDER BY applied_at LIMIT $2))",
    )
    .bind(to_sql(before))
    .bind(at_once)
    .execute(connection)
    .await?;
    Ok(holds.rows_affected() + applied.rows_affected())
}
