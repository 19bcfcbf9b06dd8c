//! API keys. A key is found by the keyed hash of its secret, whichever account it is of.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::corrupt;
use crate::domain::{
    api_key::{self, ApiKey, Cursor, Scope},
    id::KeyId,
};

/// The keyed hash of a secret.
pub(crate) type SecretHash = [u8; 32];

/// The columns of an [`ApiKeyRow`], from `api_key k`.
macro_rules! columns {
    () => {
        "k.key_id, k.account_id, k.label, k.prefix, k.scopes, k.created_at, k.revoked_at"
    };
}

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    key_id: String,
    account_id: String,
    label: String,
    prefix: String,
    scopes: Vec<String>,
    created_at: OffsetDateTime,
    revoked_at: Option<OffsetDateTime>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = DatabaseError;

    fn try_from(row: ApiKeyRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            key_id: KeyId::parse(&row.key_id).ok_or(corrupt("key id"))?,
            account_id: AccountId::parse(&row.account_id).map_err(|_| corrupt("account id"))?,
            label: row.label,
            prefix: row.prefix,
            scopes: api_key::scopes(&row.scopes).map_err(|_| corrupt("scope"))?,
            created_at: from_sql(row.created_at),
            revoked_at: row.revoked_at.map(from_sql),
        })
    }
}

/// Adds a key.
pub(crate) async fn insert_api_key(
    connection: &mut PgConnection,
    key: &ApiKey,
    secret_hash: &SecretHash,
) -> Result<(), DatabaseError> {
    let scopes: Vec<&str> = key.scopes.iter().copied().map(Scope::as_str).collect();
    let inserted = sqlx::query(
        "INSERT INTO api_key (key_id, account_id, label, prefix, secret_hash, scopes, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(key.key_id.as_str())
    .bind(key.account_id.as_str())
    .bind(&key.label)
    .bind(&key.prefix)
    .bind(secret_hash.as_slice())
    .bind(scopes)
    .bind(to_sql(key.created_at))
    .execute(connection)
    .await?;
    expect_rows(1, inserted.rows_affected())
}

/// The account's keys, newest first, after `after`.
pub(crate) async fn list_api_keys(
    connection: &mut PgConnection,
    account_id: &AccountId,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<ApiKey>, DatabaseError> {
    let rows: Vec<ApiKeyRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM api_key k
         WHERE k.account_id = $1 AND ($2::timestamptz IS NULL OR (k.created_at, k.key_id) < ($2, $3))
         ORDER BY k.created_at DESC, k.key_id DESC LIMIT $4"
    ))
    .bind(account_id.as_str())
    .bind(after.map(|cursor| to_sql(cursor.created_at)))
    .bind(after.map(|cursor| cursor.key_id.as_str()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// The account's key of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_api_key(
    connection: &mut PgConnection,
    account_id: &AccountId,
    key_id: &KeyId,
) -> Result<Option<ApiKey>, DatabaseError> {
    let row: Option<ApiKeyRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM api_key k WHERE k.account_id = $1 AND k.key_id = $2 FOR UPDATE"
    ))
    .bind(account_id.as_str())
    .bind(key_id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(ApiKey::try_from).transpose()
}

/// Ends a key that works.
pub(crate) async fn update_api_key_revoked(
    connection: &mut PgConnection,
    account_id: &AccountId,
    key_id: &KeyId,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let updated = sqlx::query(
        "UPDATE api_key SET revoked_at = $3 WHERE account_id = $1 AND key_id = $2 AND revoked_at IS NULL",
    )
    .bind(account_id.as_str())
    .bind(key_id.as_str())
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    expect_rows(1, updated.rows_affected())
}

/// The key with this secret, where it works and its account is in use.
pub(crate) async fn find_working_api_key(
    connection: &mut PgConnection,
    secret_hash: &SecretHash,
) -> Result<Option<ApiKey>, DatabaseError> {
    let row: Option<ApiKeyRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM api_key k JOIN account a USING (account_id)
         WHERE k.secret_hash = $1 AND k.revoked_at IS NULL AND a.state = 'active'"
    ))
    .bind(secret_hash.as_slice())
    .fetch_optional(connection)
    .await?;
    row.map(ApiKey::try_from).transpose()
}
