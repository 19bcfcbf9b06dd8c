//! Events that arrive.

use octroi_core::Clock;
use octroi_kit::{
    bus::Queue,
    db::Db,
    inbox::{self, Consumer},
    outbox::Wake,
};
use octroi_proto::events::v1::{AnomalyDetected, ThresholdCrossed};

use crate::{
    convert::{from_proto_anomaly_detected, from_proto_threshold_crossed},
    error::Error,
    service,
};

/// Crossed thresholds become notices.
const THRESHOLDS: Queue = Queue::new("notification.thresholds", &["quota.threshold_crossed"]);

/// Use out of the ordinary becomes notices.
const ANOMALIES: Queue = Queue::new("notification.anomalies", &["usage.anomaly_detected"]);

/// Takes `quota.threshold_crossed`.
#[must_use]
pub(crate) fn thresholds(db: &Db, wake: &Wake, per_account_day_max: u32) -> Consumer {
    let clock: Clock = db.clock().clone();
    inbox::consumer(
        db,
        THRESHOLDS,
        wake,
        move |connection, event: ThresholdCrossed| {
            let now = clock.now();
            Box::pin(async move {
                let (account, crossed) = from_proto_threshold_crossed(&event)?;
                service::take_threshold_crossed(connection, &account, &crossed, per_account_day_max, now)
                    .await?;
                Ok::<(), Error>(())
            })
        },
    )
}

/// Takes `usage.anomaly_detected`.
#[must_use]
pub(crate) fn anomalies(db: &Db, wake: &Wake, per_account_day_max: u32) -> Consumer {
    let clock: Clock = db.clock().clone();
    inbox::consumer(db, ANOMALIES, wake, move |connection, event: AnomalyDetected| {
        let now = clock.now();
        Box::pin(async move {
            let (account, detected) = from_proto_anomaly_detected(&event)?;
            service::take_anomaly_detected(connection, &account, &detected, per_account_day_max, now).await?;
            Ok::<(), Error>(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_listen_to_what_the_contract_says() {
        for queue in [THRESHOLDS, ANOMALIES] {
            assert!(octroi_proto::event::QUEUES.contains(&(queue.name, queue.routing_keys)));
        }
    }
}
