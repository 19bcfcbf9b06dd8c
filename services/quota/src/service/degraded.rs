//! Decisions while something that decides is away, by the policy of the limits that are asked about: DENY refuses, LEASE
//! goes on with what this replica has for a while, ALLOW goes on. What the ledger cannot be told now is written to the
//! journal first, and told once the ledger is back.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use octroi_core::{AccountId, Charge, ErrorKind, ServiceError as _, UnreachablePolicy};
use octroi_journal::{Entry, JournalError};
use octroi_kit::status::Upstream;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        SliceCharge, TrackUsageBatchRequest, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Service,
    ledger::{LedgerAnswer, Request},
    question::Question,
};
use crate::{convert::from_proto_charge, domain::decision::goes_on_without, error::Error};

/// How long the ledger may take where the policy of a limit does not need it, or a denial, or the end of a hold.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// How often the ledger is told what waits.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How many entries are told at a time.
const ENTRIES_AT_ONCE: usize = 256;
/// How many calls run at the same time.
const CALLS_AT_ONCE: usize = 8;
/// How often the end of the process tries to tell what waits.
const LAST_TRIES: u32 = 8;

/// Whether the ledger is away, so that not every request waits to find it so.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<Option<Instant>>);

impl Reach {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It did not answer.
    pub(super) fn is_away(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// It answered.
    pub(super) fn is_back(&self) {
        *self.lock() = None;
    }

    /// Since when it does not answer.
    pub(super) fn away_for(&self) -> Option<Duration> {
        self.lock().map(|since| since.elapsed())
    }
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// The ledger has it, or never will.
    Done,
    /// It is told again.
    Again,
    /// These slices do not pay.
    Unpaid(BTreeSet<Vec<u8>>),
}

impl Question {
    /// Whether a decision may be answered before the ledger has it, because that is away for no longer than `lease`.
    pub(super) fn may_wait(&self, away_for: Duration, lease: Duration) -> bool {
        goes_on_without(self.policy, away_for, lease)
    }
}

/// Whether an error says that somebody is away, and not what is asked for wrong.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

impl Service {
    pub(super) fn lease(&self) -> Duration {
        self.escrow.lease()
    }

    /// Whether the ledger is known to be away and the question may be answered all the same.
    pub(super) fn goes_without_ledger(&self, question: &Question) -> bool {
        // What is carved while this process ends is nobody's alone.
        let away_for = self.reach.away_for().filter(|_| !self.escrow.is_closing());
        away_for.is_some_and(|away_for| question.may_wait(away_for, self.lease()))
    }

    /// Records a request. Where its policy knows what to do without the ledger, that has not much time for it.
    pub(super) async fn record_in_time(
        &self,
        request: &Request,
        question: &Question,
    ) -> Result<LedgerAnswer, Error> {
        if question.policy == UnreachablePolicy::Deny {
            return self.record(request).await;
        }
        match tokio::time::timeout(PATIENCE, self.record(request)).await {
            Ok(recorded) => recorded,
            Err(_) => {
                self.reach.is_away();
                let late = Status::deadline_exceeded("the ledger did not answer in time");
                Err(Upstream::new("usage", late).into())
            }
        }
    }

    /// Writes what the ledger cannot be told now to the journal. Answers whether it is there.
    pub(super) async fn write_down(&self, request: &Request) -> bool {
        // Before it is there: whoever tells the ledger of it may be faster than this.
        let owe = |owed: bool| {
            for line in &request.lines {
                self.escrow.owe(&request.account, &line.charges, owed);
            }
        };
        owe(true);
        let written = self.journal.append(request.batch(request.events())).await;
        if written.is_err() {
            owe(false);
        }
        match &written {
            Ok(()) => metrics::counter!("octroi_quota_degraded_total").increment(1),
            Err(JournalError::Full) => metrics::counter!("octroi_quota_journal_full_total").increment(1),
            Err(JournalError::Failed(error)) => {
                tracing::error!(error = %error, "a decision is refused because it cannot be written down");
            }
        }
        written.is_ok()
    }

