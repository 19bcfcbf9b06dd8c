//! Consumers whose messages have their effect together: while some have theirs, those that wait are gathered, and have it in one
//! transaction. A queue that is worked off as it comes has one message a transaction; behind a load the transactions grow, and
//! what messages have in common is written once for all of them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use octroi_core::ServiceError;
use octroi_proto::event::Event;
use sqlx::PgConnection;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Consumer, Turn, blame, span, verdict};
use crate::{
    bus::{HandleError, Handler, Message, Queue},
    db::{DatabaseError, Db, Scope},
    gather::{Bounds, Gather, Unanswered},
    outbox::Wake,
};

/// Messages that are taken together. Two transactions would wait for each other's rows, so that the second begins only where the
/// first is held up by something.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 16,
    waiting: Queue::CONCURRENCY_MAX as usize,
};
/// How long a transaction has to itself.
const HEAD_START: Duration = Duration::from_secs(2);
/// The most that messages of one transaction weigh together; one that weighs more has its own. Others wait for what a transaction
/// holds, and a statement has its time.
const WEIGHT_MAX: usize = 10_000;
/// So many messages that find something away, each alone, and the others are not tried: it is away for them too.
const AWAY_MAX: usize = 2;

/// A message and what was read for it.
struct Job<P> {
    id: Uuid,
    payload: Bytes,
    prepared: Arc<P>,
    span: tracing::Span,
}

impl<P> Clone for Job<P> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            payload: self.payload.clone(),
            prepared: Arc::clone(&self.prepared),
            span: self.span.clone(),
        }
    }
}

type Read<P> = dyn Fn(Bytes) -> BoxFuture<'static, Result<P, HandleError>> + Send + Sync;
type Together<P, E> = dyn Fn(Vec<Job<P>>) -> BoxFuture<'static, Result<(), E>> + Send + Sync;

/// How messages have their effects.
struct Effects<P, E> {
    read: Arc<Read<P>>,
    together: Arc<Together<P, E>>,
    weight: fn(&P) -> usize,
}

impl<P, E> Clone for Effects<P, E> {
    fn clone(&self) -> Self {
        Self {
            read: self.read.clone(),
            together: self.together.clone(),
            weight: self.weight,
        }
    }
}

/// As [`prepared_consumer`](super::prepared_consumer), for messages that wait together: `prepare` reads each event by itself,
/// `handle` is the effect of all of them whose turn is the first, in one transaction, and `after` gets what it answered. Where that
/// fails, each is read anew and tried alone. `weight` says how much work a message is, such as the number of its events; so many that
/// they weigh 10,000 have their effect together. It must be built where tasks can be started.
///
/// The queue's `concurrency` is how many wait together.
pub fn gathered_consumer<M, P, T, E, Prepare, Prepared, Handle, After, Told>(
    db: &Db,
    queue: Queue,
    wake: &Wake,
    (prepare, weight): (Prepare, fn(&P) -> usize),
    handle: Handle,
    after: After,
) -> Consumer
where
    M: Event,
    P: Send + Sync + 'static,
    T: Send + 'static,
    E: ServiceError + From<DatabaseError> + Send + Sync + 'static,
    Prepare: Fn(M) -> Prepared + Clone + Send + Sync + 'static,
    Prepared: Future<Output = Result<P, E>> + Send,
    Handle: for<'c> Fn(&'c mut PgConnection, Vec<(Arc<P>, Turn)>) -> BoxFuture<'c, Result<T, E>>
        + Clone
        + Send
        + Sync
        + 'static,
    After: Fn(T) -> Told + Clone + Send + Sync + 'static,
    Told: Future<Output = Result<(), E>> + Send,
{
    let (db, wake) = (db.clone(), wake.clone());
    let together = move |jobs: Vec<Job<P>>| {
        let (db, wake, handle, after) = (db.clone(), wake.clone(), handle.clone(), after.clone());
        let told = async move {
            let told = in_one_transaction(&db, queue.name, jobs, handle).await?;
            wake.wake();
            after(told).await
        };
        told.boxed()
    };
    let read = move |payload: Bytes| {
        let prepare = prepare.clone();
        async move {
            let event = M::decode(payload).map_err(HandleError::poison)?;
            prepare(event).await.map_err(verdict)
        }
        .boxed()
    };
    let effects: Effects<P, E> = Effects {
        read: Arc::new(read),
        together: Arc::new(together),
        weight,
    };
    let of_batch = effects.clone();
    let gather = Gather::with_head_start(HEAD_START, BOUNDS, move |jobs: Vec<Job<P>>| {
        let effects = of_batch.clone();
        async move { effects.of_all(jobs).await }
    });
    let handler: Handler = Arc::new(move |message: Message| {
        let (effects, gather) = (effects.clone(), gather.clone());
        let span = span(&queue, &message);
        let of_message = span.clone();
        let work = async move {
            let prepared = (effects.read)(message.payload.clone()).await?;
            let job = Job {
                id: message.id,
                payload: message.payload,
                prepared: Arc::new(prepared),
                span: of_message,
            };
            match gather.ask(job.clone()).await {
                Ok(done) => done,
                // Whoever is to blame for it is found out alone, and nobody with it.
                Err(Unanswered::Lost | Unanswered::Full) => effects.alone(job).await,
            }
        };
        Box::pin(work.instrument(span))
    });
    Consumer { queue, handler }
}

