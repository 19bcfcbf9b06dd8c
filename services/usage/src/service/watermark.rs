//! `GetWatermark`: up to when the rollups have all that the ledger recorded.

use jiff::{SignedDuration, Timestamp};
use octroi_kit::db::{DatabaseError, Scope};

use super::Service;
use crate::{error::Error, store};

/// How far the clock of a replica may be from the database's, and what lies between its reading and a commit's beginning.
const MARGIN: SignedDuration = SignedDuration::from_secs(1);

/// How far the rollups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// What was recorded before this instant is in the rollups.
    pub at: Timestamp,
    /// Events and corrections that the rollups do not have yet.
    pub lag_events: u64,
}

impl Service {
    /// How far the rollups are.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn get_watermark(&self) -> Result<Watermark, Error> {
        let clock = self.db.clock().clone();
        let watermark = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let now = clock.now();
                    let (oldest, running) = store::find_oldest(connection).await?;
                    // What has not committed yet was recorded no earlier than its transaction began.
                    let begun = now - running - MARGIN;
                    Ok::<_, DatabaseError>(Watermark {
                        at: oldest.map_or(begun, |oldest| oldest.min(begun)),
                        lag_events: store::count_rollup_lag(connection).await?,
                    })
                })
            })
            .await?;
        Ok(watermark)
    }
}