    /// Tells the ledger what waits in the journal, until `stop`.
    pub async fn settle_journal(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
            self.tell_journal().await;
            let waiting = u32::try_from(self.journal.waiting()).unwrap_or(u32::MAX);
            metrics::gauge!("octroi_quota_journal_waiting").set(waiting);
        }
        for _ in 0..LAST_TRIES {
            if self.journal.waiting() == 0 {
                return;
            }
            self.tell_journal().await;
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    async fn tell_journal(&self) {
        let oldest = self.journal.oldest(ENTRIES_AT_ONCE);
        let told: Vec<(u64, Told)> = stream::iter(oldest)
            .map(|entry| async move {
                let number = entry.number;
                (number, self.tell_entry(entry).await)
            })
            .buffer_unordered(CALLS_AT_ONCE)
            .collect()
            .await;
        let done: Vec<u64> = (told.iter())
            .filter(|(_, told)| *told == Told::Done)
            .map(|(number, _)| *number)
            .collect();
        if !done.is_empty() {
            self.reach.is_back();
            self.journal.remove(&done);
        }
    }

    async fn tell_entry(&self, entry: Entry<TrackUsageBatchRequest>) -> Told {
        let request = entry.message;
        let mut refused = BTreeSet::new();
        let told = loop {
            match self.tell_ledger(without(&request, &refused)).await {
                // Slices had ended meanwhile. What they paid for happened, so it is recorded without them, and the others
                // pay; of several events each may be refused in its turn.
                Told::Unpaid(more) if !more.is_subset(&refused) => {
                    metrics::counter!("octroi_quota_journal_unpaid_total").increment(1);
                    refused.extend(more);
                }
                Told::Unpaid(_) => break Told::Again,
                told => break told,
            }
        };
        if told == Told::Done {
            for event in &request.events {
                if let Ok(account) = AccountId::parse(&event.account_id) {
                    let charges: Vec<Charge> = event.charges.iter().filter_map(from_proto_charge).collect();
                    self.escrow.owe(&account, &charges, false);
                }
            }
        }
        told
    }

    async fn tell_ledger(&self, request: TrackUsageBatchRequest) -> Told {
        match self.usage.clone().track_usage_batch(request).await {
            Ok(results) => read(&results.into_inner().results),
            Err(status) => {
                tracing::debug!(error = %status, "a decision is told to the ledger again");
                Told::Again
            }
        }
    }
}

fn read(results: &[TrackUsageResult]) -> Told {
    let refused: BTreeSet<Vec<u8>> = (results.iter())
        .flat_map(|result| result.refused_slice_ids.iter().cloned())
        .collect();
    if !refused.is_empty() {
        return Told::Unpaid(refused);
    }
    let mut told = Told::Done;
    for result in results {
        let Some(Outcome::Error(error)) = &result.outcome else {
            continue;
        };
        match ErrorReason::from_name(&error.reason) {
            // It does not say of which slice.
            Some(ErrorReason::SliceRefused) => told = Told::Again,
            // A repeat of the request was denied elsewhere, and its caller knows that.
            Some(ErrorReason::RequestDenied | ErrorReason::BatchRefused) => {}
            _ if matches!(
                ErrorKind::from_grpc_code(error.code),
                ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal | ErrorKind::OverLimit
            ) =>
            {
                told = Told::Again;
            }
            _ => {
                metrics::counter!("octroi_quota_journal_lost_total").increment(1);
                tracing::error!(
                    reason = error.reason,
                    "a decision that was answered is not recorded"
                );
            }
        }
    }
    told
}

/// The request, without the slices that do not pay.
fn without(request: &TrackUsageBatchRequest, refused: &BTreeSet<Vec<u8>>) -> TrackUsageBatchRequest {
    let pays = |charge: &&SliceCharge| !refused.contains(&charge.slice_id);
    let events = request.events.iter().map(|event| UsageEvent {
        charges: event.charges.iter().filter(pays).cloned().collect(),
        ..event.clone()
    });
    TrackUsageBatchRequest {
        events: events.collect(),
        ..request.clone()
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::usage::v1::{ItemError, TrackUsageResponse};
    use tonic::Code;

    use super::*;

    fn result(reason: Option<(&str, Code)>) -> TrackUsageResult {
        let outcome = match reason {
            Some((reason, code)) => Outcome::Error(ItemError {
                code: code.into(),
                reason: reason.to_owned(),
                ..ItemError::default()
            }),
            None => Outcome::Recorded(TrackUsageResponse::default()),
        };
        TrackUsageResult {
            outcome: Some(outcome),
            ..TrackUsageResult::default()
        }
    }

    #[test]
    fn what_was_written_down_is_told_until_the_ledger_has_it_or_refuses_for_good() {
        for (reason, expected) in [
            (None, Told::Done),
            (Some(("REQUEST_DENIED", Code::FailedPrecondition)), Told::Done),
            (Some(("OVERLOADED", Code::Unavailable)), Told::Again),
            (Some(("SLICE_REFUSED", Code::FailedPrecondition)), Told::Again),
            (Some(("of tomorrow", Code::Internal)), Told::Again),
            (Some(("ACCOUNT_CLOSED", Code::FailedPrecondition)), Told::Done),
        ] {
            assert_eq!(read(&[result(None), result(reason)]), expected, "{reason:?}");
        }
    }

    #[test]
    fn what_a_slice_does_not_pay_is_told_without_it_and_the_others_pay() {
        let charge = |id: u8| SliceCharge {
            slice_id: vec![id; 16],
            ..SliceCharge::default()
        };
        let request = TrackUsageBatchRequest {
            events: vec![
                UsageEvent {
                    charges: vec![charge(1), charge(2)],
                    ..UsageEvent::default()
                },
                UsageEvent {
                    charges: vec![charge(3)],
                    ..UsageEvent::default()
                },
            ],
            ..TrackUsageBatchRequest::default()
        };
        let refused = TrackUsageResult {
            refused_slice_ids: vec![vec![2; 16]],
            ..result(Some(("SLICE_REFUSED", Code::FailedPrecondition)))
        };
        let Told::Unpaid(slices) = read(&[refused, result(Some(("BATCH_REFUSED", Code::Aborted)))]) else {
            panic!("a slice does not pay");
        };
        let left = without(&request, &slices).events.into_iter();
        let left: Vec<Vec<SliceCharge>> = left.map(|event| event.charges).collect();
        assert_eq!(left, [vec![charge(1)], vec![charge(3)]]);
    }
}
