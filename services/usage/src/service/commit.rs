//! Calls that arrive together share one commit.
//!
//! A call hands in its events and waits. Whenever one of the workers is free it takes all that wait, up to
//! a bound, and commits them at once: an idle worker waits for nothing, load makes the batches.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use octroi_kit::{
    db::{DatabaseError, Db, Scope, from_sql},
    outbox::{self, Wake},
};
use octroi_proto::events::v1::{RecordedUsage, UsageRecorded};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::Instrument as _;

use crate::{
    config,
    domain::event::{Event, Identity, Origin},
    error::Error,
    store,
};

/// What the ledger answered for one event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is in the ledger now.
    Inserted(Timestamp),
    /// It was there before, with the same content.
    Duplicate(Timestamp),
    /// It was there before, with another content.
    Reused,
}

/// An event that passed every rule, with the instant at which it counts.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) event: Event,
    pub(crate) event_at: Timestamp,
    pub(crate) payload_hash: [u8; 32],
}

struct Job {
    events: Vec<Accepted>,
    now: Timestamp,
    answer: oneshot::Sender<Result<Vec<Outcome>, Arc<DatabaseError>>>,
    /// The call, so that what its events cause belongs to its trace.
    span: tracing::Span,
    _room: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
    /// One permit an event that waits: the bound of the queue.
    room: Arc<Semaphore>,
}

impl Committer {
    pub(super) fn start(db: &Db, wake: &Wake, config: &config::Ledger) -> Self {
        // A job needs room for at least one event, so the channel is never full.
        let (jobs, queue) = mpsc::channel(config.waiting_events_max);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..config.commits_at_once {
            tokio::spawn(work(
                db.clone(),
                wake.clone(),
                queue.clone(),
                config.commit_events_max,
            ));
        }
        Self {
            jobs,
            room: Arc::new(Semaphore::new(config.waiting_events_max)),
        }
    }

    /// Commits the events and answers one outcome an event, in their order.
    pub(super) async fn commit(&self, events: Vec<Accepted>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let count = u32::try_from(events.len()).map_err(|_| Error::Overloaded)?;
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(count)
            .map_err(|_| Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            events,
            now,
            answer,
            span: tracing::Span::current(),
            _room: room,
        };
        self.jobs.try_send(job).map_err(|_| DatabaseError::Aborted)?;
        match answered.await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(error)) => Err(shared(&error).into()),
            Err(_) => Err(DatabaseError::Aborted.into()),
        }
    }
}

/// All calls of a failed commit get the same error; only its kind and sentence can be shared.
fn shared(error: &Arc<DatabaseError>) -> DatabaseError {
    let source = || sqlx::Error::Protocol(error.to_string());
    match &**error {
        DatabaseError::Unavailable(_) => DatabaseError::Unavailable(source()),
        DatabaseError::Busy(_) => DatabaseError::Busy(source()),
        DatabaseError::Aborted => DatabaseError::Aborted,
        DatabaseError::RowsAffected { .. } | DatabaseError::Corrupt { .. } | DatabaseError::Statement(_) => {
            DatabaseError::Statement(source())
        }
    }
}

async fn work(db: Db, wake: Wake, queue: Arc<Mutex<mpsc::Receiver<Job>>>, events_max: usize) {
    while let Some(jobs) = take(&queue, events_max).await {
        let batch: Vec<Accepted> = jobs.iter().flat_map(|job| job.events.iter().cloned()).collect();
        let now = jobs
            .iter()
            .map(|job| job.now)
            .max()
            .unwrap_or(Timestamp::UNIX_EPOCH);
        metrics::histogram!("octroi_usage_commit_events")
            .record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        // One event leaves for all calls of a commit, and it can belong to one trace only.
        let span = jobs
            .first()
            .map_or_else(tracing::Span::none, |job| job.span.clone());
        match write(&db, batch, now).instrument(span).await {
            Ok(outcomes) => {
                wake.wake();
                answer(jobs, outcomes);
            }
            Err(error) => {
                tracing::warn!(error = %error, error.source = ?std::error::Error::source(&error), "a commit of the ledger failed");
                let error = Arc::new(error);
                for job in jobs {
                    drop(job.answer.send(Err(error.clone())));
                }
            }
        }
    }
}

