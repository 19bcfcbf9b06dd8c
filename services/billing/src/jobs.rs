//! What goes on by itself: periods roll over, and what a service has not taken is pushed again.

use std::{sync::Arc, time::Duration};

use octroi_core::ServiceError as _;
use octroi_kit::db::{Db, Scope};
use tokio_util::sync::CancellationToken;

use crate::{domain::billing_period, error::Error, push::Push, store};

/// How often the catalog's push is looked at, which costs one statement where nothing waits.
const CATALOG_INTERVAL: Duration = Duration::from_secs(2);
/// How often entitlements that wait are looked for.
const ENTITLEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// How often ended periods are looked for.
const PERIOD_INTERVAL: Duration = Duration::from_secs(5);
/// How many rows one round takes; what is left is taken at once by the next.
const BATCH: i64 = 100;

/// Pushes the newest catalog until every service took it, also at the start.
pub async fn push_catalog(push: Arc<Push>, stop: CancellationToken) {
    every(CATALOG_INTERVAL, "catalog_push", stop, || {
        let push = push.clone();
        async move { push.push_catalog().await.map(|()| Round::Done) }
    })
    .await;
}

/// Pushes entitlements that the quota service has not taken.
pub async fn push_entitlements(db: Db, push: Arc<Push>, stop: CancellationToken) {
    every(ENTITLEMENT_INTERVAL, "entitlement_push", stop, || {
        let (db, push) = (db.clone(), push.clone());
        async move { push_some_entitlements(&db, &push).await }
    })
    .await;
}

/// Writes the next period of every subscription whose period has ended.
pub async fn roll_periods(db: Db, stop: CancellationToken) {
    every(PERIOD_INTERVAL, "period_roll", stop, || {
        let db = db.clone();
        async move { roll_some_periods(&db).await }
    })
    .await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing is left for now.
    Done,
    /// There may be more.
    More,
}

impl Round {
    fn of(taken: usize) -> Self {
        if i64::try_from(taken).is_ok_and(|taken| taken < BATCH) {
            Self::Done
        } else {
            Self::More
        }
    }
}

async fn every<F>(
    interval: Duration,
    job: &'static str,
    stop: CancellationToken,
    mut round: impl FnMut() -> F,
) where
    F: Future<Output = Result<Round, Error>>,
{
    let mut failing = false;
    loop {
        let answer = round().await;
        let pause = if matches!(answer, Ok(Round::More)) {
            Duration::ZERO
        } else {
            interval
        };
        match &answer {
            // Once an outage, not once a round.
            Err(error) if !failing => {
                tracing::warn!(job, error.reason = error.reason(), error = %error, "a job failed and is tried again");
            }
            Ok(_) if failing => tracing::info!(job, "a job works again"),
            _ => {}
        }
        failing = answer.is_err();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn push_some_entitlements(db: &Db, push: &Push) -> Result<Round, Error> {
    let now = db.clock().now();
    let accounts = db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move {
                Ok::<_, Error>(store::entitlement::claim_entitlements(connection, now, BATCH).await?)
            })
        })
        .await?;
    let taken = accounts.len();
    for account in accounts {
        // One account that is refused does not hold up the others.
        if let Err(error) = push.push_entitlements(&account).await {
            tracing::warn!(
                account.id = %account,
                error.reason = error.reason(),
                error = %error,
                "entitlements were not taken and are pushed again",
            );
        }
    }
    Ok(Round::of(taken))
}

async fn roll_some_periods(db: &Db) -> Result<Round, Error> {
    let now = db.clock().now();
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let ended = store::subscription::lock_ended_periods(connection, now, BATCH).await?;
            for subscription in &ended {
                let (interval, anchor_at) = (subscription.interval, subscription.anchor_at);
                let periods = billing_period::up_to(interval, anchor_at, subscription.period, now);
                let Some(newest) = periods.last() else { continue };
                let (account, id) = (&subscription.account, subscription.id);
                store::subscription::insert_periods(connection, account, id, &periods).await?;
                store::subscription::update_period_end(connection, id, newest.window.end).await?;
            }
            Ok(Round::of(ended.len()))
        })
    })
    .await
}
