//! `/api/account/usage/report`: what was used, row by row: a page of JSON, or all of it as CSV.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use octroi_proto::usage::v1::{
    self as proto, GenerateUsageReportRequest, ReportQuery, StreamUsageReportRequest, report_row::Row,
};
use serde::Serialize;
use tonic::Streaming;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{Aggregation, Origin, ReportGranularity, cursor, optional_time, part, time},
    edge::Edge,
    problem::{Names, Problem},
    query::Query,
};

/// How the parameters are called in the contract and here.
const NAMES: Names = &[
    ("page_size", "limit"),
    ("page_token", "cursor"),
    ("query.start_time", "from"),
    ("query.end_time", "to"),
    ("query.properties", "property"),
    ("query.property_columns", "columns"),
    ("query", ""),
];

/// What one metric comes to over the range.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportTotal {
    metric: String,
    /// How its amounts become one figure; `unknown` for reports that were written in the background.
    aggregation: Aggregation,
    /// The sum of amounts.
    amount: u64,
    /// The number of events.
    events: u64,
    /// The figure by the aggregation.
    value: u64,
    /// The figure is an estimate.
    estimated: bool,
}

/// What a report is of.
#[derive(Serialize, ToSchema)]
pub(crate) struct Report {
    /// The metrics that were asked for; none means all.
    metrics: Vec<String>,
    /// The first instant.
    from: Timestamp,
    /// The first instant after the range.
    to: Timestamp,
    granularity: ReportGranularity,
    /// The zone that was used.
    zone: String,
    /// The source that was asked for; null means all.
    source: Option<String>,
    /// The properties that were asked for.
    properties: BTreeMap<String, String>,
    /// The properties that are columns of CSV.
    property_columns: Vec<String>,
    /// Only what was recorded before this instant is in it; null while it is not written.
    record_time_bound: Option<Timestamp>,
    /// The figures of the whole range, where they are known.
    totals: Vec<ReportTotal>,
}

/// One event.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventRow {
    metric: String,
    event_time: Timestamp,
    event_id: String,
    source: String,
    amount: u64,
    origin: Origin,
    /// When the ledger recorded it.
    record_time: Timestamp,
    properties: BTreeMap<String, String>,
}

/// One metric in one hour, day or month.
#[derive(Serialize, ToSchema)]
pub(crate) struct BucketRow {
    metric: String,
    aggregation: Aggregation,
    start_time: Timestamp,
    /// The first instant after the bucket.
    end_time: Timestamp,
    /// The sum of amounts.
    amount: u64,
    /// The number of events.
    events: u64,
    /// The figure by the aggregation; 0 without events.
    value: u64,
    /// The figure is an estimate, with a standard error of 1.6 %.
    estimated: bool,
}

/// One row: an event, or the figures of a metric in a stretch of time, by the granularity.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ReportRow {
    /// An event.
    Event(EventRow),
    /// A bucket.
    Bucket(BucketRow),
}

/// A page of a report.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportPage {
    report: Report,
    /// There may be fewer than asked for, or none, and more behind them.
    rows: Vec<ReportRow>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
}

pub(crate) fn to_json_report(report: proto::UsageReport) -> Result<Report, Problem> {
    let query = part(report.query, "what a report is of")?;
    let total = |total: proto::ReportTotal| ReportTotal {
        metric: total.metric,
        aggregation: Aggregation::from_proto(total.aggregation),
        amount: total.amount,
        events: total.events,
        value: total.value,
        estimated: total.estimated,
    };
    let granularity = ReportGranularity::from_proto(query.granularity);
    Ok(Report {
        metrics: query.metrics,
        from: time(query.start_time.as_ref())?,
        to: time(query.end_time.as_ref())?,
        granularity: part(granularity, "a granularity that is known here")?,
        zone: query.zone,
        source: Some(query.source).filter(|source| !source.is_empty()),
        properties: query.properties.into_iter().collect(),
        property_columns: query.property_columns,
        record_time_bound: optional_time(report.record_time_bound.as_ref())?,
        totals: report.totals.into_iter().map(total).collect(),
    })
}

fn to_json_row(row: proto::ReportRow) -> Result<ReportRow, Problem> {
    Ok(match part(row.row, "a row")? {
        Row::Event(event) => ReportRow::Event(EventRow {
            event_time: time(event.event_time.as_ref())?,
            record_time: time(event.record_time.as_ref())?,
            metric: event.metric,
            event_id: event.event_id,
            source: event.source,
            amount: event.amount,
            origin: match (event.decided, event.returned) {
                (_, true) => Origin::Return,
                (true, false) => Origin::Decision,
                (false, false) => Origin::Direct,
            },
            properties: event.properties.into_iter().collect(),
        }),
        Row::Bucket(bucket) => ReportRow::Bucket(BucketRow {
            start_time: time(bucket.start_time.as_ref())?,
            end_time: time(bucket.end_time.as_ref())?,
            metric: bucket.metric,
            aggregation: Aggregation::from_proto(bucket.aggregation),
            amount: bucket.amount,
            events: bucket.events,
            value: bucket.value,
            estimated: bucket.estimated,
        }),
    })
}