/// Waits for a job, then takes all that are there.
async fn take(queue: &Mutex<mpsc::Receiver<Job>>, events_max: usize) -> Option<Vec<Job>> {
    let mut queue = queue.lock().await;
    let first = queue.recv().await?;
    let mut events = first.events.len();
    let mut jobs = vec![first];
    while events < events_max {
        let Ok(job) = queue.try_recv() else { break };
        events += job.events.len();
        jobs.push(job);
    }
    Some(jobs)
}

fn answer(jobs: Vec<Job>, outcomes: Vec<Outcome>) {
    let mut outcomes = outcomes.into_iter();
    for job in jobs {
        let own = outcomes.by_ref().take(job.events.len()).collect();
        // Whoever does not wait any more has the event in the ledger all the same.
        drop(job.answer.send(Ok(own)));
    }
}

/// One transaction: the ledger rows and one outbox row for all of them.
async fn write(db: &Db, batch: Vec<Accepted>, now: Timestamp) -> Result<Vec<Outcome>, DatabaseError> {
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let unique = first_of_each(&batch);
            let inserted = store::insert_events(connection, &unique, now).await?;
            let others: Vec<&Identity> = unique
                .iter()
                .map(|one| &one.event.identity)
                .filter(|identity| !inserted.contains(*identity))
                .collect();
            let known = store::find_recorded(connection, &others).await?;
            let fresh: Vec<RecordedUsage> = unique
                .iter()
                .filter(|one| inserted.contains(&one.event.identity))
                .map(|one| recorded_usage(one))
                .collect();
            if !fresh.is_empty() {
                outbox::enqueue(connection, &UsageRecorded { events: fresh }, now).await?;
            }
            Ok(outcomes(&batch, &unique, &inserted, &known, now))
        })
    })
    .await
}

/// The first of each identity, sorted, so that commits that meet the same events take them in one order.
fn first_of_each(batch: &[Accepted]) -> Vec<&Accepted> {
    let mut unique: Vec<&Accepted> = batch.iter().collect();
    unique.sort_by(|a, b| a.event.identity.cmp(&b.event.identity));
    unique.dedup_by(|later, first| later.event.identity == first.event.identity);
    unique
}

fn outcomes(
    batch: &[Accepted],
    unique: &[&Accepted],
    inserted: &std::collections::HashSet<Identity>,
    known: &HashMap<Identity, store::Known>,
    now: Timestamp,
) -> Vec<Outcome> {
    let mut first: HashMap<&Identity, &Accepted> =
        unique.iter().map(|one| (&one.event.identity, *one)).collect();
    batch
        .iter()
        .map(|one| {
            let identity = &one.event.identity;
            if let Some(known) = known.get(identity) {
                if known.payload_hash == one.payload_hash {
                    return Outcome::Duplicate(from_sql(known.recorded_at));
                }
                return Outcome::Reused;
            }
            debug_assert!(inserted.contains(identity), "an event is either new or known");
            match first.remove(identity) {
                // The stable sort keeps the order of repeats, so this is the one that was inserted.
                Some(inserted) if inserted.payload_hash == one.payload_hash => Outcome::Inserted(now),
                Some(_) => Outcome::Reused,
                None => repeat_within(batch, one, now),
            }
        })
        .collect()
}

/// A later one of the same identity in the same commit.
fn repeat_within(batch: &[Accepted], one: &Accepted, now: Timestamp) -> Outcome {
    let first = batch
        .iter()
        .find(|other| other.event.identity == one.event.identity);
    if first.is_some_and(|first| first.payload_hash == one.payload_hash) {
        Outcome::Duplicate(now)
    } else {
        Outcome::Reused
    }
}

fn recorded_usage(accepted: &Accepted) -> RecordedUsage {
    let event = &accepted.event;
    RecordedUsage {
        account_id: event.identity.account.to_string(),
        metric: event.metric.to_string(),
        amount: event.amount.get(),
        event_time: Some(octroi_kit::convert::to_proto_time(accepted.event_at)),
        decided: event.origin == Origin::Decision,
        backfill: event.backfill,
    }
}
