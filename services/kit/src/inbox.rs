//! Events that arrive: each takes effect once.
//!
//! A consumer's effect and its mark in the `inbox` table commit together; the message is acknowledged
//! afterwards. A message that comes again finds the mark and does nothing.
//!
//! A mark is kept for [`MARKS_KEPT`]. It is needed for as long as the message may come again: while its row is
//! in an outbox, because one of its queues waits for something that is away, and while a copy of it is on its
//! way through the broker. A dead letter that is put back goes to its own queue only: where its effect was had already, the mark
//! says so, and only what follows is done again.

mod gathered;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use octroi_core::{ErrorKind, ServiceError};
use octroi_proto::{errors::v1::ErrorReason, event::Event};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::gathered::gathered_consumer;
use crate::{
    bus::{BoxError, HandleError, Handler, Message, Queue},
    db::{DatabaseError, Db, Scope},
    outbox::Wake,
    telemetry,
};

/// How long a mark is kept: 30 days, far above what an event may wait in an outbox unnoticed.
pub const MARKS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long after the start marks are first deleted, so that a start is not made slower by it.
const FIRST_PRUNE: Duration = Duration::from_secs(60);
/// How often after that.
const PRUNE_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// How many blocks of the table one statement reads: 1 MiB, about 10,000 marks.
const PRUNED_BLOCKS: i64 = 128;
/// What other work gets between two statements.
const PRUNE_PAUSE: Duration = Duration::from_millis(20);

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
/// An error that says that something is away is retried until it is back; one that may be the handler's own
/// fault, as often as the queue allows; one that says that the event itself is wrong makes it a dead letter.
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

/// Whether a message has had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Not yet.
    First,
    /// Before, but what came after it may not have been done.
    Again,
}

/// A consumer that asks others before its transaction and tells others after it, because no transaction
/// may wait for the network: `prepare` reads the event, `handle` is the effect, `after` gets what it
/// answered. Where `after` fails, the message comes again: `handle` then only answers what `after` is to
/// tell, without the effect, and `after` must bear to be done again.
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
    Handle: for<'c> Fn(&'c mut PgConnection, P, Turn) -> BoxFuture<'c, Result<T, E>>
        + Clone
        + Send
        + Sync
        + 'static,
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
            let told: Result<T, E> = db
                .transaction(Scope::AllAccounts, move |connection| {
                    Box::pin(async move {
                        let first = mark(connection, queue.name, message.id).await?;
                        let turn = if first { Turn::First } else { Turn::Again };
                        handle(connection, prepared, turn).await
                    })
                })
                .await;
            let told = told.map_err(verdict)?;
            wake.wake();
            after(told).await.map_err(verdict)
        };
        Box::pin(work.instrument(span))
    });
    Consumer { queue, handler }
}

fn verdict<E: ServiceError + Send + Sync + 'static>(error: E) -> HandleError {
    blame(&error)(error.into())
}

/// What an error says of the message whose handling it ended.
fn blame(error: &impl ServiceError) -> fn(BoxError) -> HandleError {
    let overloaded = [ErrorReason::Overloaded, ErrorReason::RateLimited].map(ErrorReason::name);
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => HandleError::Away,
        // Whoever sheds load is away for whoever is shed; any other limit stays in the way.
        ErrorKind::OverLimit if overloaded.contains(&error.reason()) => HandleError::Away,
        ErrorKind::Conflict | ErrorKind::Internal | ErrorKind::OverLimit => HandleError::Retry,
        _ => HandleError::Poison,
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

/// Whether each of these messages has had its effect by one of these consumers of the transaction's schema.
///
/// # Errors
/// [`DatabaseError`].
pub async fn are_marked(
    connection: &mut PgConnection,
    consumers: &[&str],
    messages: &BTreeSet<Uuid>,
) -> Result<bool, DatabaseError> {
    let marked: Option<bool> = sqlx::query_scalar(
        "SELECT bool_and(EXISTS (SELECT FROM inbox WHERE consumer = ANY($1) AND message_id = m.id))
         FROM unnest($2::uuid[]) AS m (id)",
    )
    .bind(consumers)
    .bind(messages.iter().copied().collect::<Vec<_>>())
    .fetch_one(connection)
    .await?;
    // Of none of them, each.
    Ok(marked.unwrap_or(true))
}

/// Deletes old marks from time to time until `stop`.
pub async fn prune_marks(db: Db, stop: CancellationToken) {
    let mut pause = FIRST_PRUNE;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = PRUNE_EVERY;
        let pruned = tokio::select! {
            () = stop.cancelled() => return,
            pruned = prune(&db, MARKS_KEPT) => pruned,
        };
        match pruned {
            Ok(0) => {}
            Ok(marks) => tracing::info!(inbox.pruned = marks, "old marks of handled messages are deleted"),
            Err(error) => tracing::warn!(error = %error, "old marks cannot be deleted; trying again later"),
        }
    }
}

/// Deletes the marks that are older than `kept`; says how many. The table is read from its beginning to its
/// end, a few blocks a transaction, so that it needs no index that every message would have to pay for.
///
/// # Errors
/// [`DatabaseError`]; what was deleted before stays so.
pub async fn prune(db: &Db, kept: Duration) -> Result<u64, DatabaseError> {
    let blocks: i64 = db
        .transaction(Scope::AllAccounts, |connection| {
            Box::pin(async move {
                let size = "SELECT pg_relation_size('inbox') / current_setting('block_size')::bigint";
                let blocks = sqlx::query_scalar(size).fetch_one(connection).await?;
                Ok::<_, DatabaseError>(blocks)
            })
        })
        .await?;
    let (mut pruned, mut first) = (0, 0);
    while first < blocks {
        let next = first + PRUNED_BLOCKS;
        pruned += prune_blocks(db, first, next, kept).await?;
        first = next;
        tokio::time::sleep(PRUNE_PAUSE).await;
    }
    Ok(pruned)
}

async fn prune_blocks(db: &Db, first: i64, next: i64, kept: Duration) -> Result<u64, DatabaseError> {
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let deleted = sqlx::query(
                "DELETE FROM inbox WHERE ctid >= $1::text::tid AND ctid < $2::text::tid
                     AND taken_at < now() - make_interval(secs => $3)",
            )
            .bind(format!("({first},0)"))
            .bind(format!("({next},0)"))
            .bind(kept.as_secs_f64())
            .execute(connection)
            .await?;
            Ok::<_, DatabaseError>(deleted.rows_affected())
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0:?}")]
    struct Fault(ErrorKind, ErrorReason);

    impl ServiceError for Fault {
        fn kind(&self) -> ErrorKind {
            self.0
        }

        fn reason(&self) -> &'static str {
            self.1.name()
        }
    }

    #[test]
    fn only_what_is_away_is_tried_without_end() {
        for kind in ErrorKind::ALL {
            let expected = match kind {
                ErrorKind::Unavailable | ErrorKind::Timeout => "Away",
                ErrorKind::Conflict | ErrorKind::Internal | ErrorKind::OverLimit => "Retry",
                _ => "Poison",
            };
            let verdict = format!("{:?}", verdict(Fault(kind, ErrorReason::Internal)));
            assert!(verdict.starts_with(expected), "{kind:?}: {verdict}");
        }
        let shed = verdict(Fault(ErrorKind::OverLimit, ErrorReason::Overloaded));
        assert!(matches!(shed, HandleError::Away(_)), "{shed:?}");
    }
}
