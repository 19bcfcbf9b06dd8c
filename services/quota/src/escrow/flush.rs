//! Tells the ledger what was answered before it had it: one event a slice, of all that it paid for meanwhile.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use octroi_core::{ErrorKind, SliceId, source};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        ItemError, Origin, TrackUsageBatchRequest, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Escrow;
use crate::{convert::to_proto_charge, domain::wallet::Pending};

/// The most events of one call.
const EVENTS_AT_ONCE: usize = 5_000;
/// How much of the time may go into telling: the pause is this much longer than it took.
const PAUSE_FACTOR: u32 = 4;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the ledger.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// How long between tries where the ledger is away.
const RETRY: Duration = Duration::from_millis(250);

/// How long between looks for what is about to be answered.
const SOON: Duration = Duration::from_millis(10);

/// What the ledger is told.
#[derive(Clone)]
pub(super) struct Outgoing {
    pending: Pending,
    event: UsageEvent,
}

impl Outgoing {
    /// The same, paid by no slice.
    fn unpaid(&self) -> Self {
        let event = UsageEvent {
            charges: Vec::new(),
            ..self.event.clone()
        };
        Self {
            event,
            pending: self.pending.clone(),
        }
    }
}

impl Escrow {
    /// Tells the ledger from time to time what was answered, until `stop`.
    pub async fn flush(self, stop: CancellationToken) {
        let pause_min = Duration::from_millis(self.0.config.flush_ms);
        let mut pause = pause_min;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.flush_now.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let begun = Instant::now();
            let unsent = self.flush_waiting().await;
            pause = (begun.elapsed() * PAUSE_FACTOR).clamp(pause_min, PAUSE_MAX);
            if unsent > 0 {
                pause = pause.max(RETRY);
            }
            let waiting = self.0.purses.waiting() + unsent;
            metrics::gauge!("octroi_quota_buffered_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        }
    }

    /// Tells what was not taken before and what waits now, in as many calls as it takes, and answers how much was not
    /// taken. One after the other, so that whoever comes second finds told what was on its way. Where a call fails, what
    /// waits is left where it is: sums that grow, not events.
    async fn flush_waiting(&self) -> usize {
        let mut unsent = self.0.unsent.lock().await;
        let mut left = self.0.purses.waiting();
        // Those behind them were refused a moment ago.
        let mut untried = unsent.len();
        loop {
            if untried == 0 {
                let some = self.0.purses.start_flush(EVENTS_AT_ONCE);
                untried = some.len();
                left = left.saturating_sub(untried);
                unsent.splice(0..0, some.into_iter().map(|pending| self.outgoing(pending)));
            }
            // What is on its way stays there until it is known to have arrived.
            let now = untried.min(EVENTS_AT_ONCE);
            if now == 0 {
                break;
            }
            let Some(again) = self.send(unsent.get(..now).unwrap_or_default()).await else {
                break;
            };
            unsent.drain(..now);
            unsent.extend(again);
            untried -= now;
            if untried == 0 && left == 0 {
                break;
            }
        }
        unsent.len()
    }

    /// Tells all that waits, and what is about to be answered or in the journal, within a time. Answers whether nothing
    /// is left.
    pub(super) async fn flush_all(&self) -> bool {
        let all = async {
            loop {
                let unsent = self.flush_waiting().await;
                if unsent == 0 && !self.0.purses.is_busy() {
                    return;
                }
                tokio::time::sleep(if unsent > 0 { RETRY } else { SOON }).await;
            }
        };
        tokio::time::timeout(LAST_FLUSH, all).await.is_ok()
    }

    /// An event of its own, whose id stays the same, so that it counts once however often it is sent.
    fn outgoing(&self, pending: Pending) -> Outgoing {
        let number = self.0.flushes.fetch_add(1, Ordering::Relaxed);
        Outgoing {
            event: self.event(&pending, number),
            pending,
        }
    }

    /// Sends what was answered, and answers what the ledger did not take; none where it answered nothing.
    async fn send(&self, outgoing: &[Outgoing]) -> Option<Vec<Outgoing>> {
        let batch = TrackUsageBatchRequest {
            events: outgoing.iter().map(|one| one.event.clone()).collect(),
            backfill: true,
            all_or_nothing: false,
            content_hash: Vec::new(),
        };
        match self.0.usage.clone().track_usage_batch(batch).await {
            Ok(results) => {
                self.0.away_since_us.store(0, Ordering::Relaxed);
                let again = self.read(outgoing, results.into_inner().results);
                self.0.told.notify_waiters();
                Some(again)
            }
            Err(status) => {
                tracing::debug!(error = %status, events = outgoing.len(), "what was answered is told again");
                if is_away(&status) {
                    self.note_away(&status);
                }
                None
            }
        }
    }

    fn note_away(&self, status: &Status) {
        let now_us = self.0.db.clock().now().as_microsecond();
        let since_us = &self.0.away_since_us;
        let first = since_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            tracing::warn!(error = %status, "the ledger cannot be told what was answered");
        }
    }

