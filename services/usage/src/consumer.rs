//! What usage does with events: it adds its own commits, and what corrects them, to the rollups.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use octroi_core::{Units, Violations};
use octroi_kit::{
    bus::Queue,
    convert::from_proto_time,
    db::Db,
    inbox,
    inbox::{Consumer, Turn},
    outbox::Wake,
};
use octroi_proto::events::v1::{UsageCorrected, UsageRecorded};
use sqlx::PgConnection;

use crate::{
    domain::{buckets::quarter_of, figures::Figures},
    error::Error,
    store::{self, Bucket, Shift},
};

/// Adds each commit of the ledger to the rollups, once.
pub fn rollup(db: &Db, wake: &Wake) -> Consumer {
    // Commits touch the same buckets, so what waits is added together.
    let queue = Queue {
        concurrency: Queue::CONCURRENCY_MAX,
        ..Queue::new("usage.rollup", &["usage.recorded"])
    };
    inbox::gathered_consumer(
        db,
        queue,
        wake,
        (
            async |event: UsageRecorded| Ok::<_, Error>((increments(&event)?, event.ledger_transaction)),
            |((_, events), _)| events.len(),
        ),
        |connection: &mut PgConnection, commits: Vec<(Arc<(Increments, u64)>, Turn)>| {
            Box::pin(async move {
                let (mut increments, mut events): Increments = Default::default();
                let mut transactions = Vec::with_capacity(commits.len());
                for (commit, _) in commits.iter().filter(|(_, turn)| *turn == Turn::First) {
                    let ((of_commit, events_of_commit), transaction) = &**commit;
                    for (bucket, figures) in of_commit {
                        increments.entry(bucket.clone()).or_default().add(figures);
                    }
                    events.extend_from_slice(events_of_commit);
                    transactions.push(*transaction);
                }
                if !transactions.is_empty() {
                    store::add_to_rollups(connection, &increments, &events).await?;
                    store::delete_pending(connection, &transactions).await?;
                }
                Ok::<(), Error>(())
            })
        },
        async |()| Ok(()),
    )
}

/// Adds what corrections change to the rollups, once.
pub fn rollup_corrections(db: &Db, wake: &Wake) -> Consumer {
    let queue = Queue {
        concurrency: 2,
        ..Queue::new("usage.rollup_corrections", &["usage.corrected"])
    };
    inbox::consumer(
        db,
        queue,
        wake,
        |connection: &mut PgConnection, event: UsageCorrected| {
            Box::pin(async move {
                let shifts = shifts(&event)?;
                store::correct_rollups(connection, &shifts).await?;
                store::delete_pending(connection, &[event.ledger_transaction]).await?;
                // The trigger on the days has taken what was added for events that the rollups lacked.
                let events: i64 = shifts.values().map(|shift| shift.events).sum();
                let corrections = i64::try_from(event.corrections.len()).unwrap_or(i64::MAX);
                store::count_lag(connection, events.saturating_sub(corrections)).await?;
                Ok::<(), Error>(())
            })
        },
    )
}

/// How corrections move the sums of their buckets.
fn shifts(event: &UsageCorrected) -> Result<BTreeMap<Bucket, Shift>, Violations> {
    let mut shifts: BTreeMap<Bucket, Shift> = BTreeMap::new();
    let mut violations = Violations::default();
    for (index, one) in event.corrections.iter().enumerate() {
        let field = format!("corrections[{index}].event_time");
        let time = one.event_time.unwrap_or_default();
        let Some(event_at) = from_proto_time(&field, &time, &mut violations) else {
            continue;
        };
        let bucket = Bucket {
            account: one.account_id.clone(),
            metric: one.metric.clone(),
            start_at: quarter_of(event_at),
        };
        let shift = shifts.entry(bucket).or_default();
        if !one.returned {
            shift.amount += i128::from(one.amount_after) - i128::from(one.amount_before);
        }
        shift.events += i64::from(one.counted_after) - i64::from(one.counted_before);
    }
    violations.finish()?;
    Ok(shifts)
}

/// What the commit's events come to by bucket, in one order, so that two commits never wait for each other in a
/// circle, and the bucket and the time of each event.
type Increments = (BTreeMap<Bucket, Figures>, Vec<(Bucket, Timestamp)>);

fn increments(event: &UsageRecorded) -> Result<Increments, Violations> {
    let mut increments: BTreeMap<Bucket, Figures> = BTreeMap::new();
    let mut events = Vec::with_capacity(event.events.len());
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
        events.push((bucket.clone(), event_at));
        increments.entry(bucket).or_default().add(&figures);
    }
    violations.finish()?;
    Ok((increments, events))
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
            record_time: None,
        };
        let (increments, events) = increments(&event).expect("good times");
        assert_eq!(events.len(), 4);
        let increments: Vec<_> = increments.into_values().collect();
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
