//! `SealSlices`: nothing is charged to a slice any more, and what was is told.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use octroi_core::Units;
use octroi_kit::db::{DatabaseError, Scope};
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    error::Error,
    store::{self, ToSeal},
};

/// How long a row is kept after nothing could be charged to its slice any more. Until then quota may ask again
/// what was charged; of what it asks later it is told that all of it was.
const KEPT_HOURS: i64 = 35 * 24;
/// How often the others are deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How many one statement deletes.
const ROWS_AT_ONCE: u64 = 5_000;

impl Service {
    /// Seals slices and answers what was charged to each, in their order. It is final, and the same when asked
    /// again.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn seal_slices(&self, slices: Vec<ToSeal>) -> Result<Vec<Units>, Error> {
        let forgotten_before = self.forgotten_before();
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let charged = store::seal_slices(connection, &slices, forgotten_before).await?;
                    let of_slice = |one: &ToSeal| {
                        charged
                            .get(&one.slice)
                            .copied()
                            .ok_or(DatabaseError::RowsAffected {
                                expected: 1,
                                actual: 0,
                            })
                    };
                    let charged: Result<Vec<Units>, DatabaseError> = slices.iter().map(of_slice).collect();
                    Ok(charged?)
                })
            })
            .await
    }

    /// Forgets slices that ended long ago, until `stop`.
    pub async fn prune_slices(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PRUNE_EVERY) => {}
            }
            let before = self.forgotten_before();
            // A statement that deleted as many as it may has left some, perhaps.
            while let Ok(ROWS_AT_ONCE..) = self.delete_ended_slices(before).await {}
        }
    }

    /// Rows of slices that ended before this may be gone.
    fn forgotten_before(&self) -> Timestamp {
        self.db.clock().now() - KEPT_HOURS.hours()
    }

    async fn delete_ended_slices(&self, before: Timestamp) -> Result<u64, DatabaseError> {
        let deleted = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::delete_ended_slices(connection, before, ROWS_AT_ONCE))
            })
            .await;
        deleted.inspect_err(|error| tracing::warn!(error = %error, "slices that ended are not deleted"))
    }
}
