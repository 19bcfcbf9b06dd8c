//! Anomalies, between the wire and the domain.

use jiff::Timestamp;
use octroi_core::{AccountId, Units, Violations, Window};
use octroi_kit::{
    convert::{from_proto_time, to_proto_time},
    page::{InvalidPageToken, PageTokens, page_size},
};
use octroi_proto::{common::v1 as common, usage::v1 as proto};

use super::from_proto_some_metrics;
use crate::{
    domain::anomaly::{AnomaliesQuery, Anomaly, Kind, Peak},
    error::Error,
};

/// The list that page tokens of anomalies belong to.
pub const ANOMALIES_LIST: &str = "anomalies";

/// Reads which anomalies are asked for, and how many rows a page has.
///
/// # Errors
/// [`Error`] that names each field.
pub fn from_proto_anomalies_query(
    request: &proto::ListAnomaliesRequest,
    pages: &PageTokens,
) -> Result<(AnomaliesQuery, i64), Error> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let metrics = from_proto_some_metrics(&request.metrics, &mut violations);
    let mut time = |field, time: Option<&prost_types::Timestamp>, default| {
        let read = time.map_or(Some(default), |time| {
            from_proto_time(field, time, &mut violations)
        });
        read.unwrap_or(default)
    };
    let range = Window {
        start: time("start_time", request.start_time.as_ref(), Window::LIFETIME.start),
        end: time("end_time", request.end_time.as_ref(), Window::LIFETIME.end),
    };
    if range.end <= range.start {
        violations.add("end_time", "must be after start_time");
    }
    let kind = match common::AnomalyKind::try_from(request.kind) {
        Ok(common::AnomalyKind::Unspecified) => None,
        Ok(common::AnomalyKind::Spike) => Some(Kind::Spike),
        Ok(common::AnomalyKind::Drop) => Some(Kind::Drop),
        Err(_) => {
            violations.add("kind", "must be one of the named values");
            None
        }
    };
    let rows = page_size(request.page_size, &mut violations);
    violations.clone().finish()?;
    let account = account.ok_or(violations)?;
    let after = pages
        .read(ANOMALIES_LIST, account.as_str(), &request.page_token)?
        .map(|cursor| cursor.parse().map_err(|_| InvalidPageToken))
        .transpose()?;
    let query = AnomaliesQuery {
        account,
        metrics,
        range,
        kind,
        after,
    };
    Ok((query, rows))
}

/// A kind, on the wire.
pub fn to_proto_anomaly_kind(kind: Kind) -> i32 {
    match kind {
        Kind::Spike => common::AnomalyKind::Spike.into(),
        Kind::Drop => common::AnomalyKind::Drop.into(),
    }
}

/// The hour that is farthest from what is expected, on the wire.
pub fn to_proto_peak(peak: &Peak) -> common::AnomalousHour {
    common::AnomalousHour {
        start_time: Some(to_proto_time(peak.start_at)),
        actual_amount: peak.actual,
        expected_amount: peak.expected,
        low_amount: peak.low,
        high_amount: peak.high,
        score_thousandths: peak.score,
    }
}

/// A page of anomalies, on the wire.
pub fn to_proto_anomalies(
    anomalies: &[Anomaly],
    next_page_token: String,
    looked_until: Option<Timestamp>,
) -> proto::ListAnomaliesResponse {
    proto::ListAnomaliesResponse {
        anomalies: anomalies
            .iter()
            .map(|anomaly| to_proto_anomaly(anomaly, looked_until))
            .collect(),
        next_page_token,
        looked_until_time: looked_until.map(to_proto_time),
    }
}

fn to_proto_anomaly(anomaly: &Anomaly, looked_until: Option<Timestamp>) -> proto::Anomaly {
    let course = &anomaly.course;
    proto::Anomaly {
        anomaly_id: anomaly.id.to_string(),
        metric: anomaly.metric.to_string(),
        kind: to_proto_anomaly_kind(course.kind),
        start_time: Some(to_proto_time(course.start_at)),
        end_time: Some(to_proto_time(course.end_at)),
        hours: course.hours,
        ongoing: looked_until.is_some_and(|looked_until| anomaly.is_ongoing(looked_until)),
        peak: Some(to_proto_peak(&course.peak)),
        actual_amount: counted(course.actual),
        expected_amount: counted(course.expected),
        detect_time: Some(to_proto_time(anomaly.detected_at)),
    }
}

/// A sum; more than can be counted is the most that can.
fn counted(sum: u128) -> u64 {
    u64::try_from(sum).map_or(Units::MAX.get(), |sum| sum.min(Units::MAX.get()))
}
