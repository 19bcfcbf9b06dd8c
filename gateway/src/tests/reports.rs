//! Reports: pages, CSV and what is written in the background.

use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;
use octroi_core::ErrorKind;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{self as usage, report_row::Row},
};
use serde_json::json;

use super::JSON;
use crate::testing::{Gateway, by_key, by_session, refusal};

const GENERATE: &str = "/octroi.usage.v1.UsageService/GenerateUsageReport";
const STREAM: &str = "/octroi.usage.v1.UsageService/StreamUsageReport";
const CREATE: &str = "/octroi.usage.v1.UsageService/CreateUsageReport";
const GET: &str = "/octroi.usage.v1.UsageService/GetUsageReportJob";
const DOWNLOAD: &str = "/octroi.usage.v1.UsageService/DownloadUsageReport";

const RANGE: &str = "from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z";
const CSV: &[u8] = b"metric,event_time\r\napi.requests,2026-03-01T00:00:00+00:00\r\n";

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn report(query: usage::ReportQuery) -> Option<usage::UsageReport> {
    Some(usage::UsageReport {
        account_id: "acme".into(),
        query: Some(usage::ReportQuery {
            zone: "UTC".into(),
            ..query
        }),
        record_time_bound: at(1_775_001_600),
        totals: Vec::new(),
    })
}

fn job(state: usage::ReportJobState) -> usage::ReportJob {
    usage::ReportJob {
        job_id: "job-1".into(),
        report: report(usage::ReportQuery {
            start_time: at(1_772_323_200),
            end_time: at(1_775_001_600),
            granularity: usage::ReportGranularity::Event.into(),
            ..usage::ReportQuery::default()
        }),
        state: state.into(),
        file_bytes: CSV.len() as u64,
        create_time: at(1_775_001_600),
        ..usage::ReportJob::default()
    }
}

#[tokio::test]
async fn a_page_has_rows_of_both_kinds_and_says_what_it_is_of() {
    let gateway = Gateway::start().await;
    gateway.answers(GENERATE, |request: usage::GenerateUsageReportRequest| {
        let query = request.query.expect("a question");
        assert_eq!(
            (
                request.account_id.as_str(),
                request.page_size,
                query.metrics.len()
            ),
            ("acme", 7, 2)
        );
        assert_eq!(query.granularity, i32::from(usage::ReportGranularity::Event));
        assert_eq!(query.properties.get("region").map(String::as_str), Some("eu"));
        let event = usage::EventRow {
            metric: "api.requests".into(),
            event_time: at(1_772_323_200),
            event_id: "e-1".into(),
            source: "app".into(),
            amount: 3,
            returned: true,
            record_time: at(1_772_323_201),
            ..usage::EventRow::default()
        };
        let bucket = usage::BucketRow {
            metric: "api.requests".into(),
            start_time: at(1_772_323_200),
            end_time: at(1_772_326_800),
            value: 9,
            ..usage::BucketRow::default()
        };
        let rows = [Row::Event(event), Row::Bucket(bucket)].map(|row| usage::ReportRow { row: Some(row) });
        Ok(usage::GenerateUsageReportResponse {
            report: report(query),
            rows: rows.to_vec(),
            next_page_token: "more".into(),
        })
    });
    let path =
        format!("/api/account/usage/report?{RANGE}&metrics=api.requests,b&limit=7&property[region]=eu");
    let (status, body) = gateway.json(by_session("GET", &path, "")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["rows"][0]["origin"], "return");
    assert_eq!(body["rows"][1]["value"], 9);
    assert_eq!(body["report"]["granularity"], "event");
    assert_eq!(body["report"]["from"], "2026-03-01T00:00:00Z");
    assert_eq!(body["next_cursor"], "more");
}

#[tokio::test]
async fn csv_is_a_file_and_has_no_pages() {
    let gateway = Gateway::start().await;
    gateway.answers(STREAM, |request: usage::StreamUsageReportRequest| {
        assert_eq!(request.account_id, "acme");
        Ok(usage::StreamUsageReportResponse { csv: CSV.to_vec() })
    });
    let path = format!("/api/account/usage/report?{RANGE}");
    let mut accepting = by_key("GET", &path, JSON, "");
    accepting
        .headers_mut()
        .insert(header::ACCEPT, "text/csv".parse().expect("a header"));
    for request in [accepting, by_key("GET", &format!("{path}&format=csv"), JSON, "")] {
        let response = gateway.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(
            headers[header::CONTENT_TYPE],
            "text/csv; charset=utf-8; header=present"
        );
        assert_eq!(
            headers[header::CONTENT_DISPOSITION],
            "attachment; filename=\"usage_acme_2026-03-01_2026-04-01.csv\""
        );
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&bytes[..], CSV);
    }
    let (status, body) = gateway
        .json(by_key("GET", &format!("{path}&format=csv&limit=5"), JSON, ""))
        .await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("limit"))
    );
}

