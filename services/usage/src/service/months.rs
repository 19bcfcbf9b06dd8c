//! The months of the ledger: made before anything is recorded in them, dropped when the policy says so.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, Db, Scope};
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    domain::months::{Month, made_ahead, oldest},
    store,
};

/// How often months are made and dropped.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// How many keys of events in months that are gone one statement forgets.
const KEYS_AT_ONCE: i64 = 5_000;

/// The months that are known to be there.
pub(super) struct Months {
    db: Db,
    /// How many months are kept; 0 keeps all.
    kept: u32,
    known: RwLock<HashSet<Month>>,
}

impl Months {
    pub(super) fn new(db: Db, kept: u32) -> Self {
        Self {
            db,
            kept,
            known: RwLock::default(),
        }
    }

    /// The oldest month that anything is recorded in.
    pub(super) fn oldest(&self, now: Timestamp) -> Month {
        oldest(now, self.kept)
    }

    /// Makes the months of these instants where they are not there.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub(super) async fn make(&self, instants: impl Iterator<Item = Timestamp>) -> Result<(), DatabaseError> {
        let missing: HashSet<Month> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            instants
                .map(Month::of)
                .filter(|month| !known.contains(month))
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let months: Vec<Month> = missing.iter().copied().collect();
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::make_months(connection, &months).await })
            })
            .await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(missing);
        Ok(())
    }

    /// Makes the months ahead, and drops those that are not kept any more.
    async fn keep(&self) -> Result<(), DatabaseError> {
        let now = self.db.clock().now();
        self.make(made_ahead(now).into_iter().map(Month::start_at))
            .await?;
        if self.kept == 0 {
            return Ok(());
        }
        let oldest = self.oldest(now);
        self.drop_before(oldest).await?;
        // What is gone cannot come again, because an event of its time is refused: its key can go as well.
        while self.forget_before(oldest).await? >= KEYS_AT_ONCE.unsigned_abs() {}
        Ok(())
    }

    async fn drop_before(&self, oldest: Month) -> Result<(), DatabaseError> {
        let dropped: Vec<Month> = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let mut dropped = Vec::new();
                    for (month, table) in store::list_months(connection).await? {
                        if month < oldest {
                            store::drop_month(connection, &table).await?;
                            dropped.push(month);
                        }
                    }
                    Ok::<_, DatabaseError>(dropped)
                })
            })
            .await?;
        if !dropped.is_empty() {
            tracing::info!(months = dropped.len(), before = %oldest.start_at(), "months of the ledger were dropped");
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|month| *month >= oldest);
        Ok(())
    }

    async fn forget_before(&self, oldest: Month) -> Result<u64, DatabaseError> {
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::delete_keys_before(connection, oldest.start_at(), KEYS_AT_ONCE).await
                })
            })
            .await
    }
}

impl Service {
    /// Keeps the months of the ledger, until `stop`.
    pub async fn keep_months(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.months.keep().await {
                tracing::warn!(error = %error, "the months of the ledger are not kept");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(KEEP_EVERY) => {}
            }
        }
    }
}
