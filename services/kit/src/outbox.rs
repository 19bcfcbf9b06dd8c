//! Events that leave with the transaction that caused them.
//!
//! A service writes an event into its `outbox` table in the same transaction as the change; the relay
//! publishes it afterwards and deletes the row once every queue that listens has it. Rows are claimed for a
//! while rather than locked, so that no transaction waits for the network; there is no high-water mark,
//! because ids commit out of order. An event may arrive twice, and the inbox takes it once.

use std::time::Duration;

use bytes::Bytes;
use octroi_proto::event::Event;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::{Bus, Message, PublishError},
    db::{DatabaseError, Db, Scope, from_sql, to_sql},
    telemetry,
};

/// How many rows are published at once.
const BATCH: i64 = 64;
/// How long a claimed row is left alone by other relays: longer than one message takes to be published, and
/// no longer than the events of a relay that was killed may wait. A row that is claimed again too early is
/// published twice, and the inbox takes it once.
const CLAIM_S: f64 = 15.0;
/// How long a row is left alone whose consumers are still at work, or that found no bus, so that it does not
/// stand in the way of the rows behind it.
const ASK_AGAIN_S: f64 = 1.0;
/// How long a row is left alone at the most that the bus refuses again and again.
const REFUSED_S_MAX: f64 = 60.0;
/// How long the relay sleeps where nothing woke it.
const POLL: Duration = Duration::from_millis(250);
/// How long the relay waits after something could not be published.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Wakes the relay of one service as soon as there is something to publish.
#[derive(Clone, Debug, Default)]
pub struct Wake(std::sync::Arc<tokio::sync::Notify>);

impl Wake {
    /// Call it after the commit.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Writes `event` into the outbox of the transaction's schema, and answers the id of its message.
///
/// # Errors
/// [`DatabaseError`].
pub async fn enqueue<E: Event>(
    connection: &mut PgConnection,
    event: &E,
    now: jiff::Timestamp,
) -> Result<Uuid, DatabaseError> {
    let id = new_id();
    enqueue_as(connection, id, event, now).await?;
    Ok(id)
}

/// The same, where the id of the message was needed before, from [`new_id`].
///
/// # Errors
/// [`DatabaseError`].
pub async fn enqueue_as<E: Event>(
    connection: &mut PgConnection,
    id: Uuid,
    event: &E,
    now: jiff::Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO outbox (id, routing_key, payload, traceparent, occurred_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(E::ROUTING_KEY)
    .bind(event.encode_to_vec())
    .bind(telemetry::traceparent())
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// An id for a message.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::new_v4()
}

type OutboxRow = (Uuid, String, Vec<u8>, Option<String>, OffsetDateTime, i32);

/// Publishes what the outbox holds until `stop`.
pub async fn relay(db: Db, bus: Bus, wake: Wake, stop: CancellationToken) {
    loop {
        let pause = match publish_some(&db, &bus).await {
            Ok(Progress { claimed: 0, .. }) => POLL,
            Ok(Progress { failed: 0, .. }) => Duration::ZERO,
            Ok(Progress { failed, .. }) => {
                tracing::warn!(outbox.failed = failed, "events could not be published and wait");
                BACK_OFF
            }
            Err(error) => {
                tracing::warn!(error = %error, "the outbox cannot be read");
                BACK_OFF
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = wake.0.notified(), if pause == POLL => {}
        }
    }
}

#[derive(Default)]
struct Progress {
    claimed: usize,
    /// Rows that the bus did not take.
    failed: usize,
}

async fn publish_some(db: &Db, bus: &Bus) -> Result<Progress, DatabaseError> {
    let rows = claim(db).await?;
    let claimed = rows.len();
    if claimed == 0 {
        return Ok(Progress::default());
    }
    let ids: Vec<(Uuid, i32)> = rows.iter().map(|row| (row.0, row.5)).collect();
    let outcomes = bus.publish(rows.into_iter().map(message).collect()).await;
    let mut sent = Vec::with_capacity(claimed);
    let (mut kept, mut waits_s, mut failed) = (Vec::new(), Vec::new(), 0);
    for ((id, tries), outcome) in ids.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => sent.push(id),
            Err(error) => {
                tracing::debug!(message.id = %id, error = %error, "not published");
                failed += usize::from(error != PublishError::Pending);
                kept.push(id);
                waits_s.push(wait_s(&error, tries));
            }
        }
    }
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
                .bind(&sent)
                .execute(&mut *connection)
                .await?;
            if kept.is_empty() {
                return Ok(());
            }
            sqlx::query(
                "UPDATE outbox
                 SET claimed_until = now() + make_interval(secs => ($2::float8[])[array_position($1, id)])
                 WHERE id = ANY($1::uuid[])",
            )
            .bind(&kept)
            .bind(&waits_s)
            .execute(connection)
            .await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await?;
    Ok(Progress { claimed, failed })
}

/// How long a row that was not published is left alone, after `tries` tries. What the bus refuses for its own
/// sake waits longer each time, so that such rows never fill every batch; where the bus is away, all wait alike.
fn wait_s(error: &PublishError, tries: i32) -> f64 {
    match error {
        PublishError::Pending | PublishError::Unavailable | PublishError::Timeout | PublishError::Blocked => {
            ASK_AGAIN_S
        }
        PublishError::Unroutable { .. } | PublishError::Full | PublishError::Invalid(_) => {
            f64::from(1_u32 << tries.clamp(0, 10)).min(REFUSED_S_MAX)
        }
    }
}

async fn claim(db: &Db) -> Result<Vec<OutboxRow>, DatabaseError> {
    db.transaction(Scope::AllAccounts, |connection| {
        Box::pin(async move {
            let rows = sqlx::query_as(
                "UPDATE outbox SET claimed_until = now() + make_interval(secs => $2), tries = tries + 1
                 WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE claimed_until IS NULL OR claimed_until < now()
                                       ORDER BY sequence LIMIT $1 FOR UPDATE SKIP LOCKED))
                 RETURNING id, routing_key, payload, traceparent, occurred_at, tries",
            )
            .bind(BATCH)
            .bind(CLAIM_S)
            .fetch_all(connection)
            .await?;
            Ok::<_, DatabaseError>(rows)
        })
    })
    .await
}

fn message((id, routing_key, payload, traceparent, occurred_at, _): OutboxRow) -> Message {
    Message {
        id,
        routing_key,
        payload: Bytes::from(payload),
        traceparent,
        occurred_at: from_sql(occurred_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_waits_longer_each_time_and_what_found_no_bus_does_not() {
        let unroutable = PublishError::Unroutable { queue: "a.b".into() };
        let waits_s = |error: &PublishError| [1, 2, 5, 6, 1_000].map(|tries| wait_s(error, tries));
        assert_eq!(waits_s(&unroutable), [2.0, 4.0, 32.0, 60.0, 60.0]);
        assert_eq!(waits_s(&PublishError::Unavailable), [1.0; 5]);
        assert_eq!(waits_s(&PublishError::Pending), [1.0; 5]);
    }
}
