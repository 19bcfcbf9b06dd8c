//! `/api/account/usage/reports`: reports that are written in the background, and their files.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        self as proto, CancelUsageReportJobRequest, CreateUsageReportRequest, DownloadUsageReportRequest,
        GetUsageReportJobRequest, ListUsageReportJobsRequest, ReportQuery,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::usage_report::{Report, csv, file_name, to_json_report};
use crate::{
    access::Caller,
    body::{Body, given},
    convert::{ReportGranularity, ReportState, cursor, optional_time, part, time},
    edge::Edge,
    instant::Instant,
    problem::{Names, Problem, SAME_NAMES},
    query::{PAGE_NAMES, Query},
};

/// How the fields of a new report are called in the contract and here.
const NAMES: Names = &[
    ("query.start_time", "from"),
    ("query.end_time", "to"),
    ("query", ""),
];

/// A report to be written in the background.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReport {
    /// Makes the call repeatable: 1 to 128 of `[A-Za-z0-9_.:-]`. The same again answers the same report.
    request_id: String,
    /// Up to 16 metrics, each named once; none means all that were used.
    #[serde(default)]
    #[schema(max_items = 16)]
    metrics: Vec<String>,
    /// The first instant.
    from: Instant,
    /// The first instant after the range.
    to: Instant,
    granularity: ReportGranularity,
    /// The IANA zone of hours, days and months, and of times; absent means the account's.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    zone: Option<String>,
    /// Only what this source said.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<String>,
    /// Only events that have all of these properties.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Up to 16 properties that are columns of their own; only where a row is an event.
    #[serde(default)]
    #[schema(max_items = 16)]
    property_columns: Vec<String>,
}

/// A report that is written in the background.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportJob {
    job_id: String,
    report: Report,
    state: ReportState,
    /// Rows written so far.
    written_rows: u64,
    /// Rows read so far: where source or properties are asked for, more than are written.
    read_rows: u64,
    /// How many rows there are to read, as the figures had it when the job was made.
    expected_rows: u64,
    /// The length of the file so far, in bytes.
    file_bytes: u64,
    create_time: Timestamp,
    /// When it ended; null until then.
    end_time: Option<Timestamp>,
    /// From when on its file is gone; null unless it is there, or was.
    expire_time: Option<Timestamp>,
    /// The reason why it failed; null where it did not.
    failure: Option<String>,
    /// Where its file is; null unless it is done.
    download: Option<String>,
}

/// A page of reports, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportJobs {
    reports: Vec<ReportJob>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
}

fn path_of(job_id: &str) -> String {
    format!("/api/account/usage/reports/{job_id}")
}

fn to_json_job(job: proto::ReportJob) -> Result<ReportJob, Problem> {
    let state = ReportState::from_proto(job.state);
    Ok(ReportJob {
        report: to_json_report(part(job.report, "what a report is of")?)?,
        state,
        written_rows: job.written_rows,
        read_rows: job.read_rows,
        expected_rows: job.expected_rows,
        file_bytes: job.file_bytes,
        create_time: time(job.create_time.as_ref())?,
        end_time: optional_time(job.end_time.as_ref())?,
        expire_time: optional_time(job.expire_time.as_ref())?,
        failure: Some(job.failure).filter(|failure| !failure.is_empty()),
        download: (state == ReportState::Done).then(|| format!("{}/download", path_of(&job.job_id))),
        job_id: job.job_id,
    })
}

/// The id in a path. What cannot be read is, for a path, an id that does not exist.
fn id_of(job_id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    job_id
        .map(|Path(job_id)| job_id)
        .map_err(|_| Problem::new(ErrorReason::ReportNotFound, "the account has no such report"))
}

/// Write a report in the background.
///
/// However many rows it has; its file is of one instant, and is kept for a week unless configured otherwise.
#[utoipa::path(
    post, path = "/api/account/usage/reports", operation_id = "createUsageReport", tag = "account",
    request_body = NewReport,
    responses((status = 202, description = "It waits for its turn.", body = ReportJob,
               headers(("Location" = String, description = "Where it is."))))
)]
pub(crate) async fn create_usage_report(
    State(edge): State<Edge>,
    caller: Caller,
    Body(body): Body<NewReport>,
) -> Result<Response, Problem> {
    let query = ReportQuery {
        metrics: body.metrics,
        start_time: Some(body.from.to_proto()),
        end_time: Some(body.to.to_proto()),
        granularity: body.granularity.to_proto(),
        zone: body.zone.unwrap_or_default(),
        source: body.source.unwrap_or_default(),
        properties: body.properties.into_iter().collect(),
        property_columns: body.property_columns,
    };
    let request = CreateUsageReportRequest {
        account_id: caller.account_id(),
        query: Some(query),
        request_id: body.request_id,
    };
    let answer = edge
        .usage()
        .create_usage_report(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?;
    let job = part(answer.into_inner().job, "a report")?;
    let location = HeaderValue::try_from(path_of(&job.job_id))
        .map_err(|_| Problem::fault("usage: an id that no header can carry"))?;
    let body = Json(to_json_job(job)?);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response())
}

