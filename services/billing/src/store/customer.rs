//! What an account is called at its payment provider.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::subscription::Provider;

/// Our row about an account at a provider.
pub(crate) struct Customer {
    /// Our id, from which the call's key is derived.
    pub(crate) id: Uuid,
    /// The id there; none until the provider has answered.
    pub(crate) provider_customer_id: Option<String>,
    /// When our row was written.
    pub(crate) created_at: Timestamp,
}

/// Writes our row, unless there is one, and answers with the one that there is.
pub(crate) async fn upsert_customer(
    connection: &mut PgConnection,
    account: &AccountId,
    provider: Provider,
    id: Uuid,
    now: Timestamp,
) -> Result<Customer, DatabaseError> {
    sqlx::query(
        "INSERT INTO payment_customer (id, account_id, provider, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (account_id, provider) DO NOTHING",
    )
    .bind(id)
    .bind(account.as_str())
    .bind(provider.as_str())
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    let (id, provider_customer_id, created_at): (Uuid, Option<String>, OffsetDateTime) = sqlx::query_as(
        "SELECT id, provider_customer_id, created_at FROM payment_customer WHERE account_id = $1 AND provider = $2",
    )
    .bind(account.as_str())
    .bind(provider.as_str())
    .fetch_one(connection)
    .await?;
    Ok(Customer {
        id,
        provider_customer_id,
        created_at: from_sql(created_at),
    })
}

/// Notes what the provider answered. An answer that was noted before stays.
pub(crate) async fn update_provider_customer_id(
    connection: &mut PgConnection,
    account: &AccountId,
    id: Uuid,
    provider_customer_id: &str,
) -> Result<(), DatabaseError> {
    let done = sqlx::query(
        "UPDATE payment_customer SET provider_customer_id = coalesce(provider_customer_id, $3)
         WHERE account_id = $1 AND id = $2",
    )
    .bind(account.as_str())
    .bind(id)
    .bind(provider_customer_id)
    .execute(connection)
    .await?;
    expect_rows(1, done.rows_affected())
}