#[tokio::test]
async fn what_the_service_refuses_of_a_report_is_named_as_in_the_address() {
    let gateway = Gateway::start().await;
    gateway.answers(STREAM, |_: usage::StreamUsageReportRequest| {
        let mut violations = octroi_core::Violations::default();
        for field in [
            "query.end_time",
            "query.metrics[0]",
            "query.properties.a",
            "query.property_columns[1]",
        ] {
            violations.add(field, "breaks a rule");
        }
        Err::<usage::StreamUsageReportResponse, _>(octroi_kit::status::to_status(&violations))
    });
    let path = format!("/api/account/usage/report?{RANGE}&format=csv");
    let (status, body) = gateway.json(by_session("GET", &path, "")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for (place, field) in ["to", "metrics[0]", "property.a", "columns[1]"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(body["errors"][place]["field"], field);
    }
    let missing = gateway
        .json(by_session(
            "GET",
            "/api/account/usage/report?granularity=week",
            "",
        ))
        .await;
    let fields: Vec<&str> = missing.1["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["field"].as_str())
        .collect();
    assert_eq!(fields, ["from", "to", "granularity"]);
}

#[tokio::test]
async fn a_report_in_the_background_says_where_it_is_and_then_where_its_file_is() {
    let gateway = Gateway::start().await;
    gateway.answers(CREATE, |request: usage::CreateUsageReportRequest| {
        assert_eq!(request.request_id, "r-1");
        Ok(usage::CreateUsageReportResponse {
            job: Some(job(usage::ReportJobState::Queued)),
        })
    });
    let body = "{\"request_id\":\"r-1\",\"from\":\"2026-03-01T00:00:00Z\",\"to\":\"2026-04-01T00:00:00Z\",\
                \"granularity\":\"event\"}";
    let request = || by_session("POST", "/api/account/usage/reports", body);
    let response = gateway.send(request()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()[header::LOCATION].clone();
    let location = location.to_str().expect("ASCII");
    assert_eq!(location, "/api/account/usage/reports/job-1");
    let (_, queued) = gateway.json(request()).await;
    assert_eq!(
        (&queued["state"], &queued["download"]),
        (&json!("queued"), &json!(null))
    );

    gateway.answers(GET, |_: usage::GetUsageReportJobRequest| {
        Ok(usage::GetUsageReportJobResponse {
            job: Some(job(usage::ReportJobState::Done)),
        })
    });
    gateway.answers(DOWNLOAD, |_: usage::DownloadUsageReportRequest| {
        Ok(usage::DownloadUsageReportResponse { csv: CSV.to_vec() })
    });
    let (_, done) = gateway.json(by_session("GET", location, "")).await;
    let download = done["download"].as_str().expect("a file");
    let response = gateway.send(by_session("GET", download, "")).await;
    assert_eq!(
        response.headers()[header::CONTENT_LENGTH],
        CSV.len().to_string().as_str()
    );
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(&bytes[..], CSV);

    let unknown = "{\"request_id\":\"r-1\",\"account_id\":\"other\"}";
    let (status, body) = gateway
        .json(by_session("POST", "/api/account/usage/reports", unknown))
        .await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("account_id"))
    );
}

#[tokio::test]
async fn a_report_of_another_account_does_not_exist() {
    let gateway = Gateway::start().await;
    gateway.answers(GET, |_: usage::GetUsageReportJobRequest| {
        Err::<usage::GetUsageReportJobResponse, _>(refusal(ErrorKind::NotFound, ErrorReason::ReportNotFound))
    });
    for path in [
        "/api/account/usage/reports/job-9",
        "/api/account/usage/reports/job-9/download",
        "/api/account/usage/reports/%ff",
    ] {
        let (status, body) = gateway.json(by_session("GET", path, "")).await;
        assert_eq!(
            (status.as_u16(), &body["reason"]),
            (404, &json!("REPORT_NOT_FOUND")),
            "{path}"
        );
    }
}
