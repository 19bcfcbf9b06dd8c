//! Reports that are written in the background, and their files.

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt as _;
use jiff::ToSpan as _;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        CancelUsageReportJobRequest, CreateUsageReportRequest, CreateUsageReportResponse,
        DownloadUsageReportRequest, GetUsageReportJobRequest, ListUsageReportJobsRequest, ReportGranularity,
        ReportJob, ReportJobState, ReportQuery, StreamUsageReportRequest,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Builder, Clients, Fleet, Topology, eventually, now, tell};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Response, Status};

use super::{
    ACCOUNT, ZONE,
    oracle::{check_csv, expected, query},
    streamed, the_figures_have_everything, with_events,
};
use crate::{
    asks::{check_refusal, invalid, refusal},
    clock::{all_services_have_the_time, in_the_sandbox},
    story::both_topologies,
};

both_topologies!(a_report_is_written_in_the_background);

/// A fleet whose replicas believe each other dead soon.
fn impatient(topology: Topology) -> Builder {
    Fleet::builder(topology).set("usage.reports.lease_s", "2")
}

mod killed {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_one_process() -> Result<()> {
        tell(impatient(Topology::OneProcess), a_report_survives_who_wrote_it).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn split() -> Result<()> {
        tell(impatient(Topology::Split), a_report_survives_who_wrote_it).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_kept_for_their_time() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
    tell(sandbox, a_file_is_gone_after_its_time).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_only_so_many_rows_and_an_account_so_many_reports() -> Result<()> {
    let strict = Fleet::builder(Topology::Split)
        .set("usage.reports.rows_max", "100")
        .set("usage.reports.jobs_max", "2");
    tell(strict, bounds_are_kept).await
}

pub(super) async fn create(
    app: &Clients,
    request_id: &str,
    query: &ReportQuery,
) -> Result<Response<CreateUsageReportResponse>, Status> {
    let request = CreateUsageReportRequest {
        account_id: ACCOUNT.to_owned(),
        query: Some(query.clone()),
        request_id: request_id.to_owned(),
    };
    app.usage.clone().create_usage_report(request).await
}

pub(super) async fn created(app: &Clients, request_id: &str, query: &ReportQuery) -> Result<String> {
    let job = create(app, request_id, query).await?.into_inner().job;
    Ok(job.context("no job")?.job_id)
}

async fn job(app: &Clients, job_id: &str) -> Result<ReportJob> {
    let request = GetUsageReportJobRequest {
        account_id: ACCOUNT.to_owned(),
        job_id: job_id.to_owned(),
    };
    let answer = app.usage.clone().get_usage_report_job(request).await?;
    answer.into_inner().job.context("no job")
}

pub(super) async fn done(app: &Clients, job_id: &str) -> Result<ReportJob> {
    eventually("the report is written", async || {
        let job = job(app, job_id).await?;
        ensure!(job.state() == ReportJobState::Done, "{job:?}");
        Ok(job)
    })
    .await
}

pub(super) async fn download(app: &Clients, account: &str, job_id: &str) -> Result<String, Status> {
    let request = DownloadUsageReportRequest {
        account_id: account.to_owned(),
        job_id: job_id.to_owned(),
    };
    let pieces = app
        .usage
        .clone()
        .download_usage_report(request)
        .await?
        .into_inner();
    let pieces: Vec<Vec<u8>> = pieces.map_ok(|piece| piece.csv).try_collect().await?;
    String::from_utf8(pieces.concat()).map_err(|error| Status::internal(error.to_string()))
}

/// There is no file, and why.
async fn no_file(app: &Clients, job_id: &str, state: ReportJobState) -> Result<()> {
    let found = job(app, job_id).await?;
    ensure!(found.state() == state, "{found:?}");
    let answer = download(app, ACCOUNT, job_id).await.map(Response::new);
    check_refusal(
        "no file",
        answer,
        refusal(Code::FailedPrecondition, ErrorReason::ReportWithoutFile),
    )
}

async fn a_report_is_written_in_the_background(fleet: &mut Fleet) -> Result<()> {
    let (app, all, range) = with_events(fleet).await?;
    the_figures_have_everything(&app, &all, range).await?;
    let asked = ReportQuery {
        zone: ZONE.to_owned(),
        property_columns: vec!["note".to_owned()],
        ..query(range, ReportGranularity::Event)
    };
    let first = created(&app, "r-1", &asked).await?;
    ensure!(
        created(&app, "r-1", &asked).await? == first,
        "a repeat made another one"
    );
    let other = query(range, ReportGranularity::Day);
    check_refusal(
        "another report under the same request id",
        create(&app, "r-1", &other).await,
        refusal(Code::AlreadyExists, ErrorReason::RequestIdReused),
    )?;
    let written = done(&app, &first).await?;
    let inside = expected(&all, range, |_| true);
    let rows = inside.len() as u64;
    ensure!(
        (written.written_rows, written.read_rows, written.expected_rows) == (rows, rows, rows),
        "{written:?}"
    );
    let totals = written.report.as_ref().context("of nothing")?.totals.clone();
    let amounts: u64 = totals.iter().map(|total| total.amount).sum();
    ensure!(
        amounts == inside.iter().map(|used| used.amount).sum::<u64>(),
        "{totals:?}"
    );
    let file = download(&app, ACCOUNT, &first).await?;
    ensure!(file.len() as u64 == written.file_bytes, "{written:?}");
    check_csv(&file, &inside, ZONE)?;
    // The same events are the same bytes, whoever wrote them.
    ensure!(
        file == streamed(&app, ACCOUNT, &asked).await?,
        "a stream differs from a file"
    );

    let second = created(&app, "r-2", &other).await?;
    done(&app, &second).await?;
    let narrowed = ReportQuery {
        properties: [("region".to_owned(), "us".to_owned())].into(),
        ..other
    };
    let third = created(&app, "r-3", &narrowed).await?;
    done(&app, &third).await?;
    ensure!(download(&app, ACCOUNT, &third).await? == streamed(&app, ACCOUNT, &narrowed).await?);
    ensure!(
        listed(&app).await? == [third.as_str(), &second, &first],
        "in another order"
    );

    for _ in 0..2 {
        let request = CancelUsageReportJobRequest {
            account_id: ACCOUNT.to_owned(),
            job_id: first.clone(),
        };
        let job = app
            .usage
            .clone()
            .cancel_usage_report_job(request)
            .await?
            .into_inner()
            .job;
        ensure!(job.is_some_and(|job| job.state() == ReportJobState::Cancelled));
    }
    no_file(&app, &first, ReportJobState::Cancelled).await
}

/// The ids of the account's jobs, one a page.
async fn listed(app: &Clients) -> Result<Vec<String>> {
    let mut request = ListUsageReportJobsRequest {
        account_id: ACCOUNT.to_owned(),
        page_size: 1,
        ..ListUsageReportJobsRequest::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = app
            .usage
            .clone()
            .list_usage_report_jobs(request.clone())
            .await?
            .into_inner();
        ids.extend(page.jobs.into_iter().map(|job| job.job_id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        request.page_token = page.next_page_token;
    }
}

async fn a_report_survives_who_wrote_it(fleet: &mut Fleet) -> Result<()> {
    let (app, all, range) = with_events(fleet).await?;
    let asked = ReportQuery {
        property_columns: vec!["note".to_owned()],
        ..query(range, ReportGranularity::Event)
    };
    // Nobody can write a piece of a file while this lock is held.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut lock = session.begin().await?;
    sqlx::query("LOCK TABLE usage.report_chunk IN SHARE MODE")
        .execute(&mut *lock)
        .await?;
    let job_id = created(&app, "r-1", &asked).await?;
    eventually("somebody writes it", async || {
        let job = job(&app, &job_id).await?;
        ensure!(job.state() == ReportJobState::Running, "{job:?}");
        Ok(())
    })
    .await?;
    no_file(&app, &job_id, ReportJobState::Running).await?;
    fleet.kill("usage").await?;
    lock.rollback().await?;
    // What a replica leaves that dies between two pieces.
    sqlx::query(
        "INSERT INTO usage.report_chunk (job_id, number, data)
         SELECT job_id, number, 'half a line' FROM usage.report_job, generate_series(0, 99) AS number",
    )
    .execute(&mut session)
    .await?;
    fleet.restart("usage").await?;
    let app = fleet.clients(APPLICATION)?;
    done(&app, &job_id).await?;
    check_csv(
        &download(&app, ACCOUNT, &job_id).await?,
        &expected(&all, range, |_| true),
        "UTC",
    )?;
    let (runs, pieces): (i32, i64) = sqlx::query_as(
        "SELECT (SELECT run FROM usage.report_job), (SELECT count(*) FROM usage.report_chunk)",
    )
    .fetch_one(&mut session)
    .await?;
    ensure!(runs >= 2 && pieces == 1, "{runs} runs, {pieces} pieces");
    Ok(())
}

async fn a_file_is_gone_after_its_time(fleet: &mut Fleet) -> Result<()> {
    let (app, _, range) = with_events(fleet).await?;
    let job_id = created(&app, "r-1", &query(range, ReportGranularity::Day)).await?;
    let written = done(&app, &job_id).await?;
    ensure!(written.expire_time.is_some(), "{written:?}");
    in_the_sandbox(fleet, &["move", "170h"]).await?;
    all_services_have_the_time(&app, now() + 170.hours()).await?;
    no_file(&app, &job_id, ReportJobState::Expired).await?;
    // It looks for what is over its time when it starts.
    fleet.stop("usage").await?;
    fleet.restart("usage").await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("the file is gone", async || {
        let pieces: i64 = sqlx::query_scalar("SELECT count(*) FROM usage.report_chunk")
            .fetch_one(&mut session)
            .await?;
        ensure!(pieces == 0, "{pieces} pieces");
        Ok(())
    })
    .await?;
    let app = fleet.clients(APPLICATION)?;
    no_file(&app, &job_id, ReportJobState::Expired).await
}

async fn bounds_are_kept(fleet: &mut Fleet) -> Result<()> {
    let (app, all, range) = with_events(fleet).await?;
    let events = query(range, ReportGranularity::Event);
    let request = StreamUsageReportRequest {
        account_id: ACCOUNT.to_owned(),
        query: Some(events.clone()),
    };
    eventually("the figures have everything", async || {
        let answer = app.usage.clone().stream_usage_report(request.clone()).await;
        check_refusal(
            "too many rows",
            answer.map(|_| Response::new(())),
            invalid("query.end_time"),
        )
    })
    .await?;
    // A job has as many as there are.
    let job_id = created(&app, "r-1", &events).await?;
    let written = done(&app, &job_id).await?;
    ensure!(
        written.written_rows == expected(&all, range, |_| true).len() as u64,
        "{written:?}"
    );

    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut lock = session.begin().await?;
    sqlx::query("LOCK TABLE usage.report_chunk IN SHARE MODE")
        .execute(&mut *lock)
        .await?;
    for request_id in ["r-2", "r-3"] {
        created(&app, request_id, &events).await?;
    }
    let refused = refusal(Code::ResourceExhausted, ErrorReason::TooManyReports);
    check_refusal("a third one", create(&app, "r-4", &events).await, refused)?;
    // A repeat is none more.
    let second = created(&app, "r-2", &events).await?;
    lock.rollback().await?;
    done(&app, &second).await?;
    Ok(())
}
