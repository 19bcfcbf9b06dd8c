//! `/api/account/usage/anomalies`: what was used out of the ordinary.

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::{common::v1 as common, usage::v1 as proto};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{AnomalyKind, AskedAnomalyKind, cursor, optional_time, part, time},
    edge::Edge,
    problem::{Names, Problem},
    query::Query,
};

/// How the parameters of the list are called in the contract and here.
const NAMES: Names = &[
    ("page_size", "limit"),
    ("page_token", "cursor"),
    ("start_time", "from"),
    ("end_time", "to"),
];

/// The hour of an anomaly that is farthest from what is expected.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnomalousHour {
    start_time: Timestamp,
    /// What was used.
    actual_amount: u64,
    /// The median of the same hour of the weeks before.
    expected_amount: u64,
    /// The least that is still expected.
    low_amount: u64,
    /// The most that is still expected.
    high_amount: u64,
    /// How far the use is from the median, in thousandths of a robust deviation.
    score_thousandths: u64,
}

/// Hours of one kind, close to each other, whose use of a metric lies outside of what is expected.
#[derive(Serialize, ToSchema)]
pub(crate) struct Anomaly {
    anomaly_id: String,
    /// The metric's slug.
    metric: String,
    kind: AnomalyKind,
    /// The first instant of its first hour.
    start_time: Timestamp,
    /// The first instant after its last hour so far.
    end_time: Timestamp,
    /// How many of the hours between lie outside.
    hours: u32,
    /// The newest hour that was looked at is one of them.
    ongoing: bool,
    peak: AnomalousHour,
    /// What was used in all of its hours.
    actual_amount: u64,
    /// What is expected of all of its hours.
    expected_amount: u64,
    /// When it was found.
    detect_time: Timestamp,
}

/// A page of anomalies, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Anomalies {
    anomalies: Vec<Anomaly>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
    /// Hours that ended by this instant were looked at; null where none was yet.
    looked_until_time: Option<Timestamp>,
}

fn to_json_peak(peak: common::AnomalousHour) -> Result<AnomalousHour, Problem> {
    Ok(AnomalousHour {
        start_time: time(peak.start_time.as_ref())?,
        actual_amount: peak.actual_amount,
        expected_amount: peak.expected_amount,
        low_amount: peak.low_amount,
        high_amount: peak.high_amount,
        score_thousandths: peak.score_thousandths,
    })
}

fn to_json_anomaly(anomaly: proto::Anomaly) -> Result<Anomaly, Problem> {
    Ok(Anomaly {
        anomaly_id: anomaly.anomaly_id,
        metric: anomaly.metric,
        kind: AnomalyKind::from_proto(anomaly.kind),
        start_time: time(anomaly.start_time.as_ref())?,
        end_time: time(anomaly.end_time.as_ref())?,
        hours: anomaly.hours,
        ongoing: anomaly.ongoing,
        peak: to_json_peak(part(anomaly.peak, "the hour of an anomaly")?)?,
        actual_amount: anomaly.actual_amount,
        expected_amount: anomaly.expected_amount,
        detect_time: time(anomaly.detect_time.as_ref())?,
    })
}

/// What was used out of the ordinary, newest first.
#[utoipa::path(
    get, path = "/api/account/usage/anomalies", operation_id = "listAnomalies", tag = "account",
    params(
        ("metrics" = Option<String>, Query, description = "Only these metrics, separated by commas."),
        ("from" = Option<Timestamp>, Query, description = "Only what had not ended by this instant (RFC 3339)."),
        ("to" = Option<Timestamp>, Query, description = "Only what began before this instant."),
        ("kind" = Option<AskedAnomalyKind>, Query, description = "Only this kind."),
        ("limit" = Option<u32>, Query, minimum = 1, description = "How many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Where to go on, from the page before.")
    ),
    responses((status = 200, description = "A page.", body = Anomalies))
)]
pub(crate) async fn list_anomalies(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Anomalies>, Problem> {
    let (page_size, page_token) = query.page();
    let request = proto::ListAnomaliesRequest {
        account_id: caller.account_id(),
        metrics: query.list("metrics"),
        start_time: query.instant("from"),
        end_time: query.instant("to"),
        kind: query.anomaly_kind("kind"),
        page_size,
        page_token,
    };
    query.finish()?;
    let answer = edge
        .usage()
        .list_anomalies(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?
        .into_inner();
    Ok(Json(Anomalies {
        anomalies: answer
            .anomalies
            .into_iter()
            .map(to_json_anomaly)
            .collect::<Result<_, _>>()?,
        next_cursor: cursor(answer.next_page_token),
        looked_until_time: optional_time(answer.looked_until_time.as_ref())?,
    }))
}
