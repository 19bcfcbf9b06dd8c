//! Events that arrive.

use octroi_core::Clock;
use octroi_kit::{
    bus::Queue,
    db::Db,
    inbox::{self, Consumer},
    outbox::Wake,
};
use octroi_proto::events::v1::ThresholdCrossed;

use crate::{convert::from_proto_threshold_crossed, error::Error, service};

/// Crossed thresholds become notices.
const THRESHOLDS: Queue = Queue::new("notification.thresholds", &["quota.threshold_crossed"]);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_listens_to_what_the_contract_says() {
        assert!(octroi_proto::event::QUEUES.contains(&(THRESHOLDS.name, THRESHOLDS.routing_keys)));
    }
}
