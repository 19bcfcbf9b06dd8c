//! Between the contract's words and the domain's.

mod anomalies;
mod corrections;
mod events;
mod forecast;
mod reports;
mod results;
mod slices;
mod stats;

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, Metric, MetricSlug, Source, Units, Violations, Window, source};
use octroi_kit::convert::{from_proto_metric, from_proto_time, to_proto_time};
use octroi_proto::usage::v1 as proto;

pub use self::{
    anomalies::{
        ANOMALIES_LIST, from_proto_anomalies_query, to_proto_anomalies, to_proto_anomaly_kind, to_proto_peak,
    },
    corrections::{from_proto_amend, from_proto_void, to_proto_correction_results, to_proto_event_view},
    events::{EVENTS_LIST, from_proto_events_query},
    forecast::{from_proto_forecast, to_proto_forecasts},
    reports::{
        REPORT_JOBS_LIST, from_proto_job, from_proto_jobs_page, from_proto_report_page,
        from_proto_report_query, from_proto_request_id, report_list, to_proto_job, to_proto_report_page,
    },
    results::{to_proto_batch_refusal, to_proto_batches_result, to_proto_result},
    slices::from_proto_seal,
    stats::{from_proto_stats_query, to_proto_stats},
};
use self::{corrections::to_proto_standing, slices::from_proto_charges};
use crate::{
    domain::{
        event::{ContentHash, Event, Identity, Origin, RecordedEvent},
        sums::TotalsQuery,
    },
    service::{LedgerTotals, Recorded},
};

/// The most metrics of one question.
const METRICS_MAX: usize = 16;
const PROPERTIES_MAX: usize = 16;
const PROPERTY_VALUE_BYTES_MAX: usize = 256;

/// Reads the hash of the request that events are made of.
///
/// # Errors
/// [`Violations`] where it is neither absent nor 32 bytes.
pub fn from_proto_content_hash(content_hash: &[u8]) -> Result<Option<ContentHash>, Violations> {
    if content_hash.is_empty() {
        return Ok(None);
    }
    let mut violations = Violations::default();
    let read = violations.take(
        "content_hash",
        ContentHash::try_from(content_hash).map_err(|_| "must be 32 bytes or absent"),
    );
    violations.finish()?;
    Ok(read)
}

/// Reads an event; `caller` is its default source, and may be quota. Fields are named as they stand in the event.
///
/// # Errors
/// Every violation found.
pub fn from_proto_event(
    event: proto::UsageEvent,
    caller: &str,
    by_quota: bool,
    backfill: bool,
) -> Result<Event, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&event.account_id));
    let event_id = violations.take("event_id", EventId::parse(&event.event_id));
    let source = if event.source.is_empty() {
        caller
    } else {
        &event.source
    };
    let source = violations.take("source", Source::parse(source));
    let metric = violations.take("metric", MetricSlug::parse(&event.metric));
    let amount = violations.take("amount", Units::positive(event.amount));
    let event_at = event
        .event_time
        .as_ref()
        .and_then(|time| from_proto_time("event_time", time, &mut violations));
    let origin = match proto::Origin::try_from(event.origin) {
        Ok(proto::Origin::Unspecified | proto::Origin::Direct) => Origin::Direct,
        Ok(proto::Origin::Decision) => Origin::Decision,
        Ok(proto::Origin::Return) => Origin::Return,
        Ok(proto::Origin::Denial) => Origin::Denial,
        Err(_) => {
            violations.add("origin", "must be one of the named values");
            Origin::Direct
        }
    };
    check_source(&event.source, by_quota, &mut violations);
    check_properties("properties", &event.properties, &mut violations);
    let charges = from_proto_charges(&event, &mut violations);
    // Whatever is missing was noted, so the fields are there once `finish` is passed.
    let read = account.zip(source).zip(event_id).zip(metric.zip(amount));
    violations.clone().finish()?;
    let (((account, source), event_id), (metric, amount)) = read.ok_or(violations)?;
    Ok(Event {
        identity: Identity {
            account,
            source,
            event_id,
        },
        metric,
        amount,
        event_at,
        properties: event.properties.into_iter().collect(),
        origin,
        backfill,
        charges,
    })
}

fn check_source(name: &str, by_quota: bool, violations: &mut Violations) {
    let kept = source::OF_QUOTA.iter().find(|kept| name.starts_with(**kept));
    if let Some(kept) = kept.filter(|_| !by_quota) {
        violations.add(
            "source",
            format!("must not begin with {kept}, which is kept for quota"),
        );
    }
}