    /// For how long the ledger could not be told what was answered; none where it can.
    #[must_use]
    pub fn untold_for(&self, now: Timestamp) -> Option<Duration> {
        let since_us = self.0.away_since_us.load(Ordering::Relaxed);
        let away_us = now.as_microsecond().saturating_sub(since_us);
        (since_us > 0).then(|| Duration::from_micros(u64::try_from(away_us).unwrap_or(0)))
    }

    /// What the ledger did not take, to be sent again.
    fn read(&self, sent: &[Outgoing], results: Vec<TrackUsageResult>) -> Vec<Outgoing> {
        let mut again = Vec::new();
        let mut results = results.into_iter();
        for one in sent {
            let pending = &one.pending;
            match results.next().and_then(|result| result.outcome) {
                Some(Outcome::Recorded(_)) => self.0.purses.end_flush(pending),
                Some(Outcome::Error(error)) if has_reason(&error, ErrorReason::SliceRefused) => {
                    // Past its end, because nobody reached the ledger for so long. It is recorded all the same.
                    metrics::counter!("octroi_quota_buffered_refused_total").increment(1);
                    tracing::error!(slice.id = %pending.slice.id, "a slice was sealed before what it paid for was recorded");
                    self.0.purses.retire(&pending.slice.account, &[pending.slice.id]);
                    again.push(one.unpaid());
                }
                Some(Outcome::Error(error)) if is_final(&error) => {
                    metrics::counter!("octroi_quota_buffered_lost_total").increment(1);
                    tracing::error!(account.id = %pending.slice.account, reason = error.reason, "what was answered is not recorded");
                    self.0.purses.end_flush(pending);
                }
                Some(Outcome::Error(_)) | None => again.push(one.clone()),
            }
        }
        again
    }

    fn event(&self, pending: &Pending, number: u64) -> UsageEvent {
        let charge = pending.slice.charge(pending.amount);
        UsageEvent {
            account_id: pending.slice.account.to_string(),
            event_id: event_id(charge.slice, number),
            source: format!("{}buffered", source::DECISION),
            metric: pending.slice.metric.to_string(),
            amount: charge.amount.as_i64(),
            event_time: Some(to_proto_time(pending.since)),
            properties: HashMap::new(),
            origin: Origin::Decision.into(),
            charges: vec![to_proto_charge(&charge)],
        }
    }
}

/// A slice belongs to one process, in which no number comes twice.
fn event_id(slice: SliceId, number: u64) -> String {
    format!("{slice}/{number}")
}

/// Whether it does not answer, rather than refusing.
fn is_away(status: &Status) -> bool {
    let kind = ErrorKind::from_grpc_code(status.code().into());
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn has_reason(error: &ItemError, reason: ErrorReason) -> bool {
    ErrorReason::from_name(&error.reason) == Some(reason)
}

/// Whether sending it again would be refused again.
fn is_final(error: &ItemError) -> bool {
    !matches!(
        ErrorKind::from_grpc_code(error.code),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal | ErrorKind::OverLimit
    )
}
