//! Dead letters: where they are kept, and how they come back.
//!
//! The bus in process keeps them in the `dead_letter` table of the consumer's schema, the bus over RabbitMQ in a
//! queue beside each queue ([`crate::bus::rabbitmq::DeadLetterQueues`]). Nothing brings one back by itself: an operator
//! looks at it, mends what was wrong and asks for it. In a table, that is written into the row; the process
//! that owns the schema then hands the message to its queue, and to that one alone. The row goes once the queue
//! has it, so nothing is lost in between, and where the message dies again its row says why.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::{BoxError, Bus, DeadLetter, DeadLetters, Message, PublishError},
    db::{DatabaseError, Db, Scope, from_sql, to_sql},
};

/// The most dead letters of one queue, or of one table, that are shown at once.
pub const LISTED_MAX: usize = 1_000;
/// What stands in a row as its reason once somebody asked for it to be handled again.
const REQUEUED: &str = "requeued";
/// How often the rows that were asked for are looked for.
const POLL: Duration = Duration::from_secs(2);
/// How many of them are on their way at once.
const BATCH: i64 = 64;

/// A dead letter as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The queue whose handler gave up.
    pub queue: String,
    /// The message's id; none where it cannot be read.
    pub message_id: Option<Uuid>,
    /// Its routing key; empty where it cannot be read.
    pub routing_key: String,
    /// When the event happened; none where that cannot be read.
    pub occurred_at: Option<jiff::Timestamp>,
    /// Why it is dead: `poison`, `delivery_limit`, `malformed`; `never_settled` where it took its consumers down;
    /// `requeued` where it is on its way back.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What its handler said.
    pub error: String,
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
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (queue, message_id) DO UPDATE
         SET reason = excluded.reason, attempts = excluded.attempts, error = excluded.error, kept_at = now()",
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

/// The dead letters in the table of `db`, of any message or of one: the oldest, at most [`LISTED_MAX`].
///
/// # Errors
/// [`DatabaseError`].
pub async fn list(db: &Db, id: Option<Uuid>) -> Result<Vec<Listed>, DatabaseError> {
    type Row = (String, Uuid, String, OffsetDateTime, String, i32, String);
    let rows: Vec<Row> = db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move {
                let rows = sqlx::query_as(
                    "SELECT queue, message_id, routing_key, occurred_at, reason, attempts, error FROM dead_letter
                     WHERE $1::uuid IS NULL OR message_id = $1 ORDER BY kept_at LIMIT $2",
                )
                .bind(id)
                .bind(i64::try_from(LISTED_MAX).unwrap_or(i64::MAX))
                .fetch_all(connection)
                .await?;
                Ok::<_, DatabaseError>(rows)
            })
        })
        .await?;
    let listed = |(queue, id, routing_key, occurred_at, reason, attempts, error): Row| Listed {
        queue,
        message_id: Some(id),
        routing_key,
        occurred_at: Some(from_sql(occurred_at)),
        reason,
        attempts: u32::try_from(attempts).unwrap_or(0),
        error,
    };
    Ok(rows.into_iter().map(listed).collect())
}

/// Asks for the dead letters in the table of `db` to be handled again, of any message or of one; says how many.
/// The process that owns the schema does it, within seconds while it runs.
///
/// # Errors
/// [`DatabaseError`].
pub async fn ask_requeue(db: &Db, id: Option<Uuid>) -> Result<u64, DatabaseError> {
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let asked = sqlx::query(
                "UPDATE dead_letter SET reason = $2 WHERE ($1::uuid IS NULL OR message_id = $1) AND reason <> $2",
            )
            .bind(id)
            .bind(REQUEUED)
            .execute(connection)
            .await?;
            Ok::<_, DatabaseError>(asked.rows_affected())
        })
    })
    .await
}

/// Brings the dead letters that were asked for back to their queues until `stop`.
pub async fn requeue_asked(db: Db, bus: Bus, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        match requeue_all(&db, &bus).await {
            Ok(0) => {}
            Ok(requeued) => tracing::info!(dead_letters.requeued = requeued, "dead letters were put back"),
            Err(error) => tracing::debug!(error = %error, "dead letters cannot be read"),
        }
    }
}

type AskedRow = (
    String,
    Uuid,
    String,
    Vec<u8>,
    Option<String>,
    OffsetDateTime,
    OffsetDateTime,
);

/// A letter as it was read: its queue, its message, and when it was kept.
type Done = (String, Uuid, OffsetDateTime);

async fn requeue_all(db: &Db, bus: &Bus) -> Result<usize, DatabaseError> {
    let (mut requeued, mut after) = (0, (String::new(), Uuid::nil()));
    loop {
        let rows = list_asked(db, after.clone()).await?;
        let Some((queue, id, ..)) = rows.last() else {
            return Ok(requeued);
        };
        after = (queue.clone(), *id);
        let done: Vec<Done> = join_all(rows.into_iter().map(|row| redeliver(bus, row)))
            .await
            .into_iter()
            .flatten()
            .collect();
        requeued += done.len();
        delete_requeued(db, done).await?;
    }
}

/// Which row is done with; none where it must be come back to.
async fn redeliver(bus: &Bus, row: AskedRow) -> Option<Done> {
    let (queue, id, routing_key, payload, traceparent, occurred_at, kept_at) = row;
    let message = Message {
        id,
        routing_key,
        payload: Bytes::from(payload),
        traceparent,
        occurred_at: from_sql(occurred_at),
    };
    match bus.redeliver(&queue, message).await {
        Ok(()) => Some((queue, id, kept_at)),
        Err(PublishError::Pending) => None,
        Err(error) => {
            tracing::warn!(queue.name = queue, message.id = %id, error = %error, "a dead letter cannot be put back");
            None
        }
    }
}

async fn list_asked(db: &Db, after: (String, Uuid)) -> Result<Vec<AskedRow>, DatabaseError> {
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            let rows = sqlx::query_as(
                "SELECT queue, message_id, routing_key, payload, traceparent, occurred_at, kept_at FROM dead_letter
                 WHERE reason = $1 AND (queue, message_id) > ($2, $3) ORDER BY queue, message_id LIMIT $4",
            )
            .bind(REQUEUED)
            .bind(after.0)
            .bind(after.1)
            .bind(BATCH)
            .fetch_all(connection)
            .await?;
            Ok::<_, DatabaseError>(rows)
        })
    })
    .await
}

/// One that died again meanwhile was kept at another time, and stays, whatever was asked of it since.
async fn delete_requeued(db: &Db, done: Vec<Done>) -> Result<(), DatabaseError> {
    if done.is_empty() {
        return Ok(());
    }
    let (mut queues, mut ids, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (queue, id, kept_at) in done {
        queues.push(queue);
        ids.push(id);
        kept.push(kept_at);
    }
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "DELETE FROM dead_letter WHERE reason = $4 AND (queue, message_id, kept_at) IN
                     (SELECT * FROM unnest($1::text[], $2::uuid[], $3::timestamptz[]))",
            )
            .bind(&queues)
            .bind(&ids)
            .bind(&kept)
            .bind(REQUEUED)
            .execute(connection)
            .await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
}
