//! Tells the ledger what was answered before it had it: one event a slice, of all that it paid for meanwhile.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use octroi_core::{Charge, ErrorKind, SliceId};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        ItemError, Origin, SliceCharge, TrackUsageBatchRequest, TrackUsageResult, UsageEvent,
        track_usage_result::Outcome,
    },
};
use tokio_util::sync::CancellationToken;

use super::Escrow;
use crate::domain::wallet::Pending;

/// The most events of one call.
const EVENTS_AT_ONCE: usize = 5_000;
/// How much of the time may go into telling: the pause is this much longer than it took.
const PAUSE_FACTOR: u32 = 4;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the end of the process waits for the ledger.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// How long between tries where the ledger is away.
const RETRY: Duration = Duration::from_millis(250);

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
            self.flush_waiting(&stop).await;
            pause = (begun.elapsed() * PAUSE_FACTOR).clamp(pause_min, PAUSE_MAX);
            metrics::gauge!("octroi_quota_buffered_waiting")
                .set(u32::try_from(self.0.purses.waiting()).unwrap_or(u32::MAX));
        }
    }

    /// Tells what waits now, however many calls it takes.
    async fn flush_waiting(&self, stop: &CancellationToken) {
        let mut left = self.0.purses.waiting();
        while left > 0 {
            let some = self.0.purses.start_flush(EVENTS_AT_ONCE);
            if some.is_empty() {
                return;
            }
            left = left.saturating_sub(some.len());
            self.send(some, stop).await;
        }
    }

    /// Tells all that waits, within a time. Answers whether nothing is left.
    pub(super) async fn flush_all(&self) -> bool {
        let stop = CancellationToken::new();
        let all = async {
            while self.0.purses.waiting() > 0 {
                self.flush_waiting(&stop).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LAST_FLUSH, all).await.is_ok()
    }

    /// Sends what was answered until the ledger has it. The ids stay the same, so that it counts once.
    async fn send(&self, flush: Vec<Pending>, stop: &CancellationToken) {
        let number = self.0.flushes.fetch_add(1, Ordering::Relaxed);
        let mut waiting: Vec<(Pending, UsageEvent)> = (flush.into_iter())
            .map(|pending| {
                let event = self.event(&pending, number);
                (pending, event)
            })
            .collect();
        while !waiting.is_empty() {
            let batch = TrackUsageBatchRequest {
                events: waiting.iter().map(|(_, event)| event.clone()).collect(),
                backfill: true,
                all_or_nothing: false,
                content_hash: Vec::new(),
            };
            match self.0.usage.clone().track_usage_batch(batch).await {
                Ok(results) => waiting = self.read(waiting, results.into_inner().results),
                Err(status) => {
                    tracing::debug!(error = %status, events = waiting.len(), "what was answered is told again");
                }
            }
            if !waiting.is_empty() {
                // A process that ends leaves its slices counted rather than its end waiting.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// What the ledger did not take, to be sent again.
    fn read(
        &self,
        sent: Vec<(Pending, UsageEvent)>,
        results: Vec<TrackUsageResult>,
    ) -> Vec<(Pending, UsageEvent)> {
        let mut again = Vec::new();
        for ((pending, event), result) in sent.into_iter().zip(results) {
            match result.outcome {
                Some(Outcome::Recorded(_)) => self.0.purses.end_flush(&pending.slice),
                Some(Outcome::Error(error)) if has_reason(&error, ErrorReason::SliceRefused) => {
                    // Past its end, because nobody reached the ledger for so long. It is recorded all the same.
                    metrics::counter!("octroi_quota_buffered_refused_total").increment(1);
                    tracing::error!(slice.id = %pending.slice.id, "a slice was sealed before what it paid for was recorded");
                    let unpaid = UsageEvent {
                        charges: Vec::new(),
                        ..event
                    };
                    again.push((pending, unpaid));
                }
                Some(Outcome::Error(error)) if !is_final(&error) => again.push((pending, event)),
                Some(Outcome::Error(error)) => {
                    metrics::counter!("octroi_quota_buffered_lost_total").increment(1);
                    tracing::error!(account.id = %pending.slice.account, reason = error.reason, "what was answered is not recorded");
                    self.0.purses.end_flush(&pending.slice);
                }
                None => again.push((pending, event)),
            }
        }
        again
    }

    fn event(&self, pending: &Pending, number: u64) -> UsageEvent {
        let Charge {
            slice,
            cap,
            amount,
            hard_end_at,
        } = pending.slice.charge(pending.amount);
        UsageEvent {
            account_id: pending.slice.account.to_string(),
            event_id: event_id(slice, number),
            source: "decision:buffered".to_owned(),
            metric: pending.slice.metric.to_string(),
            amount: amount.as_i64(),
            event_time: Some(to_proto_time(pending.since)),
            properties: HashMap::new(),
            origin: Origin::Decision.into(),
            charges: vec![SliceCharge {
                slice_id: slice.uuid().into_bytes().to_vec(),
                cap: cap.get(),
                amount: amount.get(),
                hard_end_time: Some(to_proto_time(hard_end_at)),
            }],
        }
    }
}

/// A slice is told of once a flush, and belongs to one process.
fn event_id(slice: SliceId, number: u64) -> String {
    format!("{slice}/{number}")
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
