//! The months of the ledger: made before anything is recorded in them, dropped when the policy says so.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, Db, Scope};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    domain::months::{Month, made_ahead, oldest},
    error::Error,
    store,
};

/// How often months are made and dropped.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// How many blocks of keys one statement reads: 1 MiB, about 10,000 keys.
const BLOCKS_AT_ONCE: i64 = 128;
/// What other work gets between two statements.
const PAUSE: Duration = Duration::from_millis(20);

/// The months that are there.
pub(super) struct Months {
    db: Db,
    /// How many months are kept; 0 keeps all.
    kept: u32,
    seen: RwLock<Seen>,
}

/// What was last seen of the months.
struct Seen {
    /// Some of those that are there.
    made: HashSet<Month>,
    /// Below it there are none.
    floor: Month,
}

impl Months {
    pub(super) fn new(db: Db, kept: u32) -> Self {
        let seen = Seen {
            made: HashSet::new(),
            floor: Month::of(Timestamp::MIN),
        };
        Self {
            db,
            kept,
            seen: RwLock::new(seen),
        }
    }

    /// The oldest month that anything is recorded in.
    pub(super) fn oldest(&self, now: Timestamp) -> Month {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        oldest(now, self.kept).max(seen.floor)
    }

    /// Makes the months of these instants where they are not there.
    ///
    /// # Errors
    /// [`Error::EventTimeOutOfRange`] where one lies below the floor, which another process has raised.
    pub(super) async fn make(&self, instants: impl Iterator<Item = Timestamp>) -> Result<(), Error> {
        let missing: HashSet<Month> = {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            instants
                .map(Month::of)
                .filter(|month| !seen.made.contains(month))
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let months: Vec<Month> = missing.iter().copied().collect();
        let refused = self
            .transaction(move |connection| {
                Box::pin(async move { store::make_months(connection, &months).await })
            })
            .await?;
        let is_refused = !refused.is_empty();
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.made
            .extend(missing.into_iter().filter(|month| !refused.contains(month)));
        if is_refused {
            return Err(Error::EventTimeOutOfRange {
                field: "event_time".to_owned(),
            });
        }
        Ok(())
    }

    /// Looks at the months again, because a commit failed: one may be gone.
    pub(super) fn forget(&self) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.made.clear();
    }

    /// Makes the months ahead, and drops those that are not kept any more, and then their keys: what is gone cannot come
    /// again, because the floor is raised first.
    async fn keep(&self) -> Result<(), Error> {
        let now = self.db.clock().now();
        let policy = (self.kept > 0).then(|| oldest(now, self.kept));
        let floor = self
            .transaction(move |connection| {
                Box::pin(async move {
                    match policy {
                        Some(month) => store::raise_floor(connection, month).await,
                        None => store::get_floor(connection).await,
                    }
                })
            })
            .await?;
        self.see_floor(floor);
        self.make(
            made_ahead(now)
                .into_iter()
                .map(Month::start_at)
                .filter(|at| *at >= floor.start_at()),
        )
        .await?;
        let months = self
            .transaction(|connection| Box::pin(store::list_months(connection)))
            .await?;
        // What programs of the version before have added to the rollups and left here: the watermark waits for it.
        self.transaction(|connection| Box::pin(store::delete_added(connection)))
            .await?;
        let gone = || months.iter().filter(|(month, _)| *month < floor).cloned();
        for (month, table) in gone() {
            tracing::info!(table, before = %floor.start_at(), "a month of the ledger is dropped");
            self.transaction(move |connection| {
                Box::pin(async move { store::drop_month(connection, month, &table).await })
            })
            .await?;
        }
        let floor_at = floor.start_at();
        self.transaction(move |connection| {
            Box::pin(async move {
                // Programs of the version before leave the corrections of months that they drop.
                store::delete_corrections_before(connection, floor_at).await
            })
        })
        .await?;
        if gone().next().is_some() {
            self.forget_keys_before(floor_at).await?;
        }
        Ok(())
    }

    fn see_floor(&self, floor: Month) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.floor = floor;
        seen.made.retain(|month| *month >= floor);
    }

    async fn forget_keys_before(&self, before: Timestamp) -> Result<(), DatabaseError> {
        for part in 0..store::KEY_PARTS {
            let blocks = self
                .transaction(move |connection| Box::pin(store::count_key_blocks(connection, part)))
                .await?;
            let mut first = 0;
            while first < blocks {
                let next = first + BLOCKS_AT_ONCE;
                self.transaction(move |connection| {
                    Box::pin(store::delete_keys_in(connection, part, first..next, before))
                })
                .await?;
                first = next;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn transaction<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, DatabaseError>> + Send + 'static,
    {
        self.db.transaction(Scope::AllAccounts, work).await
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
