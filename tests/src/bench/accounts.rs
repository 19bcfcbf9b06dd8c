//! Accounts of a bench: they exist from the start and have done nothing yet, as signing up leaves them.

use anyhow::Result;
use sqlx::PgConnection;

const ACCOUNT: &str = "INSERT INTO account.account (account_id, display_name, state, created_at)
     SELECT $1 || '-' || number, 'Bench', 'active', now() FROM generate_series(0, $2 - 1) AS number";
const SETTINGS: &str = "INSERT INTO account.account_settings (account_id, zone, language, updated_at)
     SELECT $1 || '-' || number, 'UTC', 'en', now() FROM generate_series(0, $2 - 1) AS number";

/// The names of accounts.
pub(super) fn names(accounts: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{accounts}-{number}")).collect()
}

/// Makes accounts with these [`names`], as a superuser.
pub(super) async fn create(session: &mut PgConnection, accounts: &str, count: u32) -> Result<()> {
    for insert in [ACCOUNT, SETTINGS] {
        let made = sqlx::query(insert).bind(accounts).bind(i64::from(count));
        made.execute(&mut *session).await?;
    }
    sqlx::raw_sql("ANALYZE account.account; ANALYZE account.account_settings")
        .execute(session)
        .await?;
    Ok(())
}
