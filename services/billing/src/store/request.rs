//! What a request id stands for.

use jiff::Timestamp;
use octroi_core::{AccountId, RequestId};
use octroi_kit::db::{DatabaseError, to_sql};
use sqlx::PgConnection;
use uuid::Uuid;

/// A request id with what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The account.
    pub(crate) account: AccountId,
    /// The calling service.
    pub(crate) caller: String,
    /// The id.
    pub(crate) request_id: RequestId,
    /// The verb.
    pub(crate) method: &'static str,
    /// The SHA-256 of what was asked for.
    pub(crate) content_hash: [u8; 32],
}

/// What a request id stood for before.
pub(crate) enum Earlier {
    /// Nothing: it was noted just now.
    None,
    /// The same, which made this.
    Same(Uuid),
    /// Something else.
    Other,
}

/// Notes that the request makes `subject_id`, unless it came before. A request that another transaction is
/// noting at this moment is waited for.
pub(crate) async fn insert_request(
    connection: &mut PgConnection,
    request: &Request,
    subject_id: Uuid,
    now: Timestamp,
) -> Result<Earlier, DatabaseError> {
    let done = sqlx::query(
        "INSERT INTO request (account_id, caller, request_id, method, content_hash, subject_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(request.account.as_str())
    .bind(&request.caller)
    .bind(request.request_id.as_str())
    .bind(request.method)
    .bind(request.content_hash.as_slice())
    .bind(subject_id)
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Earlier::None);
    }
    let (method, content_hash, subject_id): (String, Vec<u8>, Uuid) = sqlx::query_as(
        "SELECT method, content_hash, subject_id FROM request
         WHERE account_id = $1 AND caller = $2 AND request_id = $3",
    )
    .bind(request.account.as_str())
    .bind(&request.caller)
    .bind(request.request_id.as_str())
    .fetch_one(connection)
    .await?;
    let same = method == request.method && content_hash == request.content_hash;
    Ok(if same {
        Earlier::Same(subject_id)
    } else {
        Earlier::Other
    })
}
