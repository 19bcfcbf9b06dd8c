//! Use out of the ordinary, as the event tells it.

use octroi_core::{AccountId, MetricSlug, Units, Violations, Window};
use octroi_kit::convert::from_proto_time;
use octroi_proto::{common::v1::AnomalyKind, events::v1 as events};
use uuid::Uuid;

use crate::domain::anomaly::{AnomalyDetected, Side};

/// An anomaly and whose it is, or all that is wrong with the event.
pub(crate) fn from_proto_anomaly_detected(
    event: &events::AnomalyDetected,
) -> Result<(AccountId, AnomalyDetected), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&event.account_id));
    let anomaly_id = Uuid::try_parse(&event.anomaly_id).map_err(|_| "must be the id of an anomaly");
    let anomaly_id = violations.take("anomaly_id", anomaly_id);
    let metric = violations.take("metric", MetricSlug::parse(&event.metric));
    let side = match event.kind() {
        AnomalyKind::Spike => Some(Side::Spike),
        AnomalyKind::Drop => Some(Side::Drop),
        AnomalyKind::Unspecified => {
            violations.add("kind", "must be one of the named values");
            None
        }
    };
    let peak = event.peak.unwrap_or_default();
    let mut time = |field: &str, time: Option<&prost_types::Timestamp>| {
        from_proto_time(field, &time.copied()?, &mut violations)
    };
    let start = time("start_time", event.start_time.as_ref());
    let end = time("end_time", event.end_time.as_ref());
    let peak_at = time("peak.start_time", peak.start_time.as_ref());
    for (field, missing) in [
        ("start_time", event.start_time.is_none()),
        ("end_time", event.end_time.is_none()),
        ("peak.start_time", peak.start_time.is_none()),
    ] {
        if missing {
            violations.add(field, "must be given");
        }
    }
    let used = violations.take("peak.actual_amount", Units::new(peak.actual_amount));
    let low = violations.take("peak.low_amount", Units::new(peak.low_amount));
    let high = violations.take("peak.high_amount", Units::new(peak.high_amount));
    let detected = || {
        Some(AnomalyDetected {
            anomaly_id: anomaly_id?,
            metric: metric?,
            side: side?,
            range: Window {
                start: start?,
                end: end?,
            },
            peak_at: peak_at?,
            used: used?,
            low: low?,
            high: high?,
            grown: event.grown,
        })
    };
    match (account, detected()) {
        (Some(account), Some(detected)) if violations.0.is_empty() => Ok((account, detected)),
        _ => Err(violations),
    }
}

#[cfg(test)]
mod tests {
    use octroi_kit::convert::to_proto_time;
    use octroi_proto::common::v1::AnomalousHour;

    use super::*;
    use crate::domain::anomaly::tests::example;

    fn event() -> events::AnomalyDetected {
        events::AnomalyDetected {
            account_id: "acme".into(),
            anomaly_id: example().anomaly_id.to_string(),
            metric: "api.requests".into(),
            kind: AnomalyKind::Spike.into(),
            start_time: Some(to_proto_time(example().range.start)),
            end_time: Some(to_proto_time(example().range.end)),
            peak: Some(AnomalousHour {
                start_time: Some(to_proto_time(example().peak_at)),
                actual_amount: 8_012,
                expected_amount: 1_000,
                low_amount: 400,
                high_amount: 1_600,
                score_thousandths: 50_000,
            }),
            grown: false,
        }
    }

    #[track_caller]
    fn check(change: fn(&mut events::AnomalyDetected), field: &str) {
        let mut event = event();
        change(&mut event);
        let found = from_proto_anomaly_detected(&event).expect_err("a fault");
        assert_eq!(found.first_field(), Some(field));
    }

    #[test]
    fn an_event_is_read_or_says_what_is_wrong_with_it() {
        let read = from_proto_anomaly_detected(&event()).map(|(_, detected)| detected);
        assert_eq!(read, Ok(example()));
        check(|event| event.account_id.clear(), "account_id");
        check(|event| event.anomaly_id.clear(), "anomaly_id");
        check(|event| event.metric = "No slug".into(), "metric");
        check(|event| event.kind = 0, "kind");
        check(|event| event.end_time = None, "end_time");
        check(|event| event.peak = None, "peak.start_time");
        let too_much = |event: &mut events::AnomalyDetected| {
            event.peak.as_mut().expect("a peak").actual_amount = u64::MAX;
        };
        check(too_much, "peak.actual_amount");
    }
}
