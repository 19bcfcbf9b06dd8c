//! What usage does with events: it adds its own commits to the rollups.

use std::collections::BTreeMap;

use octroi_core::{Units, Violations};
use octroi_kit::{bus::Queue, convert::from_proto_time, db::Db, inbox, inbox::Consumer, outbox::Wake};
use octroi_proto::events::v1::UsageRecorded;
use sqlx::PgConnection;

use crate::{
    domain::{buckets::quarter_of, figures::Figures},
    error::Error,
    store::{self, Bucket},
};

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

/// What the commit's events come to by bucket, in one order, so that two commits never wait for each other in a
/// circle.
fn increments(event: &UsageRecorded) -> Result<BTreeMap<Bucket, Figures>, Violations> {
    let mut increments: BTreeMap<Bucket, Figures> = BTreeMap::new();
    let mut violations = Violations::default();
    for (index, usage) in event.events.iter().enumerate() {
        let field = format!("events[{index}].event_time");
        let time = usage.event_time.unwrap_or_default();
        let Some(event_at) = from_proto_time(&field, &time, &mut violations) else {
            continue;
        };
        let field = format!("events[{index}].amount");
        let Some(amount) = violations.take(field, Units::new(usage.amount)) else {
            continue;
        };
        let bucket = Bucket {
            account: usage.account_id.clone(),
            metric: usage.metric.clone(),
            start_at: quarter_of(event_at),
        };
        // The rollups say what was taken; what was given back of a LEVEL is in the ledger and in the level.
        let figures = if usage.returned {
            Figures {
                events: 1,
                ..Figures::default()
            }
        } else {
            Figures::of_one(amount, event_at, usage.distinct_hash)
        };
        increments.entry(bucket).or_default().add(&figures);
    }
    violations.finish()?;
    Ok(increments)
}

#[cfg(test)]
mod tests {
    use octroi_kit::convert::to_proto_time;
    use octroi_proto::events::v1::RecordedUsage;

    use super::*;
    use crate::domain::figures::Latest;

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
            Figures {
                amount: u128::from(most) * 2,
                events: 2,
                max: Some(Units::MAX),
                latest: Some(Latest {
                    event_at: "2026-03-01T10:14:59.999999Z".parse().expect("an instant"),
                    amount: Units::MAX
                }),
                ..Figures::default()
            }
        );
    }
}
