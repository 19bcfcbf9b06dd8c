//! Accounts and what they chose.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::PgConnection;

use super::{AccountRow, account_columns, corrupt};
use crate::{domain::account::Account, error::Error};

/// Adds the account; false where its id is there already, which then stays as it is.
pub(crate) async fn insert_account(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<bool, DatabaseError> {
    let inserted = sqlx::query(
        "INSERT INTO account (account_id, display_name, state, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (account_id) DO NOTHING",
    )
    .bind(account.account_id.as_str())
    .bind(&account.display_name)
    .bind(account.state.as_str())
    .bind(to_sql(account.created_at))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let settings = sqlx::query(
        "INSERT INTO account_settings (account_id, zone, language, updated_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(account.account_id.as_str())
    .bind(&account.settings.zone)
    .bind(account.settings.language.as_str())
    .bind(to_sql(account.created_at))
    .execute(connection)
    .await?;
    expect_rows(1, settings.rows_affected())?;
    Ok(true)
}

/// The account of this id.
pub(crate) async fn find_account(
    connection: &mut PgConnection,
    account_id: &AccountId,
) -> Result<Option<Account>, DatabaseError> {
    let row: Option<AccountRow> = sqlx::query_as(concat!(
        "SELECT ",
        account_columns!(),
        " FROM account a JOIN account_settings s USING (account_id) WHERE a.account_id = $1"
    ))
    .bind(account_id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Account::try_from).transpose()
}

/// Those of these accounts that exist.
pub(crate) async fn list_accounts(
    connection: &mut PgConnection,
    accounts: &[AccountId],
) -> Result<Vec<Account>, DatabaseError> {
    let names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let rows: Vec<AccountRow> = sqlx::query_as(concat!(
        "SELECT ",
        account_columns!(),
        " FROM account a JOIN account_settings s USING (account_id) WHERE a.account_id = ANY($1)"
    ))
    .bind(names)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Account::try_from).collect()
}

/// The account of this id, which must be there.
pub(crate) async fn get_account(
    connection: &mut PgConnection,
    account_id: &AccountId,
) -> Result<Account, Error> {
    find_account(connection, account_id)
        .await?
        .ok_or_else(|| Error::AccountNotFound(account_id.clone()))
}

/// The account of this id, which nobody else changes until the transaction ends.
pub(crate) async fn lock_account(
    connection: &mut PgConnection,
    account_id: &AccountId,
) -> Result<Account, Error> {
    let row: Option<AccountRow> = sqlx::query_as(concat!(
        "SELECT ",
        account_columns!(),
        " FROM account a JOIN account_settings s USING (account_id) WHERE a.account_id = $1 FOR NO KEY UPDATE"
    ))
    .bind(account_id.as_str())
    .fetch_optional(connection)
    .await
    .map_err(DatabaseError::from)?;
    let account = row.map(Account::try_from).transpose()?;
    account.ok_or_else(|| Error::AccountNotFound(account_id.clone()))
}

/// Writes name, zone and language, and answers the version of the zone: another zone is another version.
pub(crate) async fn update_account(
    connection: &mut PgConnection,
    account: &Account,
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let updated = sqlx::query("UPDATE account SET display_name = $2 WHERE account_id = $1")
        .bind(account.account_id.as_str())
        .bind(&account.display_name)
        .execute(&mut *connection)
        .await?;
    expect_rows(1, updated.rows_affected())?;
    let version: i64 = sqlx::query_scalar(
        "UPDATE account_settings SET zone = $2, zone_version = zone_version + (zone <> $2)::int, language = $3,
                updated_at = $4
         WHERE account_id = $1 RETURNING zone_version",
    )
    .bind(account.account_id.as_str())
    .bind(&account.settings.zone)
    .bind(account.settings.language.as_str())
    .bind(to_sql(now))
    .fetch_one(connection)
    .await?;
    u64::try_from(version).map_err(|_| corrupt("version of a zone"))
}
