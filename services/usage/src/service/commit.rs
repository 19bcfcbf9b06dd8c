//! Calls that arrive together share one commit.
//!
//! A call hands in its events and waits. Whenever a commit ends, or takes long, a worker takes all that wait, up to
//! a bound, and commits them at once: an idle ledger waits for nothing, load makes the batches.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use octroi_kit::{
    convert::to_proto_time,
    db::{DatabaseError, Db, Scope, expect_rows},
    gather::{HeadStart, Lead},
    outbox::{self, Wake},
};
use octroi_proto::events::v1::{RecordedUsage, UsageRecorded};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::Instrument as _;

use crate::{
    config,
    domain::{
        event::{Accepted, EventKey, Origin},
        settlement::{Call, Ledger, Outcome, candidates, settle},
        spends::Sums,
    },
    error::Error,
    store,
};

/// The outcomes of each call of a commit.
type Outcomes = Vec<Vec<Outcome>>;

/// What commits calls: one transaction for all of them.
type Write =
    Arc<dyn Fn(Vec<Call>, Timestamp) -> BoxFuture<'static, Result<Outcomes, DatabaseError>> + Send + Sync>;

struct Job {
    call: Call,
    now: Timestamp,
    /// The call's trace, so that what its events cause belongs to it.
    span: tracing::Span,
    caller: Caller,
}

/// Who waits for the commit.
struct Caller {
    answer: oneshot::Sender<Result<Vec<Outcome>, Arc<DatabaseError>>>,
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
        let (db, wake) = (db.clone(), wake.clone());
        let write = move |calls, now| -> BoxFuture<'static, _> {
            let (db, wake) = (db.clone(), wake.clone());
            Box::pin(async move {
                let outcomes = write(&db, calls, now).await?;
                wake.wake();
                Ok(outcomes)
            })
        };
        let write: Write = Arc::new(write);
        Self::over(&write, config)
    }

    fn over(write: &Write, config: &config::Ledger) -> Self {
        // A job needs room for at least one event, so the channel is never full.
        let (jobs, queue) = mpsc::channel(config.waiting_events_max);
        let queue = Arc::new(Mutex::new(queue));
        let head_start = HeadStart::default();
        for _ in 0..config.commits_at_once {
            let queue = Queue {
                jobs: queue.clone(),
                head_start: head_start.clone(),
                events_max: config.commit_events_max,
            };
            tokio::spawn(work(write.clone(), queue));
        }
        Self {
            jobs,
            room: Arc::new(Semaphore::new(config.waiting_events_max)),
        }
    }

    /// Commits the call's events and answers one outcome an event, in their order.
    pub(super) async fn commit(&self, call: Call, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let count = u32::try_from(call.events.len()).map_err(|_| Error::Overloaded)?;
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(count)
            .map_err(|_| Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            call,
            now,
            span: tracing::Span::current(),
            caller: Caller { answer, _room: room },
        };
        self.jobs.try_send(job).map_err(|_| DatabaseError::Aborted)?;
        match answered.await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            // All calls of a failed commit get the same error.
            Ok(Err(error)) => Err(error.shared().into()),
            Err(_) => Err(DatabaseError::Aborted.into()),
        }
    }
}

/// What waits to be committed. The workers share it.
struct Queue {
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    head_start: HeadStart,
    /// How many events end a commit: no call is begun after them.
    events_max: usize,
}

async fn work(write: Write, queue: Queue) {
    while let Some((jobs, _lead)) = queue.take().await {
        let now = jobs
            .iter()
            .map(|job| job.now)
            .max()
            .unwrap_or(Timestamp::UNIX_EPOCH);
        // One event leaves for all calls of a commit, and it can belong to one trace only.
        let span = jobs
            .first()
            .map_or_else(tracing::Span::none, |job| job.span.clone());
        let (calls, callers): (Vec<Call>, Vec<Caller>) =
            jobs.into_iter().map(|job| (job.call, job.caller)).unzip();
        let events: usize = calls.iter().map(|call| call.events.len()).sum();
        metrics::histogram!("octroi_usage_commit_events").record(u32::try_from(events).unwrap_or(u32::MAX));
        // A panic is the fault of this commit alone: its callers are told, and the worker takes the next.
        let committed = AssertUnwindSafe(async { write(calls, now).await })
            .catch_unwind()
            .instrument(span)
            .await
            .unwrap_or(Err(DatabaseError::Aborted));
        answer(callers, committed);
    }
}

