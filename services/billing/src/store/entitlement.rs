//! The version of each account's entitlements, and what the quota service took of them.

use jiff::Timestamp;
use octroi_core::{AccountId, Stage};
use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{checked, to_name};

/// Notes that the account's entitlements changed, and answers with their new version. Nobody but the caller
/// pushes them before `push_at`.
pub(crate) async fn upsert_entitlement(
    connection: &mut PgConnection,
    account: &AccountId,
    subscription_id: Uuid,
    stage: Stage,
    push_at: Timestamp,
) -> Result<u64, DatabaseError> {
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO entitlement AS old (account_id, subscription_id, version, stage, push_at)
         VALUES ($1, $2, 1, $3, $4)
         ON CONFLICT (account_id) DO UPDATE
         SET subscription_id = excluded.subscription_id, version = old.version + 1, stage = excluded.stage,
             push_at = excluded.push_at, push_tries = 0
         RETURNING version",
    )
    .bind(account.as_str())
    .bind(subscription_id)
    .bind(to_name(&stage)?)
    .bind(to_sql(push_at))
    .fetch_one(connection)
    .await?;
    checked(u64::try_from(version), "entitlement")
}

/// An account's entitlements and how far they were pushed.
pub(crate) struct Standing {
    /// The subscription that they come from.
    pub(crate) subscription_id: Uuid,
    /// Their version.
    pub(crate) version: u64,
    /// The version that the quota service took.
    pub(crate) version_pushed: u64,
}

/// The account's entitlements; none where it never subscribed.
pub(crate) async fn find_entitlement(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<Standing>, DatabaseError> {
    let row: Option<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT subscription_id, version, version_pushed FROM entitlement WHERE account_id = $1",
    )
    .bind(account.as_str())
    .fetch_optional(connection)
    .await?;
    let Some((subscription_id, version, version_pushed)) = row else {
        return Ok(None);
    };
    Ok(Some(Standing {
        subscription_id,
        version: checked(u64::try_from(version), "entitlement")?,
        version_pushed: checked(u64::try_from(version_pushed), "entitlement")?,
    }))
}

/// Notes that the quota service took a version.
pub(crate) async fn update_version_pushed(
    connection: &mut PgConnection,
    account: &AccountId,
    version: u64,
) -> Result<(), DatabaseError> {
    let done = sqlx::query(
        "UPDATE entitlement SET version_pushed = greatest(version_pushed, $2) WHERE account_id = $1 AND version >= $2",
    )
    .bind(account.as_str())
    .bind(checked(i64::try_from(version), "entitlement")?)
    .execute(connection)
    .await?;
    expect_rows(1, done.rows_affected())
}

/// Claims up to `count` accounts whose entitlements are to be pushed. Who claims one has it for 5 s, and
/// twice as long at every further try, up to 5 minutes: the claim is the pause as well.
pub(crate) async fn claim_entitlements(
    connection: &mut PgConnection,
    now: Timestamp,
    count: i64,
) -> Result<Vec<AccountId>, DatabaseError> {
    let rows: Vec<String> = sqlx::query_scalar(
        "UPDATE entitlement
         SET push_tries = push_tries + 1, push_at = $1 + least(5 * 2 ^ least(push_tries, 10), 300) * interval '1 second'
         WHERE account_id = ANY (ARRAY(
             SELECT account_id FROM entitlement WHERE version_pushed < version AND push_at <= $1
             ORDER BY push_at LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING account_id",
    )
    .bind(to_sql(now))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|account| checked(AccountId::parse(account), "entitlement"))
        .collect()
}
