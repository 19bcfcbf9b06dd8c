//! Reports that are written in the background, and their files.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{FromRow, PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    report::{ReportQuery, RowTotals},
    report_job::{JobPlace, Progress, RUNS_MAX, ReportJob, ReportJobId, ReportJobState},
};

/// A job to be made.
#[derive(Clone, Debug)]
pub struct NewReportJob {
    /// Its id.
    pub job_id: ReportJobId,
    /// What it is of.
    pub query: ReportQuery,
    /// Who makes it.
    pub caller: String,
    /// Under which request id.
    pub request_id: String,
    /// How many rows there are to read.
    pub rows_expected: u64,
}

/// Who writes a job: a replica, for as long as nobody began the job again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job_id: ReportJobId,
    /// Its run.
    pub run: i32,
}

#[derive(FromRow)]
struct JobRow {
    job_id: Uuid,
    query: Json<ReportQuery>,
    state: String,
    run: i32,
    rows_expected: i64,
    rows_read: i64,
    rows_written: i64,
    bytes: i64,
    chunks: i32,
    recorded_before: Option<OffsetDateTime>,
    totals: Option<Json<RowTotals>>,
    failure: Option<String>,
    created_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
}

impl TryFrom<JobRow> for ReportJob {
    type Error = DatabaseError;

    fn try_from(row: JobRow) -> Result<Self, DatabaseError> {
        let count = |number: i64| u64::try_from(number).map_err(corrupt("number of rows"));
        Ok(Self {
            job_id: ReportJobId::from_uuid(row.job_id),
            query: row.query.0,
            state: ReportJobState::from_name(&row.state).ok_or(DatabaseError::Corrupt {
                what: "state of a report",
            })?,
            run: row.run,
            rows_expected: count(row.rows_expected)?,
            progress: Progress {
                rows_read: count(row.rows_read)?,
                rows_written: count(row.rows_written)?,
                bytes: count(row.bytes)?,
                chunks: row.chunks,
            },
            recorded_before: row.recorded_before.map(from_sql),
            totals: row.totals.map(|totals| totals.0).unwrap_or_default(),
            failure: row.failure,
            created_at: from_sql(row.created_at),
            ended_at: row.ended_at.map(from_sql),
            expires_at: row.expires_at.map(from_sql),
        })
    }
}

/// What every statement answers of a job.
macro_rules! job {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " job_id, query, state, run, rows_expected, rows_read, rows_written, bytes, chunks, recorded_before, totals, failure,
              created_at, ended_at, expires_at ",
            $after
        )
    };
}

fn number(count: u64) -> Result<i64, DatabaseError> {
    i64::try_from(count).map_err(corrupt("number of rows"))
}

/// Writes a job down, and answers whether it is new: the caller has used the request id before, or not.
pub async fn insert_report_job(
    connection: &mut PgConnection,
    new: &NewReportJob,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let inserted = sqlx::query(
        "INSERT INTO report_job (job_id, account_id, caller, request_id, query, state, rows_expected, created_at)
         VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7) ON CONFLICT (account_id, caller, request_id) DO NOTHING",
    )
    .bind(new.job_id.as_uuid())
    .bind(new.query.account.as_str())
    .bind(&new.caller)
    .bind(&new.request_id)
    .bind(Json(&new.query))
    .bind(number(new.rows_expected)?)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Makes jobs of one account come one after the other until the transaction ends, and counts those that are open.
pub async fn lock_open_jobs(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<u64, DatabaseError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('report_job ' || $1, 0))")
        .bind(account.as_str())
        .execute(&mut *connection)
        .await?;
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM report_job WHERE account_id = $1 AND state IN ('queued', 'running')",
    )
    .bind(account.as_str())
    .fetch_one(connection)
    .await?;
    u64::try_from(open).map_err(corrupt("number of reports"))
}

