//! Deletes what nobody asks for any more.

use std::time::Duration;

use jiff::SignedDuration;
use octroi_kit::db::Scope;
use tokio_util::sync::CancellationToken;

use super::Escrow;
use crate::store;

/// How long holds are remembered to which nothing is charged any more, and what windows were told at once: longer than
/// events may be late.
const KEPT: SignedDuration = SignedDuration::from_hours(40 * 24);
/// How far back it is known for sure what windows were told at once. An event counts up to five minutes after it comes.
pub const TOLD_KNOWN: SignedDuration = SignedDuration::from_hours(39 * 24);
/// How often it is looked for what is older.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);
/// Rows of one statement, so that nobody waits for a long one.
const AT_ONCE: i64 = 1_000;

impl Escrow {
    /// Deletes from time to time what is old, until `stop`.
    pub async fn clean(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CLEAN_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            while !stop.is_cancelled() && self.clean_some().await {}
        }
    }

    /// Answers whether there may be more.
    async fn clean_some(&self) -> bool {
        let before = self.0.db.clock().now() - KEPT;
        let deleted = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::delete_old(connection, before, AT_ONCE))
            })
            .await;
        match deleted {
            Ok(count) => count >= AT_ONCE.unsigned_abs(),
            Err(error) => {
                tracing::debug!(error = %error, "what is old is deleted later");
                false
            }
        }
    }
}
