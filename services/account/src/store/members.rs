//! Members and the hashes of their passwords.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::PgConnection;

use super::{AccountRow, MemberRow, account_columns, member_columns};
use crate::domain::{account::Account, email::Email, id::MemberId, member::Member};

/// What signing in needs to know of whoever has an address.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) member: Member,
    pub(crate) account: Account,
    /// A hash in PHC form.
    pub(crate) password_hash: String,
}

#[derive(sqlx::FromRow)]
struct CredentialsRow {
    #[sqlx(flatten)]
    member: MemberRow,
    #[sqlx(flatten)]
    account: AccountRow,
    hash: String,
}

/// Adds the member; false where the address belongs to a member of any account.
pub(crate) async fn insert_member(
    connection: &mut PgConnection,
    member: &Member,
) -> Result<bool, DatabaseError> {
    let inserted = sqlx::query(
        "INSERT INTO member (member_id, account_id, email, email_normalized, display_name, role, language, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (email_normalized) DO NOTHING",
    )
    .bind(member.member_id.as_str())
    .bind(member.account_id.as_str())
    .bind(member.email.as_given())
    .bind(member.email.normalized())
    .bind(&member.display_name)
    .bind(member.role.as_str())
    .bind(member.language.as_str())
    .bind(to_sql(member.created_at))
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Keeps the hash of a new member's password.
pub(crate) async fn insert_password(
    connection: &mut PgConnection,
    member: &Member,
    password_hash: &str,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let inserted =
        sqlx::query("INSERT INTO password (member_id, account_id, hash, changed_at) VALUES ($1, $2, $3, $4)")
            .bind(member.member_id.as_str())
            .bind(member.account_id.as_str())
            .bind(password_hash)
            .bind(to_sql(now))
            .execute(connection)
            .await?;
    expect_rows(1, inserted.rows_affected())
}

/// Whoever has this address, in any account.
pub(crate) async fn find_credentials(
    connection: &mut PgConnection,
    email: &Email,
) -> Result<Option<Credentials>, DatabaseError> {
    let row: Option<CredentialsRow> = sqlx::query_as(concat!(
        "SELECT ",
        member_columns!(),
        ", ",
        account_columns!(),
        ", p.hash
         FROM member m
         JOIN password p USING (account_id, member_id)
         JOIN account a USING (account_id)
         JOIN account_settings s USING (account_id)
         WHERE m.email_normalized = $1"
    ))
    .bind(email.normalized())
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Credentials {
            member: row.member.try_into()?,
            account: row.account.try_into()?,
            password_hash: row.hash,
        })
    })
    .transpose()
}

/// The member of this account and id.
pub(crate) async fn find_member(
    connection: &mut PgConnection,
    account_id: &AccountId,
    member_id: &MemberId,
) -> Result<Option<Member>, DatabaseError> {
    let row: Option<MemberRow> = sqlx::query_as(concat!(
        "SELECT ",
        member_columns!(),
        " FROM member m WHERE m.account_id = $1 AND m.member_id = $2"
    ))
    .bind(account_id.as_str())
    .bind(member_id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Member::try_from).transpose()
}

/// The member of this account and address.
pub(crate) async fn find_member_by_email(
    connection: &mut PgConnection,
    account_id: &AccountId,
    email: &Email,
) -> Result<Option<Member>, DatabaseError> {
    let row: Option<MemberRow> = sqlx::query_as(concat!(
        "SELECT ",
        member_columns!(),
        " FROM member m WHERE m.account_id = $1 AND m.email_normalized = $2"
    ))
    .bind(account_id.as_str())
    .bind(email.normalized())
    .fetch_optional(connection)
    .await?;
    row.map(Member::try_from).transpose()
}

/// The account's members by id, after `after`.
pub(crate) async fn list_members(
    connection: &mut PgConnection,
    account_id: &AccountId,
    after: Option<&MemberId>,
    limit: i64,
) -> Result<Vec<Member>, DatabaseError> {
    let rows: Vec<MemberRow> = sqlx::query_as(concat!(
        "SELECT ",
        member_columns!(),
        " FROM member m WHERE m.account_id = $1 AND m.member_id > $2 ORDER BY m.member_id LIMIT $3"
    ))
    .bind(account_id.as_str())
    .bind(after.map_or("", MemberId::as_str))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Member::try_from).collect()
}
