//! What quota does with events: it follows the ledger, and takes entitlements by their second road.

use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{AccountId, MetricSlug, Units, Violations};
use octroi_kit::{
    bus::Queue,
    convert::from_proto_time,
    db::Db,
    inbox,
    inbox::{Consumer, Turn},
    outbox::Wake,
};
use octroi_proto::{
    events::v1::{AccountZoneChanged, SubscriptionChanged, UsageCorrected, UsageRecorded},
    quota::v1::ApplyEntitlementsRequest,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    convert,
    error::Error,
    service::{
        Service, Used, apply,
        follow_corrections::{Corrected, CorrectedWindows},
        follow_ledger::{self, Followed},
    },
};

/// What commits of the ledger come by.
pub const LEDGER_QUEUE: &str = "quota.usage";
/// What corrections of the ledger come by.
pub const CORRECTIONS_QUEUE: &str = "quota.usage_corrections";

/// Adds each commit of the ledger to its windows, once, and lets thresholds fire.
pub fn usage(db: &Db, wake: &Wake, service: &Service) -> Consumer {
    // Commits touch the same windows, so what waits is followed together.
    let queue = Queue {
        concurrency: Queue::CONCURRENCY_MAX,
        ..Queue::new(LEDGER_QUEUE, &["usage.recorded"])
    };
    let (prepare, follow, finish) = (service.clone(), service.clone(), service.clone());
    inbox::gathered_consumer(
        db,
        queue,
        wake,
        (
            move |event: UsageRecorded| {
                let service = prepare.clone();
                async move { service.read_windows(uses(&event)?).await }
            },
            Followed::weight,
        ),
        move |connection: &mut PgConnection, commits: Vec<(Arc<Followed>, Turn)>| {
            let service = follow.clone();
            Box::pin(async move {
                let all = Followed::of_all(commits.iter().map(|(commit, _)| commit.as_ref()));
                let is_first = |(_, turn): &&(_, Turn)| *turn == Turn::First;
                let done = if commits.iter().all(|commit| is_first(&commit)) {
                    follow_ledger::follow_ledger(connection, &all).await
                } else {
                    let first = commits.iter().filter(is_first);
                    let first = Followed::of_all(first.map(|(commit, _)| commit.as_ref()));
                    follow_ledger::follow_ledger(connection, &first).await
                };
                done.inspect_err(|error| service.limits_outdated(error))?;
                Ok::<_, Error>(all.follow_up(connection).await?)
            })
        },
        move |follow_up| {
            let service = finish.clone();
            async move { service.windows_followed(follow_up).await }
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
                charged: usage.charged_amount,
                event_at,
                returned: usage.returned,
                source: usage.source.clone(),
                event_id: usage.event_id.clone(),
            });
        }
    }
    violations.finish()?;
    Ok(uses)
}

/// Lets open windows follow what corrects the ledger, once.
pub fn corrections(db: &Db, wake: &Wake, service: &Service) -> Consumer {
    let queue = Queue::new(CORRECTIONS_QUEUE, &["usage.corrected"]);
    let (prepare, follow, finish) = (service.clone(), service.clone(), service.clone());
    inbox::prepared_consumer(
        db,
        queue,
        wake,
        move |event: UsageCorrected| {
            let service = prepare.clone();
            async move { service.read_corrected_windows(corrected(&event)?).await }
        },
        move |connection: &mut PgConnection, corrected: CorrectedWindows, turn| {
            let service = follow.clone();
            Box::pin(async move {
                let followed = corrected.followed(connection).await;
                let (followed, accounts) = followed.inspect_err(|error| service.limits_outdated(error))?;
                if turn == Turn::First {
                    follow_ledger::follow_ledger(connection, &followed).await?;
                }
                Ok::<_, Error>((followed.follow_up(connection).await?, accounts))
            })
        },
        move |told| {
            let service = finish.clone();
            async move { service.corrections_followed(told).await }
        },
    )
}

