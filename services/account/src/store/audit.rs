//! The audit log. Rows are added and never changed.

use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::PgConnection;

use crate::domain::audit::AuditEntry;

/// Writes one line.
pub(crate) async fn insert_audit_entry(
    connection: &mut PgConnection,
    entry: &AuditEntry,
) -> Result<(), DatabaseError> {
    let details: serde_json::Map<String, serde_json::Value> = entry
        .details
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
        .collect();
    let inserted = sqlx::query(
        "INSERT INTO audit_entry (account_id, action, caller, actor, subject, details, occurred_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(entry.account_id.as_str())
    .bind(entry.action.as_str())
    .bind(&entry.actor.caller)
    .bind(&entry.actor.on_behalf_of)
    .bind(&entry.subject)
    .bind(serde_json::Value::Object(details))
    .bind(to_sql(entry.occurred_at))
    .execute(connection)
    .await?;
    expect_rows(1, inserted.rows_affected())
}
