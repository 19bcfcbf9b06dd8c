//! What is written down of holds. Calls that ask at the same time are answered by one transaction.

use std::collections::{BTreeSet, HashMap};

use octroi_core::AccountId;
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    gather::{Bounds, Gather},
};
use uuid::Uuid;

use crate::{
    domain::hold::OPEN_MAX,
    error::Error,
    store::{self, SliceRow},
};

/// Transactions that run at the same time, and the holds of one.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 500,
    waiting: 20_000,
};

/// A hold, and the account that wants to hold more, where one does.
type Job = (Uuid, Option<AccountId>);

/// What is written down of a hold.
#[derive(Clone, Debug, Default)]
pub(super) struct HoldRows {
    /// Its slices, sealed ones included.
    pub(super) slices: Vec<SliceRow>,
    /// Whether the account has as many open holds as it may.
    pub(super) is_full: bool,
}

/// Reads holds. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct HoldReader(Gather<Job, Result<HoldRows, DatabaseError>>);

impl HoldReader {
    pub(super) fn start(db: &Db) -> Self {
        let db = db.clone();
        Self(Gather::start(BOUNDS, move |jobs| read_together(db.clone(), jobs)))
    }

    /// The slices of a hold, and whether `account`, where it is named, may have no more holds.
    pub(super) async fn read(&self, hold: Uuid, account: Option<&AccountId>) -> Result<HoldRows, Error> {
        Ok(self.0.ask((hold, account.cloned())).await??)
    }
}

async fn read_together(db: Db, jobs: Vec<Job>) -> Vec<Result<HoldRows, DatabaseError>> {
    let holds: BTreeSet<Uuid> = jobs.iter().map(|(hold, _)| *hold).collect();
    let accounts: BTreeSet<AccountId> = jobs.iter().filter_map(|(_, account)| account.clone()).collect();
    let (holds, accounts): (Vec<_>, Vec<_>) = (holds.into_iter().collect(), accounts.into_iter().collect());
    let read = db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let rows = store::list_holds(connection, &holds).await?;
            let full = store::list_full_of_holds(connection, &accounts, OPEN_MAX).await?;
            Ok::<_, DatabaseError>((rows, full))
        })
    });
    let (rows, full) = match read.await {
        Ok(read) => read,
        Err(error) => return jobs.iter().map(|_| Err(error.shared())).collect(),
    };
    let mut by_hold: HashMap<Uuid, Vec<SliceRow>> = HashMap::new();
    for row in rows {
        by_hold.entry(row.owner).or_default().push(row);
    }
    let answer = |(hold, account): &Job| HoldRows {
        slices: by_hold.get(hold).cloned().unwrap_or_default(),
        is_full: account.as_ref().is_some_and(|account| full.contains(account)),
    };
    jobs.iter().map(|job| Ok(answer(job))).collect()
}