/// CSV that is sent as it is read: what the client does not take is not read from the service either. Where the service
/// breaks off, so does the answer, which is then no whole one.
pub(crate) fn csv<M: Send + 'static>(
    pieces: Streaming<M>,
    bytes: impl Fn(M) -> Vec<u8> + Send + 'static,
    file: &str,
) -> Response {
    let pieces = pieces.map(move |piece| match piece {
        Ok(piece) => Ok(Bytes::from(bytes(piece))),
        Err(status) => {
            tracing::warn!(grpc.code = ?status.code(), error = status.message(), "a report was cut off");
            Err(status)
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
    );
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{file}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// What the file of a report is called: of letters that every system takes.
pub(crate) fn file_name(account: &str, from: Timestamp, to: Timestamp) -> String {
    let account = account.replace(':', "-");
    let (from, to) = (from.strftime("%Y-%m-%d"), to.strftime("%Y-%m-%d"));
    format!("usage_{account}_{from}_{to}.csv")
}

/// What was used, row by row.
///
/// Rows come metric by metric, and of each metric oldest first. As JSON it is a page of them; with `format=csv`, or where
/// `text/csv` is accepted, all of them are sent as CSV (RFC 4180) while they are read. A report of too many rows for that is
/// made by `POST /api/account/usage/reports`.
#[utoipa::path(
    get, path = "/api/account/usage/report", operation_id = "generateUsageReport", tag = "account",
    params(
        ("metrics" = Option<String>, Query, description = "Up to 16 metrics, separated by commas; absent means all that were used."),
        ("from" = Timestamp, Query, description = "The first instant (RFC 3339)."),
        ("to" = Timestamp, Query, description = "The first instant after the range."),
        ("granularity" = Option<ReportGranularity>, Query, description = "What one row is; absent means an event."),
        ("zone" = Option<String>, Query, description = "The IANA zone of hours, days and months, and of times in CSV; absent means the account's."),
        ("source" = Option<String>, Query, description = "Only what this source said."),
        ("property" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
         description = "Only events that have these properties, such as `property[region]=eu`."),
        ("columns" = Option<String>, Query, description = "Up to 16 properties that are columns of CSV, separated by commas."),
        ("format" = Option<String>, Query, description = "`json` or `csv`; absent means what is accepted."),
        ("limit" = Option<u32>, Query, minimum = 1, description = "Of JSON: how many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Of JSON: where to go on, from the page before.")
    ),
    responses((status = 200, description = "A page, or the whole report.",
               content((ReportPage = "application/json"), (String = "text/csv"))))
)]
pub(crate) async fn usage_report(
    State(edge): State<Edge>,
    caller: Caller,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let is_csv = query.wants_csv(&headers);
    let asked = ReportQuery {
        metrics: query.list("metrics"),
        start_time: query.required_instant("from"),
        end_time: query.required_instant("to"),
        granularity: query.report_granularity("granularity"),
        zone: query.text("zone").unwrap_or_default(),
        source: query.text("source").unwrap_or_default(),
        properties: query.object("property"),
        property_columns: query.list("columns"),
    };
    if is_csv {
        query.finish()?;
        return stream(&edge, &caller, asked).await;
    }
    let (page_size, page_token) = query.page();
    query.finish()?;
    let request = GenerateUsageReportRequest {
        account_id: caller.account_id(),
        query: Some(asked),
        page_size,
        page_token,
    };
    let answer = edge
        .usage()
        .generate_usage_report(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?
        .into_inner();
    let rows = answer.rows.into_iter().map(to_json_row);
    let page = ReportPage {
        report: to_json_report(part(answer.report, "a report")?)?,
        rows: rows.collect::<Result<_, _>>()?,
        next_cursor: cursor(answer.next_page_token),
    };
    Ok(Json(page).into_response())
}

async fn stream(edge: &Edge, caller: &Caller, query: ReportQuery) -> Result<Response, Problem> {
    let (from, to) = (time(query.start_time.as_ref())?, time(query.end_time.as_ref())?);
    let file = file_name(caller.account.as_str(), from, to);
    let request = StreamUsageReportRequest {
        account_id: caller.account_id(),
        query: Some(query),
    };
    let pieces = edge
        .usage()
        .stream_usage_report(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?
        .into_inner();
    Ok(csv(pieces, |piece| piece.csv, &file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_name_has_no_letter_that_a_system_refuses() {
        let at = |text: &str| text.parse().expect("an instant");
        let name = file_name(
            "org:7.a_b",
            at("2026-03-01T00:00:00Z"),
            at("2026-04-01T00:00:00Z"),
        );
        assert_eq!(name, "usage_org-7.a_b_2026-03-01_2026-04-01.csv");
    }
}
