//! Tells windows of events that quota recorded itself, before the bus does. What is told at the same time shares one
//! transaction: on one account everything waits for the same few rows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use octroi_core::{AccountId, ErrorKind, ServiceError as _, Units};
use octroi_kit::{
    db::{DatabaseError, Db, Scope, again_if_busy},
    gather::{Bounds, Gather},
};
use sqlx::PgConnection;

use super::follow_ledger::overdrawn;
use crate::{
    error::Error,
    store::{self, AccountWindow, Applied, Change},
};

/// Transactions that run at the same time, and the requests of one.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 500,
    waiting: 20_000,
};

/// An event with what it changes of its windows, each with the most that it may grant.
#[derive(Clone, Debug)]
pub(super) struct Untold {
    pub(super) applied: Applied,
    pub(super) windows: Vec<(AccountWindow, Option<Units>)>,
    pub(super) change: Change,
}

type Accounts = BTreeSet<AccountId>;

/// Tells windows. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct WindowTeller(Gather<Vec<Untold>, Result<Accounts, DatabaseError>>);

impl WindowTeller {
    pub(super) fn start(db: &Db) -> Self {
        let db = db.clone();
        Self(Gather::start(BOUNDS, move |requests| {
            tell_together(db.clone(), requests)
        }))
    }

    /// Adds what the events of a request change to their windows, where these were not told before. Answers which of its
    /// accounts have more used than their limits had left.
    ///
    /// # Errors
    /// [`Error`] where they cannot be told now.
    pub(super) async fn tell(&self, untold: Vec<Untold>) -> Result<Accounts, Error> {
        Ok(self.0.ask(untold).await??)
    }
}

async fn tell_together(db: Db, requests: Vec<Vec<Untold>>) -> Vec<Result<Accounts, DatabaseError>> {
    let all: Vec<Untold> = requests.iter().flatten().cloned().collect();
    match again_if_busy(|| tell_at_once(&db, all.clone())).await {
        Ok(overdrawn) => {
            let theirs = |untold: &Vec<Untold>| {
                let accounts = untold.iter().map(|one| &one.applied.account);
                accounts
                    .filter(|account| overdrawn.contains(*account))
                    .cloned()
                    .collect()
            };
            requests.iter().map(|untold| Ok(theirs(untold))).collect()
        }
        Err(error) => {
            tracing::warn!(error = %error, error.source = ?std::error::Error::source(&error), "windows cannot be told");
            if error.kind() == ErrorKind::Unavailable || requests.len() == 1 {
                return requests.iter().map(|_| Err(error.shared())).collect();
            }
            // It is the fault of one of them, and the others need not share it.
            let mut answers = Vec::with_capacity(requests.len());
            for untold in requests {
                answers.push(tell_at_once(&db, untold).await);
            }
            answers
        }
    }
}

async fn tell_at_once(db: &Db, untold: Vec<Untold>) -> Result<Accounts, DatabaseError> {
    let now = db.clock().now();
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move { tell(connection, &untold, now).await })
    })
    .await
}

async fn tell(
    connection: &mut PgConnection,
    untold: &[Untold],
    now: Timestamp,
) -> Result<Accounts, DatabaseError> {
    let events: Vec<Applied> = untold.iter().map(|one| one.applied.clone()).collect();
    let mut new = store::insert_applied(connection, &events, now).await?;
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    // Two repeats of one request may come together.
    for one in untold.iter().filter(|one| new.remove(&one.applied)) {
        for (window, _) in &one.windows {
            let sum = changes.entry(window.clone()).or_default();
            sum.overrun += one.change.overrun;
            sum.returned += one.change.returned;
        }
    }
    if !changes.is_empty() {
        store::add_to_windows(connection, &changes).await?;
    }
    let used = untold.iter().filter(|one| one.change.overrun > 0);
    let windows = used.flat_map(|one| &one.windows);
    let mut limited: BTreeMap<AccountWindow, Units> = BTreeMap::new();
    for (window, max) in windows {
        if let Some(max) = *max {
            // One of two requests may have read the limit before it was lowered.
            let least = limited.entry(window.clone()).or_insert(max);
            *least = max.min(*least);
        }
    }
    overdrawn(connection, &limited.into_iter().collect::<Vec<_>>()).await
}