impl<P, E> Effects<P, E>
where
    E: ServiceError + Send + Sync + 'static,
{
    async fn of_all(&self, jobs: Vec<Job<P>>) -> Vec<Result<(), HandleError>> {
        let mut done = Vec::with_capacity(jobs.len());
        let (mut part, mut sum): (Vec<Job<P>>, usize) = (Vec::new(), 0);
        for job in jobs {
            let weight = (self.weight)(&job.prepared);
            if !part.is_empty() && sum.saturating_add(weight) > WEIGHT_MAX {
                done.extend(self.of_part(std::mem::take(&mut part)).await);
                sum = 0;
            }
            sum = sum.saturating_add(weight);
            part.push(job);
        }
        done.extend(self.of_part(part).await);
        done
    }

    async fn of_part(&self, jobs: Vec<Job<P>>) -> Vec<Result<(), HandleError>> {
        // What it causes leaves for all of them, and can belong to one trace only.
        let span = (jobs.first()).map_or_else(tracing::Span::none, |job| job.span.clone());
        let error = match (self.together)(jobs.clone()).instrument(span).await {
            Ok(()) => return jobs.iter().map(|_| Ok(())).collect(),
            Err(error) => Arc::new(error),
        };
        let told = || blame(&*error)(error.clone().into());
        if jobs.len() == 1 {
            return vec![Err(told())];
        }
        let (mut done, mut away) = (Vec::with_capacity(jobs.len()), 0);
        for job in jobs {
            if away == AWAY_MAX {
                done.push(Err(HandleError::away(error.clone())));
                continue;
            }
            let alone = self.alone(job).await;
            if matches!(alone, Err(HandleError::Away(_))) {
                away += 1;
            }
            done.push(alone);
        }
        done
    }

    /// The effect of one message, which is read anew: what was read of it may be what others failed by.
    async fn alone(&self, job: Job<P>) -> Result<(), HandleError> {
        let span = job.span.clone();
        let effect = async {
            let prepared = Arc::new((self.read)(job.payload.clone()).await?);
            let job = Job { prepared, ..job };
            (self.together)(vec![job]).await.map_err(verdict)
        };
        effect.instrument(span).await
    }
}

async fn in_one_transaction<P, T, E, Handle>(
    db: &Db,
    consumer: &'static str,
    jobs: Vec<Job<P>>,
    handle: Handle,
) -> Result<T, E>
where
    P: Send + Sync + 'static,
    T: Send + 'static,
    E: From<DatabaseError> + Send + 'static,
    Handle: for<'c> FnOnce(&'c mut PgConnection, Vec<(Arc<P>, Turn)>) -> BoxFuture<'c, Result<T, E>>
        + Send
        + 'static,
{
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
            let mut first = mark_all(connection, consumer, &ids).await?;
            let turns = jobs.into_iter().map(|job| {
                // One that is there twice has its turn once.
                let turn = if first.remove(&job.id) {
                    Turn::First
                } else {
                    Turn::Again
                };
                (job.prepared, turn)
            });
            let turns = turns.collect();
            handle(connection, turns).await
        })
    })
    .await
}

/// Marks messages, and answers which of them were not. They are marked in one order, so that two transactions never wait for each
/// other in a circle.
async fn mark_all(
    connection: &mut PgConnection,
    consumer: &str,
    messages: &[Uuid],
) -> Result<HashSet<Uuid>, DatabaseError> {
    let marked: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO inbox (consumer, message_id) SELECT $1, id FROM unnest($2::uuid[]) AS m (id) ORDER BY id
         ON CONFLICT DO NOTHING RETURNING message_id",
    )
    .bind(consumer)
    .bind(messages)
    .fetch_all(connection)
    .await?;
    Ok(marked.into_iter().collect())
}