fn corrected(event: &UsageCorrected) -> Result<Vec<Corrected>, Violations> {
    let mut violations = Violations::default();
    let mut corrections = Vec::with_capacity(event.corrections.len());
    for (index, one) in event.corrections.iter().enumerate() {
        let field = |name: &str| format!("corrections[{index}].{name}");
        let account = violations.take(field("account_id"), AccountId::parse(&one.account_id));
        let metric = violations.take(field("metric"), MetricSlug::parse(&one.metric));
        let mut time = |name: &str, time: Option<prost_types::Timestamp>| {
            from_proto_time(&field(name), &time.unwrap_or_default(), &mut violations)
        };
        let event_at = time("event_time", one.event_time);
        let recorded_at = time("record_time", one.record_time);
        let mut amount = |name: &str, amount: u64| violations.take(field(name), Units::new(amount));
        let before = amount("amount_before", one.amount_before);
        let after = amount("amount_after", one.amount_after);
        let told_by = match one.after_message_id.as_str() {
            // Of before messages said so.
            "" => None,
            id => {
                let id = violations.take(field("after_message_id"), Uuid::parse_str(id));
                let at = one.after_time.unwrap_or_default();
                id.zip(from_proto_time(&field("after_time"), &at, &mut violations))
            }
        };
        let read = account
            .zip(metric)
            .zip(event_at.zip(recorded_at))
            .zip(before.zip(after));
        if let Some((((account, metric), (event_at, recorded_at)), (before, after))) = read {
            let change = after.as_i64() - before.as_i64();
            corrections.push(Corrected {
                account,
                metric,
                event_at,
                recorded_at,
                change: if one.returned { -change } else { change },
                after: told_by,
            });
        }
    }
    violations.finish()?;
    Ok(corrections)
}

/// Takes what billing pushes, where the push itself did not arrive.
pub fn entitlements(db: &Db, wake: &Wake, service: &Service) -> Consumer {
    let queue = Queue::new("quota.entitlements", &["billing.subscription_changed"]);
    let (clock, after) = (db.clock().clone(), service.clone());
    inbox::prepared_consumer(
        db,
        queue,
        wake,
        async |event: SubscriptionChanged| {
            let request = ApplyEntitlementsRequest {
                account_id: event.account_id,
                version: event.version,
                entitlements: event.entitlements,
                anchor_time: event.anchor_time,
                stage: event.stage,
            };
            Ok::<_, Error>(convert::from_proto_apply(&request)?)
        },
        move |connection: &mut PgConnection, (account, given), turn| {
            let clock = clock.clone();
            Box::pin(async move {
                if turn == Turn::Again {
                    return Ok(account);
                }
                match apply::apply_entitlements(connection, &account, &given, &clock).await {
                    // The push was faster, or a newer one came first.
                    Ok(_) | Err(Error::VersionStale { .. }) => Ok(account),
                    Err(error) => Err(error),
                }
            })
        },
        move |account: AccountId| {
            let service = after.clone();
            async move {
                service.limits_changed(&account).await;
                Ok(())
            }
        },
    )
}

/// Lets windows follow another zone, from the end of those that run.
pub fn zones(db: &Db, wake: &Wake, service: &Service) -> Consumer {
    let queue = Queue::new("quota.zones", &["account.zone_changed"]);
    let (clock, after) = (db.clock().clone(), service.clone());
    inbox::prepared_consumer(
        db,
        queue,
        wake,
        async |event: AccountZoneChanged| {
            let mut violations = Violations::default();
            let account = violations.take("account_id", AccountId::parse(&event.account_id));
            let zone = violations.take("zone", TimeZone::get(&event.zone));
            let (account, zone) = account.zip(zone).ok_or(violations)?;
            Ok::<_, Error>((account, zone, event.version))
        },
        move |connection: &mut PgConnection, (account, zone, version): (AccountId, TimeZone, u64), turn| {
            let now = clock.now();
            Box::pin(async move {
                if turn == Turn::First {
                    apply::change_zone(connection, &account, (&zone, version), now).await?;
                }
                Ok(account)
            })
        },
        move |account: AccountId| {
            let service = after.clone();
            async move {
                service.limits_changed(&account).await;
                Ok(())
            }
        },
    )
}
