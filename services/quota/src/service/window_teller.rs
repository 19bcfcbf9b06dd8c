//! Tells windows of events that quota recorded itself, before the bus does. What is told at the same time shares one
//! transaction: on one account everything waits for the same few rows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use octroi_core::{AccountId, Units};
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    gather::{Bounds, Gather},
};
use sqlx::PgConnection;

use super::follow_ledger::overdrawn;
use crate::store::{self, AccountWindow, Applied, Change};

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

/// Which accounts have more used than their limits had left.
type Overdrawn = BTreeSet<AccountId>;

/// Tells windows. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct WindowTeller(Gather<Vec<Untold>, Result<Overdrawn, DatabaseError>>);

impl WindowTeller {
    pub(super) fn start(db: &Db) -> Self {
        let db = db.clone();
        Self(Gather::start(BOUNDS, move |requests| {
            tell_together(db.clone(), requests)
        }))
    }

    /// Adds what the events of a request change to their windows, where these were not told before.
    pub(super) async fn tell(&self, untold: Vec<Untold>) -> Result<Overdrawn, DatabaseError> {
        self.0.ask(untold).await?
    }
}

async fn tell_together(db: Db, requests: Vec<Vec<Untold>>) -> Vec<Result<Overdrawn, DatabaseError>> {
    let accounts: Vec<Overdrawn> = (requests.iter())
        .map(|untold| untold.iter().map(|one| one.applied.account.clone()).collect())
        .collect();
    let untold: Vec<Untold> = requests.into_iter().flatten().collect();
    let now = db.clock().now();
    let told = db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move { tell(connection, &untold, now).await })
    });
    match told.await {
        Ok(overdrawn) => (accounts.iter())
            .map(|accounts| Ok(accounts.intersection(&overdrawn).cloned().collect()))
            .collect(),
        Err(error) => accounts.iter().map(|_| Err(error.shared())).collect(),
    }
}

async fn tell(
    connection: &mut PgConnection,
    untold: &[Untold],
    now: Timestamp,
) -> Result<Overdrawn, DatabaseError> {
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
    let limited: BTreeMap<AccountWindow, Units> = windows
        .filter_map(|(window, max)| Some((window.clone(), (*max)?)))
        .collect();
    overdrawn(connection, &limited.into_iter().collect::<Vec<_>>()).await
}
