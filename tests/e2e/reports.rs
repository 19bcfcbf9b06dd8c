//! Reports have what was recorded, whichever way they are taken along, and whoever dies while they are written.

mod jobs;
mod oracle;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt as _;
use jiff::{Timestamp, ToSpan as _};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        CancelUsageReportJobRequest, GenerateUsageReportRequest, GetUsageReportJobRequest, ReportGranularity,
        ReportQuery, StreamUsageReportRequest, report_row::Row,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, eventually, now};
use reqwest::Method;
use serde_json::json;
use tonic::{Code, Response};

use self::{
    jobs::{created, done, download},
    oracle::{METRICS, Used, check_csv, check_events, expected, lines, paged, query, record, some_events},
};
use crate::{
    asks::{check_refusal, not_found, refusal, upsert_account},
    rest::{new_key, signed_up},
    story::both_topologies,
};

both_topologies!(
    pages_and_csv_have_what_was_recorded,
    buckets_add_up_to_what_was_recorded,
    a_report_of_another_account_or_question_is_refused,
    a_report_is_taken_along_over_rest,
);

const ACCOUNT: &str = "acme";
const EVENTS: i64 = 700;
const ZONE: &str = "Europe/Paris";

/// The account with its events, and the range that has all but the oldest and the newest of them.
async fn with_events(fleet: &Fleet) -> Result<(Clients, Vec<Used>, (Timestamp, Timestamp))> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let present = Timestamp::from_second(now().as_second())?;
    let all = some_events(present, EVENTS);
    record(&app, ACCOUNT, &all).await?;
    Ok((app, all, (present - (29 * 24).hours(), present - 24.hours())))
}

/// The rollups have all events of the range.
async fn the_figures_have_everything(
    app: &Clients,
    all: &[Used],
    range: (Timestamp, Timestamp),
) -> Result<()> {
    let months = query(range, ReportGranularity::Month);
    eventually("the figures have everything", async || {
        let (report, _) = paged(app, ACCOUNT, &months, 100).await?;
        let events: u64 = report.totals.iter().map(|total| total.events).sum();
        ensure!(
            events == expected(all, range, |_| true).len() as u64,
            "{report:?}"
        );
        Ok(())
    })
    .await
}

async fn streamed(app: &Clients, account: &str, query: &ReportQuery) -> Result<String> {
    let request = StreamUsageReportRequest {
        account_id: account.to_owned(),
        query: Some(query.clone()),
    };
    let pieces = app.usage.clone().stream_usage_report(request).await?.into_inner();
    let pieces: Vec<Vec<u8>> = pieces.map_ok(|piece| piece.csv).try_collect().await?;
    Ok(String::from_utf8(pieces.concat())?)
}

