//! Who is signed in. A session is found by the hash of its token, whichever account it is of.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{AccountRow, MemberRow, account_columns, corrupt, member_columns};
use crate::domain::{
    id::MemberId,
    member::Member,
    session::{Lifetime, SignedIn},
};

/// The SHA-256 of a session's token.
pub(crate) type TokenHash = [u8; 32];

#[derive(sqlx::FromRow)]
struct SignedInRow {
    #[sqlx(flatten)]
    member: MemberRow,
    #[sqlx(flatten)]
    account: AccountRow,
    seen_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

/// Adds a session.
pub(crate) async fn insert_session(
    connection: &mut PgConnection,
    token_hash: &TokenHash,
    member: &Member,
    lifetime: Lifetime,
) -> Result<(), DatabaseError> {
    let inserted = sqlx::query(
        "INSERT INTO session (token_sha256, account_id, member_id, created_at, seen_at, expires_at)
         VALUES ($1, $2, $3, $4, $4, $5)",
    )
    .bind(token_hash.as_slice())
    .bind(member.account_id.as_str())
    .bind(member.member_id.as_str())
    .bind(to_sql(lifetime.seen_at))
    .bind(to_sql(lifetime.expires_at))
    .execute(connection)
    .await?;
    expect_rows(1, inserted.rows_affected())
}

/// Who the session stands for, ended or not.
pub(crate) async fn find_session(
    connection: &mut PgConnection,
    token_hash: &TokenHash,
) -> Result<Option<SignedIn>, DatabaseError> {
    let row: Option<SignedInRow> = sqlx::query_as(concat!(
        "SELECT ",
        member_columns!(),
        ", ",
        account_columns!(),
        ", t.seen_at, t.expires_at
         FROM session t
         JOIN member m USING (account_id, member_id)
         JOIN account a USING (account_id)
         JOIN account_settings s USING (account_id)
         WHERE t.token_sha256 = $1"
    ))
    .bind(token_hash.as_slice())
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(SignedIn {
            member: row.member.try_into()?,
            account: row.account.try_into()?,
            lifetime: Lifetime {
                seen_at: from_sql(row.seen_at),
                expires_at: from_sql(row.expires_at),
            },
        })
    })
    .transpose()
}

/// Notes that the session was used. One that was ended meanwhile stays ended.
pub(crate) async fn update_session_seen(
    connection: &mut PgConnection,
    token_hash: &TokenHash,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE session SET seen_at = greatest(seen_at, $2) WHERE token_sha256 = $1")
        .bind(token_hash.as_slice())
        .bind(to_sql(now))
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the session; whose it was, where there was one.
pub(crate) async fn delete_session(
    connection: &mut PgConnection,
    token_hash: &TokenHash,
) -> Result<Option<(AccountId, MemberId)>, DatabaseError> {
    let row: Option<(String, String)> =
        sqlx::query_as("DELETE FROM session WHERE token_sha256 = $1 RETURNING account_id, member_id")
            .bind(token_hash.as_slice())
            .fetch_optional(connection)
            .await?;
    row.map(|(account, member)| {
        let account = AccountId::parse(&account).map_err(|_| corrupt("account id"))?;
        Ok((account, MemberId::parse(&member).ok_or(corrupt("member id"))?))
    })
    .transpose()
}

/// Deletes at most `limit` sessions that have ended by `now` or were last seen by `idle_since`; how many.
pub(crate) async fn delete_ended_sessions(
    connection: &mut PgConnection,
    now: Timestamp,
    idle_since: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM session WHERE token_sha256 = ANY (ARRAY(
             SELECT token_sha256 FROM session WHERE expires_at <= $1 OR seen_at <= $2 LIMIT $3))",
    )
    .bind(to_sql(now))
    .bind(to_sql(idle_since))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
