//! SQL, and nothing else. Row-level security shows a transaction the rows of its scope only; where the
//! scope is all accounts, the statements name the account themselves or are meant for all.

mod email;

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::{FromRow, PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::email::{Delivery, NewEmail, claim_emails, find_emails, insert_email, update_email_tried};
use crate::domain::{Facts, Kind, MailingEnd, Notice, Severity};

/// Where a page goes on: after the row of this time and id, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When the row was written.
    pub created_at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// A notice to be written.
#[derive(Debug)]
pub struct NewNotice<'a> {
    /// Whose.
    pub account: &'a AccountId,
    /// What it is about.
    pub kind: Kind,
    /// The same for every telling of the same thing.
    pub dedupe_key: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// What its text is made of.
    pub facts: Facts,
}

/// Writes a notice; none where the same was told before.
///
/// # Errors
/// [`DatabaseError`].
pub async fn insert_notice(
    connection: &mut PgConnection,
    notice: NewNotice<'_>,
    now: Timestamp,
) -> Result<Option<Uuid>, DatabaseError> {
    let id = sqlx::query_scalar(
        "INSERT INTO notice (account_id, kind, dedupe_key, severity, facts, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (account_id, kind, dedupe_key) DO NOTHING RETURNING notice_id",
    )
    .bind(notice.account.as_str())
    .bind(notice.kind.as_str())
    .bind(notice.dedupe_key)
    .bind(notice.severity.as_str())
    .bind(Json(notice.facts))
    .bind(to_sql(now))
    .fetch_optional(connection)
    .await?;
    Ok(id)
}

#[derive(FromRow)]
struct NoticeRow {
    notice_id: Uuid,
    account_id: String,
    kind: String,
    severity: String,
    facts: Json<Facts>,
    created_at: OffsetDateTime,
    read_at: Option<OffsetDateTime>,
}

impl TryFrom<NoticeRow> for Notice {
    type Error = DatabaseError;

    fn try_from(row: NoticeRow) -> Result<Self, DatabaseError> {
        let corrupt = || DatabaseError::Corrupt { what: "notice" };
        Ok(Self {
            id: row.notice_id,
            account: AccountId::parse(&row.account_id).map_err(|_| corrupt())?,
            kind: Kind::from_name(&row.kind).ok_or_else(corrupt)?,
            severity: Severity::from_name(&row.severity).ok_or_else(corrupt)?,
            facts: row.facts.0,
            created_at: from_sql(row.created_at),
            read_at: row.read_at.map(from_sql),
        })
    }
}

/// Up to `count` notices, newest first.
///
/// # Errors
/// [`DatabaseError`].
pub async fn find_notices(
    connection: &mut PgConnection,
    account: &AccountId,
    unread_only: bool,
    after: Option<Cursor>,
    count: i64,
) -> Result<Vec<Notice>, DatabaseError> {
    // Two texts, because one with a condition would not use the index of those that were not read.
    let statement = if unread_only {
        "SELECT notice_id, account_id, kind, severity, facts, created_at, read_at FROM notice
         WHERE account_id = $1 AND read_at IS NULL AND ($2::timestamptz IS NULL OR (created_at, notice_id) < ($2, $3))
         ORDER BY created_at DESC, notice_id DESC LIMIT $4"
    } else {
        "SELECT notice_id, account_id, kind, severity, facts, created_at, read_at FROM notice
         WHERE account_id = $1 AND ($2::timestamptz IS NULL OR (created_at, notice_id) < ($2, $3))
         ORDER BY created_at DESC, notice_id DESC LIMIT $4"
    };
    let rows: Vec<NoticeRow> = sqlx::query_as(statement)
        .bind(account.as_str())
        .bind(after.map(|cursor| to_sql(cursor.created_at)))
        .bind(after.map(|cursor| cursor.id))
        .bind(count)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(Notice::try_from).collect()
}

/// How many notices an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// That were not read.
    pub unread: u64,
    /// In all.
    pub total: u64,
}

/// Counts an account's notices.
///
/// # Errors
/// [`DatabaseError`].
pub async fn count_notices(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Counts, DatabaseError> {
    let (unread, total): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE read_at IS NULL), count(*) FROM notice WHERE account_id = $1",
    )
    .bind(account.as_str())
    .fetch_one(connection)
    .await?;
    Ok(Counts {
        unread: unread.unsigned_abs(),
        total: total.unsigned_abs(),
    })
}