/// The reports of the account that were written in the background, newest first.
#[utoipa::path(
    get, path = "/api/account/usage/reports", operation_id = "listUsageReports", tag = "account",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, description = "How many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Where to go on, from the page before.")
    ),
    responses((status = 200, description = "A page.", body = ReportJobs))
)]
pub(crate) async fn usage_reports(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<ReportJobs>, Problem> {
    let (page_size, page_token) = query.page();
    query.finish()?;
    let request = ListUsageReportJobsRequest {
        account_id: caller.account_id(),
        page_size,
        page_token,
    };
    let answer = edge
        .usage()
        .list_usage_report_jobs(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, PAGE_NAMES))?
        .into_inner();
    let reports = answer.jobs.into_iter().map(to_json_job);
    Ok(Json(ReportJobs {
        reports: reports.collect::<Result<_, _>>()?,
        next_cursor: cursor(answer.next_page_token),
    }))
}

async fn find(edge: &Edge, caller: &Caller, job_id: String) -> Result<proto::ReportJob, Problem> {
    let request = GetUsageReportJobRequest {
        account_id: caller.account_id(),
        job_id,
    };
    let answer = edge
        .usage()
        .get_usage_report_job(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, SAME_NAMES))?;
    part(answer.into_inner().job, "a report")
}

/// Where a report stands.
#[utoipa::path(
    get, path = "/api/account/usage/reports/{job_id}", operation_id = "getUsageReport", tag = "account",
    params(("job_id" = String, Path, description = "The report's id.")),
    responses((status = 200, description = "The report.", body = ReportJob))
)]
pub(crate) async fn usage_report_job(
    State(edge): State<Edge>,
    caller: Caller,
    job_id: Result<Path<String>, PathRejection>,
) -> Result<Json<ReportJob>, Problem> {
    let job = find(&edge, &caller, id_of(job_id)?).await?;
    to_json_job(job).map(Json)
}

/// End a report and delete its file. Doing it again is no error.
#[utoipa::path(
    delete, path = "/api/account/usage/reports/{job_id}", operation_id = "cancelUsageReport", tag = "account",
    params(("job_id" = String, Path, description = "The report's id.")),
    responses((status = 200, description = "The report as it stands now.", body = ReportJob))
)]
pub(crate) async fn cancel_usage_report(
    State(edge): State<Edge>,
    caller: Caller,
    job_id: Result<Path<String>, PathRejection>,
) -> Result<Json<ReportJob>, Problem> {
    let request = CancelUsageReportJobRequest {
        account_id: caller.account_id(),
        job_id: id_of(job_id)?,
    };
    let answer = edge
        .usage()
        .cancel_usage_report_job(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, SAME_NAMES))?;
    to_json_job(part(answer.into_inner().job, "a report")?).map(Json)
}

/// The file of a report that is done: CSV (RFC 4180).
#[utoipa::path(
    get, path = "/api/account/usage/reports/{job_id}/download", operation_id = "downloadUsageReport", tag = "account",
    params(("job_id" = String, Path, description = "The report's id.")),
    responses((status = 200, description = "The file.", body = String, content_type = "text/csv"))
)]
pub(crate) async fn download_usage_report(
    State(edge): State<Edge>,
    caller: Caller,
    job_id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let job = find(&edge, &caller, id_of(job_id)?).await?;
    let query = part(job.report.and_then(|report| report.query), "what a report is of")?;
    let (from, to) = (time(query.start_time.as_ref())?, time(query.end_time.as_ref())?);
    let request = DownloadUsageReportRequest {
        account_id: caller.account_id(),
        job_id: job.job_id,
    };
    let pieces = edge
        .usage()
        .download_usage_report(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, SAME_NAMES))?
        .into_inner();
    let file = file_name(caller.account.as_str(), from, to);
    let mut response = csv(pieces, |piece| piece.csv, &file);
    // A client that takes it as it is can say how far it is, and sees where it was cut off.
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(job.file_bytes));
    Ok(response)
}