fn check_properties(
    field: &str,
    properties: &std::collections::HashMap<String, String>,
    violations: &mut Violations,
) {
    if properties.len() > PROPERTIES_MAX {
        violations.add(field, format!("must hold at most {PROPERTIES_MAX} properties"));
    }
    for (key, value) in properties {
        let good = (1..=64).contains(&key.len())
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if !good {
            violations.add(field, "must have keys of 1 to 64 of [A-Za-z0-9_.-]");
        }
        if value.len() > PROPERTY_VALUE_BYTES_MAX || value.contains('\0') {
            violations.add(
                format!("{field}.{key}"),
                "must be at most 256 bytes and hold no NUL",
            );
        }
    }
}

/// What became of an event.
pub fn to_proto_recorded(recorded: &Recorded) -> proto::TrackUsageResponse {
    proto::TrackUsageResponse {
        duplicate: recorded.duplicate,
        record_time: Some(to_proto_time(recorded.recorded_at)),
    }
}

fn from_proto_metrics(metrics: &[String], violations: &mut Violations) -> Vec<MetricSlug> {
    if metrics.is_empty() {
        violations.add("metrics", format!("must name 1 to {METRICS_MAX} metrics"));
    }
    from_proto_some_metrics(metrics, violations)
}

/// Reads metrics, of which there may be none.
fn from_proto_some_metrics(metrics: &[String], violations: &mut Violations) -> Vec<MetricSlug> {
    if metrics.len() > METRICS_MAX {
        violations.add("metrics", format!("must name at most {METRICS_MAX} metrics"));
    }
    let mut read: Vec<MetricSlug> = Vec::with_capacity(metrics.len());
    for (index, metric) in metrics.iter().enumerate() {
        let field = format!("metrics[{index}]");
        let Some(metric) = violations.take(field.as_str(), MetricSlug::parse(metric)) else {
            continue;
        };
        if read.contains(&metric) {
            violations.add(field, "must not be named twice");
        }
        read.push(metric);
    }
    read
}

fn required_time(
    field: &str,
    time: Option<&prost_types::Timestamp>,
    violations: &mut Violations,
) -> Option<Timestamp> {
    match time {
        Some(time) => from_proto_time(field, time, violations),
        None => {
            violations.add(field, "must be given");
            None
        }
    }
}

/// Reads what totals are asked for.
///
/// # Errors
/// Every violation found.
pub fn from_proto_totals_query(request: &proto::GetLedgerTotalsRequest) -> Result<TotalsQuery, Violations> {
    let mut violations = Violations::default();
    let account = if request.account_id.is_empty() {
        None
    } else {
        violations.take("account_id", AccountId::parse(&request.account_id))
    };
    let metrics = from_proto_metrics(&request.metrics, &mut violations);
    let mut time = |field, time: Option<&prost_types::Timestamp>, default| {
        time.map_or(Some(default), |time| {
            from_proto_time(field, time, &mut violations)
        })
        .unwrap_or(default)
    };
    let start = time("start_time", request.start_time.as_ref(), Window::LIFETIME.start);
    let end = time("end_time", request.end_time.as_ref(), Window::LIFETIME.end);
    let source = if request.source.is_empty() {
        None
    } else {
        violations.take("source", Source::parse(&request.source))
    };
    violations.finish()?;
    Ok(TotalsQuery {
        account,
        metrics,
        range: Window { start, end },
        source,
        rollups: !request.skip_rollups,
    })
}

/// Totals, on the wire.
pub fn to_proto_totals(totals: LedgerTotals) -> proto::GetLedgerTotalsResponse {
    let lines = totals.metrics.into_iter().map(|total| proto::LedgerTotal {
        metric: total.metric.to_string(),
        decided_amount: total.decided.get(),
        direct_amount: total.direct.get(),
        events: total.events,
        rollup_amount: total.rollup.get(),
        returned_amount: total.returned.get(),
        charged_amount: total.charged.get(),
    });
    proto::GetLedgerTotalsResponse {
        totals: lines.collect(),
        rollup_lag_events: totals.rollup_lag_events,
        ledger_snapshot: totals.ledger_snapshot,
    }
}

/// Reads which event is asked for; `caller` is its default source.
///
/// # Errors
/// Every violation found.
pub fn from_proto_identity(
    request: &proto::GetUsageEventRequest,
    caller: &str,
) -> Result<Identity, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let source = if request.source.is_empty() {
        caller
    } else {
        &request.source
    };
    let source = violations.take("source", Source::parse(source));
    let event_id = violations.take("event_id", EventId::parse(&request.event_id));
    let read = account.zip(source).zip(event_id);
    let ((account, source), event_id) = read.ok_or(violations)?;
    Ok(Identity {
        account,
        source,
        event_id,
    })
}

