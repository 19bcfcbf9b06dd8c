//! The months of the ledger.

use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;

use crate::domain::months::Month;

/// Makes months that are not there.
pub async fn make_months(connection: &mut PgConnection, months: &[Month]) -> Result<(), DatabaseError> {
    let starts: Vec<OffsetDateTime> = months.iter().map(|month| to_sql(month.start_at())).collect();
    sqlx::query(
        "SELECT make_ledger_month(start_at) FROM unnest($1::timestamptz[]) AS start_at ORDER BY start_at",
    )
    .bind(starts)
    .execute(connection)
    .await?;
    Ok(())
}

/// The months that are there, in no order.
pub async fn list_months(connection: &mut PgConnection) -> Result<Vec<(Month, String)>, DatabaseError> {
    let rows: Vec<(String, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT child.oid::regclass::text,
                (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz
         FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
         WHERE inhparent = 'usage_event'::regclass",
    )
    .fetch_all(connection)
    .await?;
    let months = rows.into_iter().map(|(table, start_at)| {
        let start_at = start_at.ok_or(DatabaseError::Corrupt { what: "month" })?;
        Ok((Month::of(from_sql(start_at)), table))
    });
    months.collect()
}

/// Drops a month by the name that [`list_months`] says. Commits and readers wait for it for an instant.
pub async fn drop_month(connection: &mut PgConnection, table: &str) -> Result<(), DatabaseError> {
    // The name is the catalog's own, quoted where it must be.
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {table}")))
        .execute(connection)
        .await?;
    Ok(())
}
