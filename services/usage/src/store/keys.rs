//! The keys that make an event count once.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    event::{Accepted, EventKey, Identity, Origin, PayloadHash},
    settlement::Known,
};

/// The keys that were inserted.
#[derive(Debug)]
pub struct Inserted {
    /// Which of those asked for.
    pub keys: HashSet<EventKey>,
    /// The number of the transaction, by which snapshots of the ledger know it; none where nothing was inserted.
    pub transaction: Option<u64>,
}

/// Inserts the keys of events that the ledger does not have yet, and answers which those were. The events are sorted by
/// key, so that commits that meet the same ones never wait for each other in a circle.
pub async fn insert_keys(
    connection: &mut PgConnection,
    events: &[&Accepted],
    now: Timestamp,
) -> Result<Inserted, DatabaseError> {
    let hashes: Vec<Uuid> = (events.iter())
        .map(|one| Uuid::from_bytes(one.payload_hash))
        .collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|one| to_sql(one.event_at)).collect();
    let denied: Vec<bool> = (events.iter())
        .map(|one| one.event.origin == Origin::Denial)
        .collect();
    // One value for all: a row for each would cost as much as the insert.
    let (added, transaction): (Option<Vec<Uuid>>, Option<String>) = sqlx::query_as(
        "WITH added AS (
             INSERT INTO event_key (key, payload_hash, event_at, denied, recorded_at)
             SELECT *, $5 FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::boolean[])
             ON CONFLICT DO NOTHING RETURNING key)
         SELECT array_agg(key), CASE WHEN count(*) > 0 THEN pg_current_xact_id()::text END FROM added",
    )
    .bind(keys(events.iter().map(|one| one.key)))
    .bind(hashes)
    .bind(times)
    .bind(denied)
    .bind(to_sql(now))
    .fetch_one(connection)
    .await?;
    let added = added.unwrap_or_default().into_iter();
    Ok(Inserted {
        keys: added.map(|key| EventKey::new(key.into_bytes())).collect(),
        transaction: (transaction.as_deref())
            .map(str::parse)
            .transpose()
            .map_err(corrupt("transaction"))?,
    })
}

/// Takes back keys that this transaction has inserted. Nobody else has seen them, and nobody else can take them before
/// the transaction ends.
pub async fn delete_keys(connection: &mut PgConnection, events: &[&Accepted]) -> Result<(), DatabaseError> {
    let deleted = sqlx::query("DELETE FROM event_key WHERE key = ANY($1)")
        .bind(keys(events.iter().map(|one| one.key)))
        .execute(connection)
        .await?;
    expect_rows(
        u64::try_from(events.len()).unwrap_or(u64::MAX),
        deleted.rows_affected(),
    )
}

/// What the ledger has of these keys.
pub async fn list_known(
    connection: &mut PgConnection,
    asked: &[EventKey],
) -> Result<HashMap<EventKey, Known>, DatabaseError> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, Uuid, OffsetDateTime, bool)> = sqlx::query_as(
        "SELECT key, payload_hash, recorded_at, denied FROM unnest($1::uuid[]) AS asked (key)
         CROSS JOIN LATERAL (SELECT payload_hash, recorded_at, denied FROM event_key AS k
                             WHERE k.key = asked.key OFFSET 0) AS k",
    )
    .bind(keys(asked.iter().copied()))
    .fetch_all(connection)
    .await?;
    let known = rows.into_iter().map(|(key, payload_hash, recorded_at, denied)| {
        let known = Known {
            payload_hash: payload_hash.into_bytes(),
            recorded_at: from_sql(recorded_at),
            denied,
        };
        (EventKey::new(key.into_bytes()), known)
    });
    Ok(known.collect())
}

/// When the event of an identity counts, and the hash of its content.
pub(super) async fn find_key(
    connection: &mut PgConnection,
    identity: &Identity,
) -> Result<Option<(OffsetDateTime, PayloadHash)>, DatabaseError> {
    let found: Option<(OffsetDateTime, Uuid)> =
        sqlx::query_as("SELECT event_at, payload_hash FROM event_key WHERE key = $1 AND NOT denied")
            .bind(Uuid::from_bytes(identity.key().bytes()))
            .fetch_optional(connection)
            .await?;
    Ok(found.map(|(event_at, payload_hash)| (event_at, payload_hash.into_bytes())))
}

/// The parts of the table of keys.
pub const KEY_PARTS: usize = 8;

/// How many blocks a part has.
pub async fn count_key_blocks(connection: &mut PgConnection, part: usize) -> Result<i64, DatabaseError> {
    let blocks = sqlx::query_scalar(
        "SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint",
    )
    .bind(format!("event_key_{part}"))
    .fetch_one(connection)
    .await?;
    Ok(blocks)
}

/// Forgets the keys of events before `before` in some blocks of a part. No index would do: rows of other times come into
/// blocks that became free.
pub async fn delete_keys_in(
    connection: &mut PgConnection,
    part: usize,
    blocks: Range<i64>,
    before: Timestamp,
) -> Result<(), DatabaseError> {
    let delete = format!(
        "DELETE FROM event_key_{part} WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND event_at < $3"
    );
    sqlx::query(AssertSqlSafe(delete))
        .bind(format!("({},0)", blocks.start))
        .bind(format!("({},0)", blocks.end))
        .bind(to_sql(before))
        .execute(connection)
        .await?;
    Ok(())
}

fn keys(keys: impl Iterator<Item = EventKey>) -> Vec<Uuid> {
    keys.map(|key| Uuid::from_bytes(key.bytes())).collect()
}
