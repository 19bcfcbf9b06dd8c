//! Events that arrive: each takes effect once.
//!
//! A consumer's effect and its mark in the `inbox` table commit together; the message is acknowledged
//! afterwards. A message that comes again finds the mark and does nothing.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::BoxFuture;
use octroi_core::{ErrorKind, ServiceError};
use octroi_proto::event::Event;
use sqlx::PgConnection;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    bus::{BoxError, DeadLetter, DeadLetters, HandleError, Handler, Message, Queue},
    db::{DatabaseError, Db, Scope, to_sql},
    outbox::Wake,
    telemetry,
};

/// A queue and what is done with its messages.
#[derive(Clone)]
pub struct Consumer {
    /// The queue.
    pub queue: Queue,
    /// What is done.
    pub handler: Handler,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// A consumer whose effect is one transaction of `db`. After the commit `wake` is told, so that events
/// that the effect caused leave at once.
///
/// An error that trying again may mend is retried by the bus; one that says that the event itself is
/// wrong makes it a dead letter.
pub fn consumer<M, E, F>(db: &Db, queue: Queue, wake: &Wake, handle: F) -> Consumer
where
    M: Event,
    E: ServiceError + From<DatabaseError> + Send + Sync + 'static,
    F: for<'c> Fn(&'c mut PgConnection, M) -> BoxFuture<'c, Result<(), E>> + Clone + Send + Sync + 'static,
{
    let (db, wake) = (db.clone(), wake.clone());
    let handler: Handler = Arc::new(move |message: Message| {
        let (db, wake, handle) = (db.clone(), wake.clone(), handle.clone());
        let span = span(&queue, &message);
        let work = async move {
            let event = M::decode(message.payload.clone()).map_err(HandleError::poison)?;
            take_once(&db, queue.name, message.id, move |connection| {
                handle(connection, event)
            })
            .await?;
            wake.wake();
            Ok(())
        };
        Box::pin(work.instrument(span))
    });
    Consumer { queue, handler }
}

fn span(queue: &Queue, message: &Message) -> tracing::Span {
    if !telemetry::tracing_on() {
        return tracing::Span::none();
    }
    let span = tracing::info_span!(
        "consume",
        otel.name = format!("consume {}", queue.name),
        otel.kind = "consumer",
        message.id = %message.id,
        message.routing_key = message.routing_key,
    );
    telemetry::set_parent(&span, message.traceparent.as_deref());
    span
}

/// A consumer that asks others before its transaction and tells others after it, because no transaction
/// may wait for the network: `prepare` reads the event, `handle` is the effect, `after` gets what it
/// answered. What `after` does must bear to be done again, or not at all where the process dies before it.
pub fn prepared_consumer<M, P, T, E, Prepare, Prepared, Handle, After, Told>(
    db: &Db,
    queue: Queue,
    wake: &Wake,
    prepare: Prepare,
    handle: Handle,
    after: After,
) -> Consumer
where
    M: Event,
    P: Send + 'static,
    T: Send + 'static,
    E: ServiceError + From<DatabaseError> + Send + Sync + 'static,
    Prepare: Fn(M) -> Prepared + Clone + Send + Sync + 'static,
    Prepared: Future<Output = Result<P, E>> + Send,
    Handle:
        for<'c> Fn(&'c mut PgConnection, P) -> BoxFuture<'c, Result<T, E>> + Clone + Send + Sync + 'static,
    After: Fn(T) -> Told + Clone + Send + Sync + 'static,
    Told: Future<Output = Result<(), E>> + Send,
{
    let (db, wake) = (db.clone(), wake.clone());
    let handler: Handler = Arc::new(move |message: Message| {
        let (db, wake) = (db.clone(), wake.clone());
        let (prepare, handle, after) = (prepare.clone(), handle.clone(), after.clone());
        let span = span(&queue, &message);
        let work = async move {
            let event = M::decode(message.payload.clone()).map_err(HandleError::poison)?;
            let prepared = prepare(event).await.map_err(verdict)?;
            let told = take_once(&db, queue.name, message.id, move |connection| {
                handle(connection, prepared)
            })
            .await?;
            wake.wake();
            match told {
                Some(told) => after(told).await.map_err(verdict),
                None => Ok(()),
            }
        };
        Box::pin(work.instrument(span))
    });
    Consumer { queue, handler }
}

fn verdict<E: ServiceError + Send + Sync + 'static>(error: E) -> HandleError {
    match error.kind() {
        ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Conflict
        | ErrorKind::Internal
        | ErrorKind::OverLimit => HandleError::retry(error),
        _ => HandleError::poison(error),
    }
}

/// Does `work` unless this consumer did it for this message before; none says that it did.
async fn take_once<T, E, F>(
    db: &Db,
    consumer: &'static str,
    id: Uuid,
    work: F,
) -> Result<Option<T>, HandleError>
where
    T: Send + 'static,
    E: ServiceError + From<DatabaseError> + Send + Sync + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    let answer: Result<Option<T>, E> = db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move {
                let first = mark(connection, consumer, id).await?;
                if first {
                    work(connection).await.map(Some)
                } else {
                    Ok(None)
                }
            })
        })
        .await;
    answer.map_err(verdict)
}

async fn mark(connection: &mut PgConnection, consumer: &str, id: Uuid) -> Result<bool, DatabaseError> {
    let done = sqlx::query("INSERT INTO inbox (consumer, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(consumer)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps the dead letters of the bus in process in the `dead_letter` table of the consumer's schema.
#[derive(Debug, Default)]
pub struct DeadLetterTables {
    databases: RwLock<HashMap<&'static str, Db>>,
}

impl DeadLetterTables {
    /// Dead letters of queues of `service` go to `db`.
    pub fn add(&self, service: &'static str, db: Db) {
        self.databases
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(service, db);
    }

    fn database_of(&self, queue: &str) -> Option<Db> {
        let service = queue.split('.').next()?;
        self.databases
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(service)
            .cloned()
    }
}

impl DeadLetters for DeadLetterTables {
    fn keep(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let db = self
                .database_of(letter.queue)
                .ok_or("no database for the dead letters of this queue")?;
            db.transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { insert_dead_letter(connection, letter).await })
            })
            .await?;
            Ok(())
        })
    }
}

async fn insert_dead_letter(connection: &mut PgConnection, letter: DeadLetter) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO dead_letter (queue, message_id, routing_key, payload, traceparent, occurred_at, reason, attempts, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(letter.queue)
    .bind(letter.message.id)
    .bind(letter.message.routing_key)
    .bind(letter.message.payload.to_vec())
    .bind(letter.message.traceparent)
    .bind(to_sql(letter.message.occurred_at))
    .bind(letter.reason.as_str())
    .bind(i32::try_from(letter.attempts).unwrap_or(i32::MAX))
    .bind(letter.error)
    .execute(connection)
    .await?;
    Ok(())
}
