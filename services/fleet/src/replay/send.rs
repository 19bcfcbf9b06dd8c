//! Sending without asking: batches of usage events, several of them on their way.

use std::collections::HashMap;

use octroi_kit::convert::to_proto_time;
use octroi_proto::usage::v1::{
    ItemError, Origin, TrackUsageBatchRequest, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
    usage_service_client::UsageServiceClient,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Duration, Instant},
};
use tonic::{Code, Status};

use super::{
    feed::{Entry, Pace},
    fleet::{AWAY_MAX, Failure, Fleet},
    names::Names,
    progress::Progress,
    tally::Tally,
};

/// The most events of a batch. An event is less than 500 bytes, so a batch is far below 4 MiB.
const BATCH_EVENTS_MAX: usize = 1_000;
/// Batches on their way at the same time.
const BATCHES_AT_ONCE: usize = 4;
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Events in the order of the file, each with its line.
#[derive(Debug, Default)]
struct Batch(Vec<(u64, UsageEvent)>);

impl Batch {
    fn first_line(&self) -> Option<u64> {
        self.0.iter().map(|(line, _)| *line).min()
    }
}

struct Sender<'a> {
    fleet: &'a Fleet,
    names: &'a Names,
    batch: Batch,
    flights: JoinSet<Tally>,
    tally: Tally,
    progress: &'a mut Progress,
}

/// Sends all entries at their pace.
pub async fn send(
    fleet: &Fleet,
    names: &Names,
    mut entries: mpsc::Receiver<Entry>,
    pace: Pace,
    progress: &mut Progress,
) -> Tally {
    let mut sender = Sender {
        fleet,
        names,
        batch: Batch::default(),
        flights: JoinSet::new(),
        tally: Tally::default(),
        progress,
    };
    let mut next_line = 1;
    loop {
        let entry = tokio::select! {
            biased;
            () = fleet.halt().cancelled() => {
                sender.tally.stop(next_line, &Failure::Stopped);
                break;
            }
            entry = entries.recv() => entry,
        };
        let Some(entry) = entry else { break };
        next_line = entry.line + 1;
        let line = entry.line;
        if sender.take(entry, pace).await.is_err() {
            sender.tally.stop(line, &Failure::Stopped);
            break;
        }
    }
    // Whoever reads on would wait for room for ever.
    drop(entries);
    sender.finish().await
}

impl Sender<'_> {
    async fn take(&mut self, entry: Entry, pace: Pace) -> Result<(), Failure> {
        if let Some(due) = pace.due(entry.at, Instant::now()) {
            self.flush().await;
            self.fleet
                .pause(due.saturating_duration_since(Instant::now()))
                .await?;
        }
        if self.batch.0.len() + entry.uses.len() > BATCH_EVENTS_MAX {
            self.flush().await;
        }
        let source = self.names.source();
        for (metric, units) in &entry.uses {
            let event = UsageEvent {
                account_id: entry.account.to_string(),
                event_id: self.names.event_id(entry.line, metric),
                source: source.clone(),
                metric: metric.to_string(),
                amount: units.as_i64(),
                event_time: Some(to_proto_time(entry.at)),
                properties: HashMap::new(),
                origin: Origin::Direct.into(),
                charges: Vec::new(),
            };
            self.batch.0.push((entry.line, event));
        }
        Ok(())
    }

    /// Sends the batch once there is room for it.
    async fn flush(&mut self) {
        while self.flights.len() >= BATCHES_AT_ONCE {
            self.land().await;
        }
        let batch = std::mem::take(&mut self.batch);
        if let Some(line) = batch.first_line() {
            if self.fleet.halt().is_cancelled() {
                self.tally.stop(line, &Failure::Stopped);
                return;
            }
            let fleet = self.fleet.clone();
            self.flights.spawn(async move { fly(&fleet, batch).await });
        }
    }

    /// Waits for one batch.
    async fn land(&mut self) {
        let Some(landed) = self.flights.join_next().await else {
            return;
        };
        let landed = landed.unwrap_or_else(|error| passed_on(error));
        self.progress.advance(landed.sent);
        self.tally.add(landed);
        if self.tally.stopped.is_some() {
            self.fleet.halt().cancel();
        }
    }

    async fn finish(mut self) -> Tally {
        self.flush().await;
        while !self.flights.is_empty() {
            self.land().await;
        }
        self.tally
    }
}

/// A task is never aborted, so what ended it is a panic, which goes on here.
pub fn passed_on(error: JoinError) -> ! {
    std::panic::resume_unwind(error.into_panic())
}

/// Sends a batch until each of its events has an answer.
async fn fly(fleet: &Fleet, mut batch: Batch) -> Tally {
    let mut tally = Tally::default();
    let start = Instant::now();
    while let Some(line) = batch.first_line() {
        let request = TrackUsageBatchRequest {
            events: batch.0.iter().map(|(_, event)| event.clone()).collect(),
            backfill: true,
            ..TrackUsageBatchRequest::default()
        };
        let answer = fleet
            .call(|link| {
                let request = request.clone();
                async move { UsageServiceClient::new(link).track_usage_batch(request).await }
            })
            .await;
        let again = match answer {
            Ok(answer) => read_results(&mut tally, batch, answer.results),
            Err(failure) => Err((line, failure)),
        };
        batch = match again {
            Ok(again) => again,
            Err((line, failure)) => {
                tally.stop(line, &failure);
                return tally;
            }
        };
        if let Some(line) = batch.first_line() {
            let waited = if start.elapsed() < AWAY_MAX {
                fleet.pause(AGAIN_AFTER).await
            } else {
                Err(too_busy())
            };
            if let Err(failure) = waited {
                tally.stop(line, &failure);
                return tally;
            }
        }
    }
    tally
}

fn too_busy() -> Failure {
    Failure::Away {
        after: AWAY_MAX,
        last: Status::unavailable("it answers, but takes no further events"),
    }
}

/// Counts the results. Answers the events that are to be sent again.
fn read_results(
    tally: &mut Tally,
    batch: Batch,
    results: Vec<TrackUsageResult>,
) -> Result<Batch, (u64, Failure)> {
    let line = batch.first_line().unwrap_or_default();
    if results.len() != batch.0.len() {
        return Err((
            line,
            Failure::Refused(Status::internal("it answered another number of events")),
        ));
    }
    let mut again = Batch::default();
    for ((line, event), result) in batch.0.into_iter().zip(results) {
        match result.outcome {
            Some(Outcome::Recorded(recorded)) => {
                tally.sent += 1;
                *(if recorded.duplicate {
                    &mut tally.duplicates
                } else {
                    &mut tally.recorded
                }) += 1;
            }
            Some(Outcome::Error(error)) if is_passing(&error) => again.0.push((line, event)),
            Some(Outcome::Error(error)) => {
                tally.sent += 1;
                tally.refused.note(
                    line,
                    &format!("{}: {} ({})", event.metric, error.message, error.reason),
                );
            }
            None => {
                return Err((
                    line,
                    Failure::Refused(Status::internal("it answered nothing of an event")),
                ));
            }
        }
    }
    Ok(again)
}

fn is_passing(error: &ItemError) -> bool {
    match Code::from_i32(error.code) {
        Code::Unavailable | Code::DeadlineExceeded => true,
        Code::ResourceExhausted => matches!(error.reason.as_str(), "OVERLOADED" | "RATE_LIMITED"),
        _ => false,
    }
}