/// The job that a caller made under a request id.
pub async fn find_requested_job(
    connection: &mut PgConnection,
    account: &AccountId,
    caller: &str,
    request_id: &str,
) -> Result<Option<ReportJob>, DatabaseError> {
    let row: Option<JobRow> = sqlx::query_as(job!(
        "SELECT",
        "FROM report_job WHERE account_id = $1 AND caller = $2 AND request_id = $3"
    ))
    .bind(account.as_str())
    .bind(caller)
    .bind(request_id)
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// One job of an account.
pub async fn find_report_job(
    connection: &mut PgConnection,
    account: &AccountId,
    job_id: ReportJobId,
) -> Result<Option<ReportJob>, DatabaseError> {
    let row: Option<JobRow> = sqlx::query_as(job!(
        "SELECT",
        "FROM report_job WHERE job_id = $1 AND account_id = $2"
    ))
    .bind(job_id.as_uuid())
    .bind(account.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Up to `limit` jobs of an account, the newest first.
pub async fn list_report_jobs(
    connection: &mut PgConnection,
    account: &AccountId,
    after: Option<JobPlace>,
    limit: i64,
) -> Result<Vec<ReportJob>, DatabaseError> {
    let rows: Vec<JobRow> = sqlx::query_as(job!(
        "SELECT",
        "FROM report_job
         WHERE account_id = $1 AND ($2::timestamptz IS NULL OR (created_at, job_id) < ($2, $3))
         ORDER BY created_at DESC, job_id DESC LIMIT $4"
    ))
    .bind(account.as_str())
    .bind(after.map(|place| to_sql(place.created_at)))
    .bind(after.map(|place| place.job_id.as_uuid()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Begins the oldest job that waits, or whose replica has said nothing for its lease, as a new run. One that was begun too often
/// is given up instead, and none is answered.
pub async fn claim_report_job(
    connection: &mut PgConnection,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Option<ReportJob>, DatabaseError> {
    let row: Option<JobRow> = sqlx::query_as(job!(
        "UPDATE report_job
         SET run = run + 1, rows_read = 0, rows_written = 0, bytes = 0, chunks = 0,
             state = CASE WHEN run < $3 THEN 'running' ELSE 'failed' END,
             failure = CASE WHEN run < $3 THEN NULL ELSE 'DATABASE_UNAVAILABLE' END,
             ended_at = CASE WHEN run < $3 THEN NULL ELSE $1 END,
             lease_until = $2
         WHERE job_id = ANY (ARRAY(
             SELECT job_id FROM report_job
             WHERE state IN ('queued', 'running') AND (lease_until IS NULL OR lease_until <= $1)
             ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED))
         RETURNING",
        ""
    ))
    .bind(to_sql(now))
    .bind(to_sql(lease_until))
    .bind(RUNS_MAX)
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Says how far a run is and that it goes on; not where it is a run no more: the job was cancelled, or begun again.
pub async fn update_progress(
    connection: &mut PgConnection,
    run: Run,
    progress: Progress,
    lease_until: Timestamp,
) -> Result<bool, DatabaseError> {
    let updated = sqlx::query(
        "UPDATE report_job SET rows_read = $3, rows_written = $4, bytes = $5, chunks = $6, lease_until = $7
         WHERE job_id = $1 AND run = $2 AND state = 'running'",
    )
    .bind(run.job_id.as_uuid())
    .bind(run.run)
    .bind(number(progress.rows_read)?)
    .bind(number(progress.rows_written)?)
    .bind(number(progress.bytes)?)
    .bind(progress.chunks)
    .bind(to_sql(lease_until))
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Lets a run go: any replica may begin it again, at `retry_at` at the soonest.
pub async fn release_run(
    connection: &mut PgConnection,
    run: Run,
    retry_at: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE report_job SET lease_until = $3 WHERE job_id = $1 AND run = $2 AND state = 'running'",
    )
    .bind(run.job_id.as_uuid())
    .bind(run.run)
    .bind(to_sql(retry_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// A job that was written to its end.
#[derive(Clone, Debug)]
pub struct Written {
    /// How far it came.
    pub progress: Progress,
    /// What its rows come to.
    pub totals: RowTotals,
    /// The instant that it is of.
    pub recorded_before: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// From when on its file is gone.
    pub expires_at: Timestamp,
}

/// Ends a run whose file is there; not where it is a run no more.
pub async fn finish_run(
    connection: &mut PgConnection,
    run: Run,
    written: &Written,
) -> Result<bool, DatabaseError> {
    let updated = sqlx::query(
        "UPDATE report_job
         SET state = 'done', rows_read = $3, rows_written = $4, bytes = $5, chunks = $6, totals = $7, recorded_before = $8,
             ended_at = $9, expires_at = $10, rows_expected = $3
         WHERE job_id = $1 AND run = $2 AND state = 'running'",
    )
    .bind(run.job_id.as_uuid())
    .bind(run.run)
    .bind(number(written.progress.rows_read)?)
    .bind(number(written.progress.rows_written)?)
    .bind(number(written.progress.bytes)?)
    .bind(written.progress.chunks)
    .bind(Json(&written.totals))
    .bind(to_sql(written.recorded_before))
    .bind(to_sql(written.ended_at))
    .bind(to_sql(written.expires_at))
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Ends a run that cannot succeed.
pub async fn fail_run(
    connection: &mut PgConnection,
    run: Run,
    failure: &str,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE report_job SET state = 'failed', failure = $3, ended_at = $4
         WHERE job_id = $1 AND run = $2 AND state = 'running'",
    )
    .bind(run.job_id.as_uuid())
    .bind(run.run)
    .bind(failure)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Cancels a job that is open or has a file, and answers it as it is then.
pub async fn cancel_report_job(
    connection: &mut PgConnection,
    account: &AccountId,
    job_id: ReportJobId,
    now: Timestamp,
) -> Result<Option<ReportJob>, DatabaseError> {
    sqlx::query(
        "UPDATE report_job SET state = 'cancelled', ended_at = coalesce(ended_at, $3), expires_at = NULL, bytes = 0, chunks = 0
         WHERE job_id = $1 AND account_id = $2 AND state IN ('queued', 'running', 'done')",
    )
    .bind(job_id.as_uuid())
    .bind(account.as_str())
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    find_report_job(connection, account, job_id).await
}

/// Adds a piece to the file of a run, whose job this transaction has locked.
pub async fn insert_chunk(
    connection: &mut PgConnection,
    job_id: ReportJobId,
    place: i32,
    data: &[u8],
) -> Result<(), DatabaseError> {
    sqlx::query("INSERT INTO report_chunk (job_id, number, data) VALUES ($1, $2, $3)")
        .bind(job_id.as_uuid())
        .bind(place)
        .bind(data)
        .execute(connection)
        .await?;
    Ok(())
}

/// A piece of the file of a job that is done.
pub async fn find_chunk(
    connection: &mut PgConnection,
    job_id: ReportJobId,
    place: i32,
) -> Result<Option<Vec<u8>>, DatabaseError> {
    Ok(sqlx::query_scalar(
        "SELECT c.data FROM report_job AS j JOIN report_chunk AS c ON c.job_id = j.job_id AND c.number = $2
         WHERE j.job_id = $1 AND j.state = 'done'",
    )
    .bind(job_id.as_uuid())
    .bind(place)
    .fetch_optional(connection)
    .await?)
}

/// Deletes up to `limit` pieces of what a run before has left, and answers how many that were.
pub async fn delete_chunks_of(
    connection: &mut PgConnection,
    job_id: ReportJobId,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM report_chunk
         WHERE job_id = $1 AND number = ANY (ARRAY(
             SELECT number FROM report_chunk WHERE job_id = $1 ORDER BY number LIMIT $2))",
    )
    .bind(job_id.as_uuid())
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Says of up to `limit` jobs that their files are over their time.
pub async fn expire_jobs(
    connection: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let expired = sqlx::query(
        "UPDATE report_job SET state = 'expired'
         WHERE job_id = ANY (ARRAY(
             SELECT job_id FROM report_job WHERE ended_at IS NOT NULL AND state = 'done' AND expires_at <= $1
             ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_sql(now))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(expired.rows_affected())
}

/// Up to `limit` jobs that ended without a file, or lost it, and still have pieces of one.
pub async fn list_swept_jobs(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<ReportJobId>, DatabaseError> {
    let jobs: Vec<Uuid> = sqlx::query_scalar(
        "SELECT j.job_id FROM report_job AS j
         CROSS JOIN LATERAL (SELECT 1 FROM report_chunk AS c WHERE c.job_id = j.job_id LIMIT 1) AS c
         WHERE j.ended_at IS NOT NULL AND j.state IN ('failed', 'cancelled', 'expired')
         ORDER BY j.ended_at LIMIT $1",
    )
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(jobs.into_iter().map(ReportJobId::from_uuid).collect())
}

/// Forgets up to `limit` jobs that ended before an instant and have no file any more.
pub async fn delete_jobs(
    connection: &mut PgConnection,
    ended_before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM report_job
         WHERE job_id = ANY (ARRAY(
             SELECT job_id FROM report_job WHERE ended_at < $1 AND state IN ('failed', 'cancelled', 'expired')
             ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_sql(ended_before))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
