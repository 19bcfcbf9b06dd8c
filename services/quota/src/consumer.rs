//! What quota does with events: it follows the ledger, and takes entitlements by their second road.

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Violations};
use octroi_kit::{
    bus::Queue,
    convert::from_proto_time,
    db::Db,
    inbox,
    inbox::{Consumer, Turn},
    outbox::Wake,
};
use octroi_proto::{
    events::v1::{SubscriptionChanged, UsageRecorded},
    quota::v1::ApplyEntitlementsRequest,
};
use sqlx::PgConnection;

use crate::{
    convert,
    error::Error,
    service::{Service, Used, apply, follow_ledger},
};

/// Adds each commit of the ledger to its windows, once, and lets thresholds fire.
pub fn usage(db: &Db, wake: &Wake, service: &Service) -> Consumer {
    // Commits touch the same windows, so more at once would only wait for each other's rows.
    let queue = Queue {
        concurrency: 2,
        ..Queue::new("quota.usage", &["usage.recorded"])
    };
    let (prepare, after) = (service.clone(), service.clone());
    inbox::prepared_consumer(
        db,
        queue,
        wake,
        move |event: UsageRecorded| {
            let service = prepare.clone();
            async move { service.read_windows(uses(&event)?).await }
        },
        |connection: &mut PgConnection, followed, turn| {
            Box::pin(async move {
                match turn {
                    Turn::First => follow_ledger::follow_ledger(connection, &followed).await,
                    Turn::Again => follow_ledger::read_direct_totals(connection, &followed).await,
                }
            })
        },
        move |totals| {
            let service = after.clone();
            async move { service.raise_direct(totals).await }
        },
    )
}

fn uses(event: &UsageRecorded) -> Result<Vec<Used>, Violations> {
    let mut violations = Violations::default();
    let mut uses = Vec::with_capacity(event.events.len());
    for (index, usage) in event.events.iter().enumerate() {
        let account = violations.take(
            format!("events[{index}].account_id"),
            AccountId::parse(&usage.account_id),
        );
        let metric = violations.take(
            format!("events[{index}].metric"),
            MetricSlug::parse(&usage.metric),
        );
        let time = usage.event_time.unwrap_or_default();
        let event_at = from_proto_time(&format!("events[{index}].event_time"), &time, &mut violations);
        if let Some(((account, metric), event_at)) = account.zip(metric).zip(event_at) {
            let event_at: Timestamp = event_at;
            uses.push(Used {
                account,
                metric,
                amount: usage.amount,
                event_at,
                decided: usage.decided,
            });
        }
    }
    violations.finish()?;
    Ok(uses)
}

/// Takes what billing pushes, where the push itself did not arrive.
pub fn entitlements(db: &Db, wake: &Wake) -> Consumer {
    let queue = Queue::new("quota.entitlements", &["billing.subscription_changed"]);
    inbox::consumer(
        db,
        queue,
        wake,
        |connection: &mut PgConnection, event: SubscriptionChanged| {
            Box::pin(async move {
                let request = ApplyEntitlementsRequest {
                    account_id: event.account_id,
                    version: event.version,
                    entitlements: event.entitlements,
                    anchor_time: event.anchor_time,
                    stage: event.stage,
                };
                let (account, given) = convert::from_proto_apply(&request)?;
                match apply::apply_entitlements(connection, &account, &given).await {
                    // The push was faster, or a newer one came first.
                    Ok(_) | Err(Error::VersionStale { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            })
        },
    )
}