impl Queue {
    /// Waits for a job and for the commit before, then takes all that are there. What nobody waits for any more is
    /// dropped: its caller was told that the outcome is unknown, and may have found out since that nothing was recorded.
    async fn take(&self) -> Option<(Vec<Job>, Lead)> {
        let mut queue = self.jobs.lock().await;
        loop {
            let mut next = Some(queue.recv().await?);
            let lead = self.head_start.lead().await;
            let (mut jobs, mut events) = (Vec::new(), 0);
            while let Some(job) = next {
                if !job.caller.answer.is_closed() {
                    events += job.call.events.len();
                    jobs.push(job);
                }
                next = (events < self.events_max)
                    .then(|| queue.try_recv().ok())
                    .flatten();
            }
            if !jobs.is_empty() {
                return Some((jobs, lead));
            }
        }
    }
}

fn answer(callers: Vec<Caller>, committed: Result<Outcomes, DatabaseError>) {
    // Whoever does not wait any more has the events in the ledger all the same.
    match committed {
        Ok(outcomes) => {
            for (caller, outcomes) in callers.into_iter().zip(outcomes) {
                drop(caller.answer.send(Ok(outcomes)));
            }
        }
        Err(error) => {
            tracing::warn!(error = %error, error.source = ?std::error::Error::source(&error), "a commit of the ledger failed");
            let error = Arc::new(error);
            for caller in callers {
                drop(caller.answer.send(Err(error.clone())));
            }
        }
    }
}

/// One transaction: the keys of the events, their rows in the ledger, and one outbox row for all of them.
///
/// The keys are inserted before anything is known of them, because most events are new and only the insert
/// tells, with every key locked, which are not. What then turns out not to stand, because the rest of its
/// all-or-nothing call does not, is taken back in the same transaction. The ledger gets only what stands.
async fn write(db: &Db, calls: Vec<Call>, now: Timestamp) -> Result<Outcomes, DatabaseError> {
    let clock = db.clock().clone();
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            // No earlier than the transaction began, which is what the watermark goes by.
            let now = clock.now().max(now);
            let candidates = candidates(&calls);
            let inserted = store::insert_keys(connection, &candidates, now).await?;
            let (written, others): (Vec<&Accepted>, Vec<&Accepted>) = candidates
                .into_iter()
                .partition(|one| inserted.keys.contains(&one.key));
            // An event may yet come in place of one that goes, so its slices are looked at as well.
            let charged =
                store::charge_sums(connection, &Sums::of(&written, &all_events(&calls)), now).await?;
            let others: Vec<EventKey> = others.iter().map(|one| one.key).collect();
            let ledger = Ledger {
                known: store::list_known(connection, &others).await?,
                spends: charged.before.clone(),
            };
            let settlement = settle(&calls, &ledger, now);
            let corrections = settlement.corrections(&written);
            if !corrections.surplus.is_empty() {
                store::delete_keys(connection, &corrections.surplus).await?;
            }
            if !corrections.missing.is_empty() {
                let late = store::insert_keys(connection, &corrections.missing, now).await?;
                expect_all(&corrections.missing, late.keys.len())?;
            }
            store::correct_spends(connection, &charged, &settlement.spends).await?;
            let used = settlement.recorded.iter().copied();
            let used: Vec<&Accepted> = used.filter(|one| one.event.origin != Origin::Denial).collect();
            if !used.is_empty() {
                let message_id = outbox::new_id();
                let transaction = match inserted.transaction {
                    Some(transaction) => transaction,
                    None => store::current_transaction(connection).await?,
                };
                store::append_events(connection, &used, message_id, now).await?;
                let recorded = UsageRecorded {
                    events: used.iter().map(|one| recorded_usage(one)).collect(),
                    ledger_transaction: transaction,
                    record_time: Some(to_proto_time(now)),
                };
                outbox::enqueue_as(connection, message_id, &recorded, now).await?;
                store::insert_pending(connection, (transaction, message_id), used.len(), now).await?;
            }
            Ok(settlement.outcomes)
        })
    })
    .await
}