async fn pages_and_csv_have_what_was_recorded(fleet: &mut Fleet) -> Result<()> {
    let (app, all, range) = with_events(fleet).await?;
    let events = || ReportQuery {
        zone: ZONE.to_owned(),
        property_columns: vec!["note".to_owned()],
        ..query(range, ReportGranularity::Event)
    };
    let narrow = |properties: &[(&str, &str)]| {
        let properties = properties.iter();
        properties
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    type Keep = fn(&Used) -> bool;
    let cases: [(ReportQuery, Keep); 5] = [
        (events(), |_| true),
        (
            ReportQuery {
                metrics: vec![METRICS[1].to_owned()],
                ..events()
            },
            |used| used.metric == METRICS[1],
        ),
        (
            ReportQuery {
                properties: narrow(&[("region", "us")]),
                ..events()
            },
            |used| used.region() == "us",
        ),
        (
            ReportQuery {
                properties: narrow(&[("region", "eu"), ("note", "=1+1")]),
                source: "application".to_owned(),
                ..events()
            },
            |used| used.region() == "eu" && used.properties.contains(&("note", "=1+1")),
        ),
        (
            ReportQuery {
                source: "importer".to_owned(),
                ..events()
            },
            |_| false,
        ),
    ];
    for (query, keep) in cases {
        let expected = expected(&all, range, keep);
        for page_size in [100, 7] {
            let (report, rows) = paged(&app, ACCOUNT, &query, page_size).await?;
            check_events(&rows, &expected).with_context(|| format!("{query:?}"))?;
            let found = report.query.context("a report of nothing")?;
            ensure!(found == query, "{found:?} instead of {query:?}");
        }
        check_csv(&streamed(&app, ACCOUNT, &query).await?, &expected, ZONE)
            .with_context(|| format!("{query:?}"))?;
    }
    the_first_page_has_totals(&app, &all, range).await?;
    what_comes_meanwhile_is_in_no_page(&app, &all, range).await
}

async fn the_first_page_has_totals(app: &Clients, all: &[Used], range: (Timestamp, Timestamp)) -> Result<()> {
    eventually("the figures have everything", async || {
        let (report, _) = paged(app, ACCOUNT, &query(range, ReportGranularity::Event), 100).await?;
        ensure!(report.totals.len() == METRICS.len(), "{report:?}");
        for (total, metric) in report.totals.iter().zip(METRICS) {
            let of_metric = expected(all, range, |used| used.metric == metric);
            let amount: u64 = of_metric.iter().map(|used| used.amount).sum();
            ensure!(
                (total.metric.as_str(), total.amount, total.value, total.events)
                    == (metric, amount, amount, of_metric.len() as u64),
                "{total:?}"
            );
        }
        Ok(())
    })
    .await
}

async fn what_comes_meanwhile_is_in_no_page(
    app: &Clients,
    all: &[Used],
    range: (Timestamp, Timestamp),
) -> Result<()> {
    let mut request = GenerateUsageReportRequest {
        account_id: ACCOUNT.to_owned(),
        query: Some(query(range, ReportGranularity::Event)),
        page_size: 10,
        ..GenerateUsageReportRequest::default()
    };
    let mut pages = app.usage.clone();
    let mut page = pages.generate_usage_report(request.clone()).await?.into_inner();
    let mut rows: Vec<Row> = page.rows.into_iter().filter_map(|row| row.row).collect();
    let later = Used {
        event_id: "later".to_owned(),
        at: range.1 - 1.hour(),
        ..all.first().context("no event")?.clone()
    };
    // The clocks of processes are not the same to the instant.
    let first_of = page.report.as_ref().and_then(|report| report.record_time_bound);
    let first_of = first_of.context("of no instant")?.seconds;
    eventually("that instant is over", async || {
        let (report, _) = paged(app, ACCOUNT, &query(range, ReportGranularity::Month), 100).await?;
        let bound = report.record_time_bound.context("of no instant")?;
        ensure!(bound.seconds >= first_of + 3, "{bound:?}");
        Ok(())
    })
    .await?;
    record(app, ACCOUNT, std::slice::from_ref(&later)).await?;
    request.page_size = 100;
    while !page.next_page_token.is_empty() {
        request.page_token = page.next_page_token;
        page = pages.generate_usage_report(request.clone()).await?.into_inner();
        ensure!(
            page.report.is_some_and(|report| report.totals.is_empty()),
            "totals again"
        );
        rows.extend(page.rows.into_iter().filter_map(|row| row.row));
    }
    check_events(&rows, &expected(all, range, |_| true))?;
    // Who asks anew has it.
    let with_later = [all, &[later]].concat();
    let (_, rows) = paged(app, ACCOUNT, &query(range, ReportGranularity::Event), 100).await?;
    check_events(&rows, &expected(&with_later, range, |_| true))
}

async fn buckets_add_up_to_what_was_recorded(fleet: &mut Fleet) -> Result<()> {
    let (app, all, range) = with_events(fleet).await?;
    the_figures_have_everything(&app, &all, range).await?;
    for granularity in [
        ReportGranularity::Hour,
        ReportGranularity::Day,
        ReportGranularity::Month,
    ] {
        for region in ["", "us"] {
            let mut query = ReportQuery {
                zone: ZONE.to_owned(),
                ..query(range, granularity)
            };
            if !region.is_empty() {
                query.properties.insert("region".to_owned(), region.to_owned());
            }
            let inside = expected(&all, range, |used| region.is_empty() || used.region() == region);
            let (_, rows) = paged(&app, ACCOUNT, &query, 37).await?;
            check_buckets(&rows, &inside, range)?;
            let csv = lines(&streamed(&app, ACCOUNT, &query).await?)?;
            ensure!(csv.len() == rows.len() + 1, "{} lines", csv.len());
            for (line, row) in csv.iter().skip(1).zip(&rows) {
                let Row::Bucket(row) = row else { continue };
                let said = [row.amount, row.events, row.value].map(|figure| figure.to_string());
                ensure!(
                    line[0] == row.metric && line[4..7] == said && line[7] == "false",
                    "{line:?} instead of {row:?}"
                );
            }
        }
    }
    Ok(())
}

/// Each metric's buckets tile the range, and each has what lies in it.
fn check_buckets(rows: &[Row], inside: &[&Used], range: (Timestamp, Timestamp)) -> Result<()> {
    let instant = |time: Option<prost_types::Timestamp>| -> Result<Timestamp> {
        let time = time.context("a bucket without an end")?;
        Ok(Timestamp::new(time.seconds, time.nanos)?)
    };
    let mut found = Vec::new();
    for row in rows {
        let Row::Bucket(row) = row else {
            anyhow::bail!("no bucket: {row:?}");
        };
        found.push((row, instant(row.start_time)?, instant(row.end_time)?));
    }
    for metric in METRICS {
        let of_metric: Vec<_> = found.iter().filter(|(row, ..)| row.metric == metric).collect();
        let mut start = range.0;
        for (row, start_at, end_at) in of_metric {
            ensure!(*start_at == start, "{row:?} begins elsewhere than {start}");
            start = *end_at;
            let used = inside
                .iter()
                .filter(|used| used.metric == metric && (*start_at..*end_at).contains(&used.at));
            let (mut amount, mut events) = (0, 0);
            for one in used {
                amount += one.amount;
                events += 1;
            }
            ensure!(
                (row.amount, row.value, row.events) == (amount, amount, events),
                "{row:?}: {amount} of {events}"
            );
        }
        ensure!(start == range.1, "{metric} ends at {start}");
    }
    Ok(())
}

async fn a_report_of_another_account_or_question_is_refused(fleet: &mut Fleet) -> Result<()> {
    let (app, _, range) = with_events(fleet).await?;
    upsert_account(&app, "globex").await?;
    let events = query(range, ReportGranularity::Event);
    let page = |account: &str, query: &ReportQuery, page_token: &str| GenerateUsageReportRequest {
        account_id: account.to_owned(),
        query: Some(query.clone()),
        page_size: 5,
        page_token: page_token.to_owned(),
    };
    let first = app
        .usage
        .clone()
        .generate_usage_report(page(ACCOUNT, &events, ""))
        .await?
        .into_inner();
    let token = first.next_page_token;
    let narrower = ReportQuery {
        source: "application".to_owned(),
        ..events.clone()
    };
    let refused = refusal(Code::InvalidArgument, ErrorReason::PageTokenInvalid).of("page_token");
    for (what, account, query, token) in [
        ("another account", "globex", &events, token.as_str()),
        ("another question", ACCOUNT, &narrower, &token),
        ("no token", ACCOUNT, &events, "00.00"),
    ] {
        let answer = app
            .usage
            .clone()
            .generate_usage_report(page(account, query, token))
            .await;
        check_refusal(what, answer, refused)?;
    }
    let unknown = ReportQuery {
        metrics: vec![METRICS[0].to_owned(), "api.nothing".to_owned()],
        ..events.clone()
    };
    let answer = app
        .usage
        .clone()
        .generate_usage_report(page(ACCOUNT, &unknown, ""))
        .await;
    let no_metric = not_found(ErrorReason::MetricNotFound).of("query.metrics[1]");
    check_refusal("a metric that is none", answer, no_metric)?;
    let answer = app
        .usage
        .clone()
        .generate_usage_report(page("nobody", &events, ""))
        .await;
    check_refusal(
        "an account that is none",
        answer,
        not_found(ErrorReason::AccountNotFound).of("account_id"),
    )?;

    let job_id = created(&app, "r-1", &events).await?;
    done(&app, &job_id).await?;
    let no_report = not_found(ErrorReason::ReportNotFound);
    let answer = download(&app, "globex", &job_id).await.map(Response::new);
    check_refusal("another account's file", answer, no_report)?;
    for (account, job_id) in [("globex", job_id.as_str()), (ACCOUNT, "none"), (ACCOUNT, "")] {
        let (account_id, job_id) = (account.to_owned(), job_id.to_owned());
        let request = GetUsageReportJobRequest { account_id, job_id };
        let answer = app.usage.clone().get_usage_report_job(request).await;
        check_refusal("another account's report", answer, no_report)?;
    }
    let (account_id, job_id) = ("globex".to_owned(), job_id);
    let request = CancelUsageReportJobRequest { account_id, job_id };
    let answer = app.usage.clone().cancel_usage_report_job(request).await;
    check_refusal("another account's report", answer, no_report)
}

async fn a_report_is_taken_along_over_rest(fleet: &mut Fleet) -> Result<()> {
    let (ann, eve) = (
        signed_up(fleet, "ann@example.com").await?,
        signed_up(fleet, "eve@example.com").await?,
    );
    let session = ann.get("/api/auth/session").await?.expect(200)?;
    let account = session["account"]["account_id"].as_str().context("no account")?;
    let (_, program) = new_key(&ann, &["usage.read"]).await?;
    let app = fleet.clients(APPLICATION)?;
    let all = some_events(now(), 150);
    record(&app, account, &all).await?;
    let range = (now() - (31 * 24).hours(), now() + 1.hour());
    let inside = expected(&all, range, |_| true);
    let (from, to) = (range.0.to_string(), range.1.to_string());

    let mut cursor = String::new();
    let mut ids = Vec::new();
    loop {
        let path = format!("/api/account/usage/report?from={from}&to={to}&limit=40{cursor}");
        let page = program.get(&path).await?.expect(200)?;
        ensure!(page["report"]["zone"] == "UTC", "{page}");
        for row in page["rows"].as_array().context("no rows")? {
            ids.push(row["event_id"].as_str().context("no id")?.to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected_ids: Vec<&str> = inside.iter().map(|used| used.event_id.as_str()).collect();
    ensure!(ids == expected_ids, "{ids:?}");

    let path = format!("/api/account/usage/report?from={from}&to={to}&zone={ZONE}&columns=note");
    let csv = program
        .send(Method::GET, &path, |request| request.header("accept", "text/csv"))
        .await?;
    ensure!(csv.header("content-type").starts_with("text/csv"), "{csv:?}");
    ensure!(
        csv.header("content-disposition").starts_with("attachment"),
        "{csv:?}"
    );
    check_csv(&csv.text, &inside, ZONE)?;

    let body = json!({ "request_id": "r-1", "from": from, "to": to, "granularity": "event", "zone": ZONE, "property_columns": ["note"] });
    let made = ann.post("/api/account/usage/reports", &body).await?;
    let location = made.header("location").to_owned();
    made.expect(202)?;
    let job = eventually("the report is written", async || {
        let job = program.get(&location).await?.expect(200)?;
        ensure!(job["state"] == "done", "{job}");
        Ok(job)
    })
    .await?;
    let file = job["download"].as_str().context("no file")?;
    let downloaded = program.get(file).await?;
    ensure!(downloaded.text == csv.text, "another file than the stream");
    let reports = ann.get("/api/account/usage/reports").await?.expect(200)?;
    ensure!(reports["reports"][0]["job_id"] == job["job_id"], "{reports}");
    for path in [location.as_str(), file] {
        let answer = eve.get(path).await?;
        ensure!(answer.refusal(404)? == "REPORT_NOT_FOUND", "{answer:?}");
    }
    ensure!(eve.delete(&location).await?.refusal(404)? == "REPORT_NOT_FOUND");
    let ended = program.delete(&location).await?.expect(200)?;
    ensure!(ended["state"] == "cancelled", "{ended}");
    ensure!(program.get(file).await?.refusal(400)? == "REPORT_WITHOUT_FILE");
    Ok(())
}
