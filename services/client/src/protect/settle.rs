//! Tells the fleet what was used: at once, or from the journal, until it has all of it.

use std::{sync::Weak, time::Duration};

use futures::{StreamExt as _, stream};
use octroi_proto::{
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaRequest, RecordUsageRequest},
};
use tonic::{Request, Status};

use super::{
    Quota, Shared,
    admit::is_away,
    journal::{Entry, Room},
};
use crate::Refusal as _;

/// How often it is tried.
const EVERY: Duration = Duration::from_millis(500);
/// The most that is told at once.
const ENTRIES_AT_ONCE: usize = 1_000;
/// The most calls at once.
const CALLS_AT_ONCE: usize = 16;

/// Whether telling it again would be refused again. Anything else may be taken later: whoever is overloaded, was given
/// another token, or has a fault now.
pub(super) fn is_final(status: &Status) -> bool {
    matches!(
        status.reason(),
        Some(
            ErrorReason::FieldInvalid
                | ErrorReason::FieldRequired
                | ErrorReason::BodyMalformed
                | ErrorReason::BodyTooLarge
                | ErrorReason::AccountNotFound
                | ErrorReason::AccountClosed
                | ErrorReason::MetricNotFound
                | ErrorReason::RequestIdReused
                | ErrorReason::HoldEnded
                | ErrorReason::HoldNotFound
                | ErrorReason::AmountOutOfRange
                | ErrorReason::EventTimeOutOfRange
        )
    )
}

impl Quota {
    /// Tells the fleet what was used, or keeps it where that does not take it now.
    pub(super) async fn settle_or_keep(&self, entry: Entry, room: Option<Room>) {
        if self.0.breaker.lets_through() {
            match self.settle(&entry, Some(self.0.deadline)).await {
                Ok(()) => return self.0.breaker.answered(),
                Err(status) if is_final(&status) => {
                    self.0.breaker.answered();
                    return not_recorded(&entry, &status);
                }
                Err(status) if is_away(&status) => self.0.breaker.failed(),
                Err(_) => self.0.breaker.answered(),
            }
        }
        if let Err(error) = self.0.journal.append(entry, room).await {
            tracing::error!(error = %error, "what was used is not recorded");
        }
    }

    /// Tells the fleet what was used, with this deadline or the client's.
    async fn settle(&self, entry: &Entry, deadline: Option<Duration>) -> Result<(), Status> {
        let mut client = self.0.client.clone();
        match entry {
            Entry::Record(record) => client
                .record_usage(within(record.clone(), deadline))
                .await
                .map(drop),
            Entry::Commit(commit) => client
                .commit_hold(within(commit.clone(), deadline))
                .await
                .map(drop),
            Entry::Consume(unanswered) => {
                let check = unanswered.check.clone().unwrap_or_default();
                let record = RecordUsageRequest {
                    account_id: check.account_id.clone(),
                    items: check.items.clone(),
                    request_id: check.request_id.clone(),
                    event_time: unanswered.at,
                    backfill: true,
                };
                // Where the question had arrived this is its answer, and after a denial no attempt of it is recorded.
                let repeat = CheckQuotaRequest {
                    repeat: true,
                    ..check
                };
                if !client
                    .check_quota(within(repeat, deadline))
                    .await?
                    .into_inner()
                    .allowed
                {
                    client.record_usage(within(record, deadline)).await?;
                }
                Ok(())
            }
        }
    }

    /// Tells what waits, the oldest first, until nothing does or something is not taken. Answers whether all was taken.
    pub(super) async fn tell_oldest(&self) -> bool {
        // Some see whether anybody answers before all are sent.
        let mut at_once = CALLS_AT_ONCE;
        while self.0.journal.len() > 0 {
            let entries = self.0.journal.oldest(at_once);
            let tell = async |(number, entry): (u64, Entry)| match self.settle(&entry, None).await {
                Ok(()) => Some(number),
                Err(status) if is_final(&status) => {
                    not_recorded(&entry, &status);
                    Some(number)
                }
                Err(_) => None,
            };
            let told: Vec<Option<u64>> = stream::iter(entries)
                .map(tell)
                .buffer_unordered(CALLS_AT_ONCE)
                .collect()
                .await;
            let are_all = told.iter().all(Option::is_some);
            let told: Vec<u64> = told.into_iter().flatten().collect();
            self.0.journal.remove(&told);
            if !told.is_empty() {
                // Whoever answers this may be asked by others, too.
                self.0.breaker.answered();
            }
            if !are_all {
                return false;
            }
            at_once = ENTRIES_AT_ONCE;
        }
        true
    }
}

fn within<T>(message: T, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}

/// It would be refused again: somebody must look at it.
fn not_recorded(entry: &Entry, status: &Status) {
    let reason = status.reason().map_or("", |reason| reason.name());
    tracing::error!(
        account.id = entry.account(),
        reason,
        error = status.message(),
        "what was used is not recorded"
    );
}

/// Tells what waits, until nobody has the layers any more.
pub(super) async fn tell(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        Quota(shared).tell_oldest().await;
    }
}
