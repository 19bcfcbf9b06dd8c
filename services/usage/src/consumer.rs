//! What usage does with events: it adds its own commits to the rollups.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::Violations;
use octroi_kit::{bus::Queue, convert::from_proto_time, db::Db, inbox, inbox::Consumer, outbox::Wake};
use octroi_proto::events::v1::UsageRecorded;
use sqlx::PgConnection;

use crate::{domain::buckets::quarter_of, error::Error, store};

/// Adds each commit of the ledger to the rollups, once.
pub fn rollup(db: &Db, wake: &Wake) -> Consumer {
    // Commits touch the same buckets, so more at once would only wait for each other's rows.
    let queue = Queue {
        concurrency: 2,
        ..Queue::new("usage.rollup", &["usage.recorded"])
    };
    inbox::consumer(
        db,
        queue,
        wake,
        |connection: &mut PgConnection, event: UsageRecorded| {
            Box::pin(async move {
                let increments = increments(&event)?;
                store::add_to_rollups(connection, &increments).await?;
                Ok::<(), Error>(())
            })
        },
    )
}

type Bucket = (String, String, Timestamp);

/// The commit's events summed by bucket, in one order, so that two commits never wait for each other in a
/// circle.
fn increments(event: &UsageRecorded) -> Result<BTreeMap<Bucket, store::Increment>, Violations> {
    let mut increments: BTreeMap<Bucket, store::Increment> = BTreeMap::new();
    let mut violations = Violations::default();
    for (index, usage) in event.events.iter().enumerate() {
        let field = format!("events[{index}].event_time");
        let time = usage.event_time.unwrap_or_default();
        let Some(event_at) = from_proto_time(&field, &time, &mut violations) else {
            continue;
        };
        let bucket = (
            usage.account_id.clone(),
            usage.metric.clone(),
            quarter_of(event_at),
        );
        let increment = increments.entry(bucket).or_default();
        // The rollups say what was taken; what was given back of a LEVEL is in the ledger and in the level.
        if !usage.returned {
            increment.amount += u128::from(usage.amount);
        }
        increment.events += 1;
    }
    violations.finish()?;
    Ok(increments)
}

#[cfg(test)]
mod tests {
    use octroi_kit::convert::to_proto_time;
    use octroi_proto::events::v1::RecordedUsage;

    use super::*;

    fn usage(account: &str, amount: u64, at: &str) -> RecordedUsage {
        RecordedUsage {
            account_id: account.into(),
            metric: "api.requests".into(),
            amount,
            event_time: Some(to_proto_time(at.parse().expect("an instant"))),
            ..RecordedUsage::default()
        }
    }

    #[test]
    fn events_of_one_quarter_of_an_hour_become_one_increment() {
        let most = (1 << 53) - 1;
        let event = UsageRecorded {
            events: vec![
                usage("a", most, "2026-03-01T10:00:00Z"),
                usage("a", most, "2026-03-01T10:14:59.999999Z"),
                usage("a", 1, "2026-03-01T10:15:00Z"),
                usage("b", 1, "2026-03-01T10:00:00Z"),
            ],
            ledger_transaction: 1,
        };
        let increments: Vec<_> = increments(&event).expect("good times").into_values().collect();
        assert_eq!(increments.len(), 3);
        assert_eq!(
            increments[0],
            store::Increment {
                amount: u128::from(most) * 2,
                events: 2
            }
        );
    }
}