/// One event of the ledger, on the wire.
pub fn to_proto_recorded_event(recorded: RecordedEvent) -> proto::RecordedEvent {
    let event = recorded.event;
    let properties: BTreeMap<String, String> = event.properties;
    proto::RecordedEvent {
        event: Some(proto::UsageEvent {
            account_id: event.identity.account.to_string(),
            event_id: event.identity.event_id.to_string(),
            source: event.identity.source.to_string(),
            metric: event.metric.to_string(),
            amount: event.amount.as_i64(),
            event_time: event.event_at.map(to_proto_time),
            properties: properties.into_iter().collect(),
            origin: match event.origin {
                Origin::Direct => proto::Origin::Direct.into(),
                Origin::Decision => proto::Origin::Decision.into(),
                Origin::Return => proto::Origin::Return.into(),
                Origin::Denial => proto::Origin::Denial.into(),
            },
            charges: Vec::new(),
        }),
        record_time: Some(to_proto_time(recorded.recorded_at)),
        charged_amount: recorded.charged.get(),
        standing: Some(to_proto_standing(recorded.standing)),
    }
}

/// Reads the catalog that billing pushes.
///
/// # Errors
/// Every violation found.
pub fn from_proto_catalog(request: &proto::ApplyCatalogRequest) -> Result<(u64, Vec<Metric>), Violations> {
    let mut violations = Violations::default();
    if request.version == 0 || i64::try_from(request.version).is_err() {
        violations.add("version", "must be at least 1");
    }
    let mut metrics = Vec::with_capacity(request.metrics.len());
    for (index, metric) in request.metrics.iter().enumerate() {
        metrics.extend(from_proto_metric(
            &format!("metrics[{index}]"),
            metric,
            &mut violations,
        ));
    }
    violations.finish()?;
    Ok((request.version, metrics))
}

#[cfg(test)]
mod tests {
    use octroi_core::ErrorKind;
    use octroi_kit::directory::DirectoryError;

    use super::*;
    use crate::error::Error;

    #[test]
    fn the_refusal_of_an_item_has_code_reason_field_and_sentence() {
        let account = || AccountId::parse("acme").expect("an id");
        let mut violations = Violations::default();
        violations.add("amount", "must be 1");
        let reused = Error::EventIdReused {
            event_id: "e-1".into(),
            source_name: "app".into(),
        };
        let metric = MetricSlug::parse("api.nothing").expect("a slug");
        let late = Error::EventTimeOutOfRange {
            field: "event_time".into(),
        };
        for (error, kind, reason, field) in [
            (
                Error::Invalid(violations),
                ErrorKind::Invalid,
                "FIELD_INVALID",
                "events[2].amount",
            ),
            (
                late,
                ErrorKind::Invalid,
                "EVENT_TIME_OUT_OF_RANGE",
                "events[2].event_time",
            ),
            (
                Error::MetricNotFound {
                    metric,
                    field: "metric".to_owned(),
                },
                ErrorKind::NotFound,
                "METRIC_NOT_FOUND",
                "events[2].metric",
            ),
            (
                Error::Account(DirectoryError::NotFound(account())),
                ErrorKind::NotFound,
                "ACCOUNT_NOT_FOUND",
                "events[2].account_id",
            ),
            (
                Error::Account(DirectoryError::Closed(account())),
                ErrorKind::Precondition,
                "ACCOUNT_CLOSED",
                "",
            ),
            (reused, ErrorKind::AlreadyExists, "EVENT_ID_REUSED", ""),
            (
                Error::DecisionForbidden,
                ErrorKind::Forbidden,
                "CALLER_FORBIDDEN",
                "",
            ),
            (Error::BatchRefused, ErrorKind::Conflict, "BATCH_REFUSED", ""),
        ] {
            let sentence = error.to_string();
            let result = to_proto_result(&Err::<Recorded, _>(error.within("events[2]")));
            let Some(proto::track_usage_result::Outcome::Error(item)) = result.outcome else {
                panic!("{sentence}: no error");
            };
            let found = (item.code, item.reason.as_str(), item.field.as_str());
            assert_eq!(found, (kind.grpc_code(), reason, field));
            assert!(item.message.ends_with(&sentence), "{}", item.message);
        }
    }

    #[test]
    fn a_content_hash_is_absent_or_32_bytes() {
        assert_eq!(from_proto_content_hash(&[]), Ok(None));
        assert_eq!(from_proto_content_hash(&[7; 32]), Ok(Some([7; 32])));
        for length in [1, 31, 33] {
            let violations = from_proto_content_hash(&vec![7; length]).expect_err("another length");
            assert_eq!(violations.first_field(), Some("content_hash"));
        }
    }

    #[test]
    fn what_quota_records_has_sources_of_its_own() {
        for source in ["decision:app", "hold:app", "record:app", "return:app"] {
            let event = || proto::UsageEvent {
                account_id: "acme".into(),
                event_id: "e-1".into(),
                source: source.into(),
                metric: "api.requests".into(),
                amount: 1,
                ..proto::UsageEvent::default()
            };
            let refused = from_proto_event(event(), "app", false, false);
            assert_eq!(refused.expect_err("not quota").first_field(), Some("source"));
            assert!(from_proto_event(event(), "quota", true, false).is_ok());
        }
    }
}