/// What takes the place of rows that were just taken back finds it free; anything else must not be answered.
fn expect_all(events: &[&Accepted], inserted: usize) -> Result<(), DatabaseError> {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    expect_rows(count(events.len()), count(inserted))
}

fn recorded_usage(accepted: &Accepted) -> RecordedUsage {
    let event = &accepted.event;
    RecordedUsage {
        account_id: event.identity.account.to_string(),
        metric: event.metric.to_string(),
        amount: event.amount.get(),
        event_time: Some(to_proto_time(accepted.event_at)),
        decided: event.origin == Origin::Decision,
        backfill: event.backfill,
        charged_amount: accepted.charged_amount().get(),
        returned: event.origin == Origin::Return,
        source: event.identity.source.to_string(),
        event_id: event.identity.event_id.to_string(),
        distinct_hash: accepted.distinct,
    }
}

fn all_events(calls: &[Call]) -> Vec<&Accepted> {
    calls.iter().flat_map(|call| &call.events).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use octroi_core::{AccountId, ErrorKind, EventId, MetricSlug, ServiceError as _, Source, Units};

    use super::*;
    use crate::domain::event::{Event, Identity};

    fn call(event_id: &str) -> Call {
        let event = Event {
            identity: Identity {
                account: AccountId::parse("acme").expect("an id"),
                source: Source::parse("app").expect("a source"),
                event_id: EventId::parse(event_id).expect("an id"),
            },
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            amount: Units::positive(1).expect("an amount"),
            event_at: None,
            properties: BTreeMap::new(),
            origin: Origin::Direct,
            backfill: false,
            charges: Vec::new(),
        };
        Call {
            events: vec![Accepted {
                payload_hash: event.payload_hash(None),
                key: event.identity.key(),
                event,
                event_at: Timestamp::UNIX_EPOCH,
                distinct: None,
                moves_level: false,
            }],
            all_or_nothing: false,
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_commit_is_told_to_its_callers_and_the_worker_lives_on() {
        let commits = Arc::new(AtomicUsize::new(0));
        let write = {
            let commits = commits.clone();
            move |calls: Vec<Call>, now| -> BoxFuture<'static, _> {
                assert!(
                    commits.fetch_add(1, Ordering::Relaxed) > 0,
                    "the first commit panics"
                );
                Box::pin(async move { Ok(calls.iter().map(|_| vec![Outcome::Inserted(now)]).collect()) })
            }
        };
        let config = config::Ledger {
            waiting_events_max: 10_000,
            commit_events_max: 10_000,
            commits_at_once: 1,
            months_kept: 0,
        };
        let write: Write = Arc::new(write);
        let committer = Committer::over(&write, &config);
        let now = Timestamp::UNIX_EPOCH;
        let patience = Duration::from_secs(5);

        let first = tokio::time::timeout(patience, committer.commit(call("e-1"), now)).await;
        let error = first
            .expect("an answer in time")
            .expect_err("the commit panicked");
        assert_eq!(error.kind(), ErrorKind::Internal);

        let second = tokio::time::timeout(patience, committer.commit(call("e-2"), now)).await;
        let outcomes = second.expect("the worker lives").expect("a commit");
        assert_eq!(outcomes, [Outcome::Inserted(now)]);
        assert_eq!(committer.room.available_permits(), 10_000, "room is given back");
    }
}
