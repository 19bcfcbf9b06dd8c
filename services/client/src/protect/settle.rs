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
            Entry::Record(record) => {
                let used = record.used.clone().unwrap_or_default();
                let recorded = match client.record_usage(within(used, deadline)).await {
                    // It was counted when it came before, at another time or with another amount: that stands.
                    Err(status) if status.reason() == Some(ErrorReason::RequestIdReused) => Ok(()),
                    recorded => recorded.map(drop),
                };
                // Where that is not known to be free, it expires.
                if let Some(release) = record.release.clone()
                    && recorded.as_ref().err().is_none_or(is_final)
                    && let Err(status) = client.release_hold(within(release, deadline)).await
                {
                    tracing::warn!(error = %status, reason = ?status.reason(), "a hold is not released, and expires");
                }
                recorded
            }
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

    /// Tells what waits, the oldest first, once, or until nobody answers. Answers whether all was taken.
    pub(super) async fn tell_waiting(&self) -> bool {
        // Some see whether anybody answers before all are sent.
        let (mut at_once, mut behind) = (CALLS_AT_ONCE, None);
        loop {
            let entries = self.0.journal.after(behind, at_once);
            let Some((last, _)) = entries.last() else { break };
            behind = Some(*last);
            let told: Vec<Told> = stream::iter(entries)
                .map(|(number, entry)| self.tell_one(number, entry))
                .buffer_unordered(CALLS_AT_ONCE)
                .collect()
                .await;
            let taken = told.iter().filter_map(|told| match told {
                Told::Taken(number) => Some(*number),
                Told::Later | Told::Away => None,
            });
            self.0.journal.remove(&taken.collect::<Vec<_>>());
            if told.iter().any(|told| matches!(told, Told::Away)) {
                return false;
            }
            // Whoever answers this may be asked by others, too.
            self.0.breaker.answered();
            at_once = ENTRIES_AT_ONCE;
        }
        self.0.journal.len() == 0
    }

    async fn tell_one(&self, number: u64, entry: Option<Entry>) -> Told {
        let Some(entry) = entry else {
            tracing::error!("what a newer program left in the journal is not understood, and not recorded");
            return Told::Taken(number);
        };
        match self.settle(&entry, None).await {
            Ok(()) => Told::Taken(number),
            Err(status) if is_final(&status) => {
                not_recorded(&entry, &status);
                Told::Taken(number)
            }
            Err(status) if is_away(&status) => Told::Away,
            Err(status) => {
                tracing::warn!(error = %status, reason = ?status.reason(), "what was used is recorded later");
                Told::Later
            }
        }
    }
}

/// What became of telling an entry.
enum Told {
    /// It is done with.
    Taken(u64),
    /// It is refused for now.
    Later,
    /// Nobody answers.
    Away,
}

/// A call with this deadline, or the client's.
pub(super) fn within<T>(message: T, deadline: Option<Duration>) -> Request<T> {
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
        Quota(shared).tell_waiting().await;
    }
}
