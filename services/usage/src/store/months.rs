//! The months of the ledger, and the floor below which there are none any more.

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;

use crate::domain::months::Month;

/// Makes months that are not there, and answers which were not made because they lie below the floor.
pub async fn make_months(
    connection: &mut PgConnection,
    months: &[Month],
) -> Result<Vec<Month>, DatabaseError> {
    let mut starts: Vec<OffsetDateTime> = months.iter().map(|month| to_sql(month.start_at())).collect();
    starts.sort_unstable();
    let refused: Vec<OffsetDateTime> = sqlx::query_scalar(
        "SELECT start_at FROM unnest($1::timestamptz[]) AS start_at WHERE NOT make_ledger_month(start_at)",
    )
    .bind(starts)
    .fetch_all(connection)
    .await?;
    Ok(refused
        .into_iter()
        .map(|start_at| Month::of(from_sql(start_at)))
        .collect())
}

/// Raises the floor to a month, where it is not there yet, and answers where it is. No month below it is made from
/// now on.
pub async fn raise_floor(connection: &mut PgConnection, to: Month) -> Result<Month, DatabaseError> {
    lock_months(connection).await?;
    let floor: OffsetDateTime =
        sqlx::query_scalar("UPDATE ledger_floor SET start_at = greatest(start_at, $1) RETURNING start_at")
            .bind(to_sql(to.start_at()))
            .fetch_one(connection)
            .await?;
    Ok(Month::of(from_sql(floor)))
}

/// Where the floor is.
pub async fn get_floor(connection: &mut PgConnection) -> Result<Month, DatabaseError> {
    let floor: OffsetDateTime = sqlx::query_scalar("SELECT start_at FROM ledger_floor")
        .fetch_one(connection)
        .await?;
    Ok(Month::of(from_sql(floor)))
}

/// The months that are there, in no order, with the table of each.
pub async fn list_months(connection: &mut PgConnection) -> Result<Vec<(Month, String)>, DatabaseError> {
    let rows: Vec<(String, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT child.oid::regclass::text,
                (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz
         FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
         WHERE inhparent = 'ledger'::regclass",
    )
    .fetch_all(connection)
    .await?;
    let months = rows.into_iter().map(|(table, start_at)| {
        let start_at = start_at.ok_or(DatabaseError::Corrupt { what: "month" })?;
        Ok((Month::of(from_sql(start_at)), table))
    });
    months.collect()
}

/// Drops a month by the table that [`list_months`] says, with the corrections of its events. Who writes and reads the ledger waits for it, so it does not wait
/// for long itself: where somebody reads, it fails.
pub async fn drop_month(
    connection: &mut PgConnection,
    month: Month,
    table: &str,
) -> Result<(), DatabaseError> {
    lock_months(connection).await?;
    // The name is the catalog's own, quoted where it must be.
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SET LOCAL lock_timeout = '100ms'; DROP TABLE IF EXISTS {table}"
    )))
    .execute(&mut *connection)
    .await?;
    // Whoever corrects has read the month, so from here on nobody corrects anything in it.
    delete_corrections_before(connection, month.end_at()).await
}

/// Forgets corrections of events before `before`, whose months are gone.
pub async fn delete_corrections_before(
    connection: &mut PgConnection,
    before: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "DELETE FROM correction WHERE event_at < $1 AND event_at < (SELECT start_at FROM ledger_floor)",
    )
    .bind(to_sql(before))
    .execute(connection)
    .await?;
    Ok(())
}

/// As `make_ledger_month` does.
async fn lock_months(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('ledger_months'))")
        .execute(connection)
        .await?;
    Ok(())
}