/// Those of `ids` that are notices of the account, locked. In one order, so that two who mark the same
/// notices do not wait for each other.
///
/// # Errors
/// [`DatabaseError`].
pub async fn lock_notices(
    connection: &mut PgConnection,
    account: &AccountId,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, DatabaseError> {
    let found = sqlx::query_scalar(
        "SELECT notice_id FROM notice WHERE account_id = $1 AND notice_id = ANY($2) ORDER BY notice_id FOR UPDATE",
    )
    .bind(account.as_str())
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(found)
}

/// Marks notices as read, and answers how many were not.
///
/// # Errors
/// [`DatabaseError`].
pub async fn update_notices_read(
    connection: &mut PgConnection,
    account: &AccountId,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let done = sqlx::query(
        "UPDATE notice SET read_at = $3 WHERE account_id = $1 AND notice_id = ANY($2) AND read_at IS NULL",
    )
    .bind(account.as_str())
    .bind(ids)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that a notice also goes out by e-mail, unless the account had `count_max` such notices since
/// `since`. Answers whether it does.
///
/// # Errors
/// [`DatabaseError`].
pub async fn insert_mailing(
    connection: &mut PgConnection,
    notice_id: Uuid,
    account: &AccountId,
    (since, count_max): (Timestamp, u32),
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    // One account's mailings are counted one after the other, or all would see the same count.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('mailing ' || $1, 0))")
        .bind(account.as_str())
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query(
        "INSERT INTO mailing (notice_id, account_id, due_at, created_at)
         SELECT $1, $2, $3, $3 WHERE (SELECT count(*) FROM mailing WHERE account_id = $2 AND created_at > $4) < $5",
    )
    .bind(notice_id)
    .bind(account.as_str())
    .bind(to_sql(now))
    .bind(to_sql(since))
    .bind(i64::from(count_max))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A notice that waits for the addresses of its account's owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailing {
    /// The notice.
    pub notice_id: Uuid,
    /// Whose.
    pub account: AccountId,
    /// What it is about.
    pub kind: Kind,
    /// What its text is made of.
    pub facts: Facts,
    /// How often it was tried, this time included.
    pub tries: u32,
    /// When it was written.
    pub created_at: Timestamp,
}

#[derive(FromRow)]
struct MailingRow {
    notice_id: Uuid,
    account_id: String,
    kind: String,
    facts: Json<Facts>,
    tries: i32,
    created_at: OffsetDateTime,
}

impl TryFrom<MailingRow> for Mailing {
    type Error = DatabaseError;

    fn try_from(row: MailingRow) -> Result<Self, DatabaseError> {
        let corrupt = || DatabaseError::Corrupt { what: "mailing" };
        Ok(Self {
            notice_id: row.notice_id,
            account: AccountId::parse(&row.account_id).map_err(|_| corrupt())?,
            kind: Kind::from_name(&row.kind).ok_or_else(corrupt)?,
            facts: row.facts.0,
            tries: row.tries.unsigned_abs(),
            created_at: from_sql(row.created_at),
        })
    }
}

/// Claims up to `count` mailings that are due; nobody else takes them up before `until`.
///
/// # Errors
/// [`DatabaseError`].
pub async fn claim_mailings(
    connection: &mut PgConnection,
    count: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Mailing>, DatabaseError> {
    let rows: Vec<MailingRow> = sqlx::query_as(
        "WITH claimed AS (
             UPDATE mailing SET due_at = $2, tries = tries + 1
             WHERE notice_id = ANY (ARRAY(
                 SELECT notice_id FROM mailing WHERE state = 'unaddressed' AND due_at <= $1
                 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED))
             RETURNING notice_id, account_id, tries, created_at)
         SELECT c.notice_id, c.account_id, n.kind, n.facts, c.tries, c.created_at
         FROM claimed AS c
         CROSS JOIN LATERAL (SELECT kind, facts FROM notice AS n WHERE n.notice_id = c.notice_id OFFSET 0) AS n",
    )
    .bind(to_sql(now))
    .bind(to_sql(until))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Mailing::try_from).collect()
}

/// Lets a mailing wait until `due_at`, where nobody has addressed or claimed it in the meantime.
///
/// # Errors
/// [`DatabaseError`].
pub async fn update_mailing_due(
    connection: &mut PgConnection,
    notice_id: Uuid,
    tries: u32,
    due_at: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE mailing SET due_at = $3 WHERE notice_id = $1 AND tries = $2 AND state = 'unaddressed'",
    )
    .bind(notice_id)
    .bind(i32::try_from(tries).unwrap_or(i32::MAX))
    .bind(to_sql(due_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a mailing; answers whether this was the first to end it.
///
/// # Errors
/// [`DatabaseError`].
pub async fn update_mailing_ended(
    connection: &mut PgConnection,
    notice_id: Uuid,
    end: MailingEnd,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query("UPDATE mailing SET state = $2 WHERE notice_id = $1 AND state = 'unaddressed'")
        .bind(notice_id)
        .bind(end.as_str())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
