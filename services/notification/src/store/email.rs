//! E-mails and what became of them.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, expect_rows, from_sql, to_sql};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Cursor;
use crate::domain::{Email, EmailStatus, Language, Letter};

/// An e-mail to be written.
#[derive(Debug)]
pub struct NewEmail {
    /// The member who gets it.
    pub member_id: String,
    /// The address.
    pub recipient: String,
    /// The language of the letter.
    pub language: Language,
    /// What it says.
    pub letter: Letter,
}

/// Queues an e-mail; a member gets one of each notice.
///
/// # Errors
/// [`DatabaseError`].
pub async fn insert_email(
    connection: &mut PgConnection,
    notice_id: Uuid,
    account: &AccountId,
    email: NewEmail,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO email (account_id, notice_id, member_id, recipient, language, subject, html, text, due_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (notice_id, member_id) DO NOTHING",
    )
    .bind(account.as_str())
    .bind(notice_id)
    .bind(email.member_id)
    .bind(email.recipient)
    .bind(email.language.as_str())
    .bind(email.letter.subject)
    .bind(email.letter.html)
    .bind(email.letter.text)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct EmailRow {
    email_id: Uuid,
    account_id: String,
    recipient: String,
    subject: String,
    html: String,
    text: String,
    status: String,
    tries: i32,
    created_at: OffsetDateTime,
}

impl TryFrom<EmailRow> for Email {
    type Error = DatabaseError;

    fn try_from(row: EmailRow) -> Result<Self, DatabaseError> {
        let corrupt = || DatabaseError::Corrupt { what: "e-mail" };
        Ok(Self {
            id: row.email_id,
            account: AccountId::parse(&row.account_id).map_err(|_| corrupt())?,
            recipient: row.recipient,
            letter: Letter {
                subject: row.subject,
                html: row.html,
                text: row.text,
            },
            status: EmailStatus::from_name(&row.status).ok_or_else(corrupt)?,
            tries: row.tries.unsigned_abs(),
            created_at: from_sql(row.created_at),
        })
    }
}

/// Up to `count` e-mails, newest first.
///
/// # Errors
/// [`DatabaseError`].
pub async fn find_emails(
    connection: &mut PgConnection,
    account: &AccountId,
    after: Option<Cursor>,
    count: i64,
) -> Result<Vec<Email>, DatabaseError> {
    let rows: Vec<EmailRow> = sqlx::query_as(
        "SELECT email_id, account_id, recipient, subject, html, text, status, tries, created_at FROM email
         WHERE account_id = $1 AND ($2::timestamptz IS NULL OR (created_at, email_id) < ($2, $3))
         ORDER BY created_at DESC, email_id DESC LIMIT $4",
    )
    .bind(account.as_str())
    .bind(after.map(|cursor| to_sql(cursor.created_at)))
    .bind(after.map(|cursor| cursor.id))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Email::try_from).collect()
}

/// Claims up to `count` e-mails that are due; nobody else takes them up before `until`.
///
/// # Errors
/// [`DatabaseError`].
pub async fn claim_emails(
    connection: &mut PgConnection,
    count: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Email>, DatabaseError> {
    let rows: Vec<EmailRow> = sqlx::query_as(
        "UPDATE email SET due_at = $2, tries = tries + 1
         WHERE email_id = ANY (ARRAY(
             SELECT email_id FROM email WHERE status = 'queued' AND due_at <= $1
             ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED))
         RETURNING email_id, account_id, recipient, subject, html, text, status, tries, created_at",
    )
    .bind(to_sql(now))
    .bind(to_sql(until))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Email::try_from).collect()
}

/// How one try of an e-mail went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What becomes of the e-mail: still queued where it is tried again.
    pub status: EmailStatus,
    /// When it is tried again, or when this try ended.
    pub due_at: Timestamp,
    /// What the mail server said, or why it could not be asked.
    pub answer: String,
}

/// Writes down how the try of a claimed e-mail went. Answers false, and changes nothing, where the claim
/// ran out and somebody else took it up.
///
/// # Errors
/// [`DatabaseError`].
pub async fn update_email_tried(
    connection: &mut PgConnection,
    email: &Email,
    delivery: &Delivery,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let tries = i32::try_from(email.tries).unwrap_or(i32::MAX);
    let done = sqlx::query(
        "UPDATE email SET status = $3, due_at = $4, ended_at = CASE WHEN $3 = 'queued' THEN NULL ELSE $5 END
         WHERE email_id = $1 AND tries = $2 AND status = 'queued'",
    )
    .bind(email.id)
    .bind(tries)
    .bind(delivery.status.as_str())
    .bind(to_sql(delivery.due_at))
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let outcome = match delivery.status {
        EmailStatus::Queued => "deferred",
        ended => ended.as_str(),
    };
    let inserted = sqlx::query(
        "INSERT INTO delivery (email_id, try, account_id, outcome, answer, tried_at)
         VALUES ($1, $2, $3, $4, left($5, 500), $6)",
    )
    .bind(email.id)
    .bind(tries)
    .bind(email.account.as_str())
    .bind(outcome)
    .bind(&delivery.answer)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    expect_rows(1, inserted.rows_affected())?;
    Ok(true)
}
