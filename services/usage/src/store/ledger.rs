//! The rows of the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, MetricSlug, Source, Units};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{copy::Rows, corrections::list_corrections, keys::find_key};
use crate::{
    domain::{
        correction::{Corrected, Standing},
        event::{Accepted, Event, Identity, Origin, PayloadHash, RecordedEvent},
        events::{EventsQuery, Place},
    },
    error::Error,
};

/// Up to so many events are inserted by a statement, more by `COPY`, which takes the server less work for each.
///
/// `COPY` sends its rows and its end one after the other. The driver leaves Nagle's algorithm on (sqlx 0.9.0,
/// launchbadge/sqlx#4335), so the end waits until the server's side acknowledges the rows, which it may put off for 40 ms. A statement
/// is one message, and waits for nothing.
const INSERTED_MAX: usize = 1_000;

/// Writes events down whose keys this transaction has inserted, and which a message tells of.
pub async fn append_events(
    connection: &mut PgConnection,
    events: &[&Accepted],
    message_id: Uuid,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let written = if events.len() <= INSERTED_MAX {
        insert_events(connection, events, message_id, now).await?
    } else {
        copy_events(connection, events, message_id, now).await?
    };
    expect_rows(u64::try_from(events.len()).unwrap_or(u64::MAX), written)
}

async fn insert_events(
    connection: &mut PgConnection,
    events: &[&Accepted],
    message_id: Uuid,
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let column = |of: fn(&Event) -> &str| -> Vec<&str> { events.iter().map(|one| of(&one.event)).collect() };
    let times: Vec<OffsetDateTime> = events.iter().map(|one| to_sql(one.event_at)).collect();
    let amounts: Vec<i64> = events.iter().map(|one| one.event.amount.as_i64()).collect();
    let charged: Vec<i64> = (events.iter()).map(|one| one.charged_amount().as_i64()).collect();
    let backfill: Vec<bool> = events.iter().map(|one| one.event.backfill).collect();
    let properties: Vec<Json<&BTreeMap<String, String>>> =
        events.iter().map(|one| Json(&one.event.properties)).collect();
    let written = sqlx::query(
        "INSERT INTO ledger (account_id, metric, event_at, source, event_id, amount, charged_amount, origin, backfill, properties,
                             recorded_at, message_id)
         SELECT *, $11, $12 FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                                   $8::text[], $9::boolean[], $10::jsonb[])",
    )
    .bind(column(|event| event.identity.account.as_str()))
    .bind(column(|event| event.metric.as_str()))
    .bind(times)
    .bind(column(|event| event.identity.source.as_str()))
    .bind(column(|event| event.identity.event_id.as_str()))
    .bind(amounts)
    .bind(charged)
    .bind(column(|event| event.origin.as_str()))
    .bind(backfill)
    .bind(properties)
    .bind(to_sql(now))
    .bind(message_id)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

async fn copy_events(
    connection: &mut PgConnection,
    events: &[&Accepted],
    message_id: Uuid,
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let mut rows = Rows::of(12);
    for one in events {
        let (event, mut row) = (&one.event, rows.row());
        row.text(event.identity.account.as_str())?;
        row.text(event.metric.as_str())?;
        row.time(one.event_at)?;
        row.text(event.identity.source.as_str())?;
        row.text(event.identity.event_id.as_str())?;
        row.bigint(event.amount.as_i64())?;
        row.bigint(one.charged_amount().as_i64())?;
        row.time(now)?;
        row.text(event.origin.as_str())?;
        row.boolean(event.backfill)?;
        row.jsonb(&event.properties)?;
        row.uuid(message_id)?;
    }
    let mut copy = connection
        .copy_in_raw(
            "COPY ledger (account_id, metric, event_at, source, event_id, amount, charged_amount, recorded_at, origin,
                               backfill, properties, message_id) FROM STDIN (FORMAT binary)",
        )
        .await?;
    copy.send(rows.finish()).await?;
    Ok(copy.finish().await?)
}

/// Counts events and corrections that the rollups do not have yet, up or down. What is added to the rollups as events is counted
/// down by a trigger.
///
/// One row would make all commits wait for each other: the figure is the sum of many rows, and each session has one of
/// its own. A transaction changes it last, so that nobody who holds a row waits for somebody who wants it.
pub async fn count_lag(connection: &mut PgConnection, change: i64) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE rollup_lag SET events = events + $1 WHERE slot = pg_backend_pid() % 256")
        .bind(change)
        .execute(connection)
        .await?;
    Ok(())
}

/// The number of this transaction, by which snapshots of the ledger know it.
pub async fn current_transaction(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    let number: String = sqlx::query_scalar("SELECT pg_current_xact_id()::text")
        .fetch_one(connection)
        .await?;
    number.parse().map_err(corrupt("transaction"))
}

type EventRow = (
    String,
    String,
    String,
    String,
    i64,
    OffsetDateTime,
    OffsetDateTime,
    String,
    bool,
    Json<BTreeMap<String, String>>,
    i64,
    i64,
);

/// Up to `limit` events, the newest first.
pub async fn list_events(
    connection: &mut PgConnection,
    query: &EventsQuery,
    limit: i64,
) -> Result<Vec<RecordedEvent>, Error> {
    // The index has the newest of each metric, so a page reads no more than a page of each; where it is of some source or
    // properties, it reads on until it is full.
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT e.* FROM (SELECT slug FROM metric WHERE $2::text IS NULL OR slug = $2) AS m
         CROSS JOIN LATERAL (
             SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence,
                    charged_amount
             FROM ledger AS e
             WHERE e.account_id = $1 AND e.metric = m.slug AND e.event_at >= $3 AND e.event_at < $4
               AND e.event_at <= $5 AND (e.event_at, e.sequence) < ($5, $6)
               AND ($7::text IS NULL OR e.source = $7) AND ($8::jsonb IS NULL OR e.properties @> $8)
             ORDER BY e.event_at DESC, e.sequence DESC LIMIT $9) AS e
         ORDER BY e.event_at DESC, e.sequence DESC LIMIT $9",
    )
    .bind(query.account.as_str())
    .bind(query.metric.as_ref().map(MetricSlug::as_str))
    .bind(to_sql(query.range.start))
    .bind(to_sql(query.range.end))
    .bind(to_sql(query.before.event_at))
    .bind(query.before.sequence)
    .bind(query.source.as_ref().map(Source::as_str))
    .bind((!query.properties.is_empty()).then_some(Json(&query.properties)))
    .bind(limit)
    .fetch_all(&mut *connection)
    .await
    .map_err(DatabaseError::from)?;
    let events: Result<Vec<RecordedEvent>, DatabaseError> = rows.into_iter().map(recorded_event).collect();
    let mut events = events?;
    add_standings(connection, &query.account, &mut events).await?;
    Ok(events)
}

/// Reads what events come to with their corrections.
async fn add_standings(
    connection: &mut PgConnection,
    account: &AccountId,
    events: &mut [RecordedEvent],
) -> Result<(), DatabaseError> {
    let named: Vec<(&MetricSlug, Place)> = (events.iter())
        .map(|one| (&one.event.metric, one.place))
        .collect();
    let mut newest = list_corrections(connection, account, &named, 1).await?;
    for one in events {
        let corrected = newest
            .remove(&one.place.sequence)
            .and_then(|mut newest| newest.pop());
        if let Some(corrected) = corrected {
            one.standing = corrected.after;
        }
    }
    Ok(())
}

/// One event of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEvent {
    /// The event.
    pub recorded: RecordedEvent,
    /// The hash of its content.
    pub payload_hash: PayloadHash,
    /// Its corrections, the oldest first.
    pub corrections: Vec<Corrected>,
}

/// The most corrections of one event that are read.
const HISTORY_MAX: i64 = 1_000;

/// The event of an identity.
pub async fn find_event(
    connection: &mut PgConnection,
    identity: &Identity,
) -> Result<Option<FoundEvent>, DatabaseError> {
    let Some((event_at, payload_hash)) = find_key(connection, identity).await? else {
        return Ok(None);
    };
    let row: Option<EventRow> = sqlx::query_as(
        "SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence,
                charged_amount
         FROM ledger
         WHERE account_id = $1 AND metric = ANY (ARRAY(SELECT slug FROM metric)) AND event_at = $4
           AND source = $2 AND event_id = $3",
    )
    .bind(identity.account.as_str())
    .bind(identity.source.as_str())
    .bind(identity.event_id.as_str())
    .bind(event_at)
    .fetch_optional(&mut *connection)
    .await?;
    // A key outlives the month of its event, for a while.
    let Some(mut recorded) = row.map(recorded_event).transpose()? else {
        return Ok(None);
    };
    let named = [(&recorded.event.metric, recorded.place)];
    let mut corrections = list_corrections(connection, &identity.account, &named, HISTORY_MAX).await?;
    let mut corrections = corrections.remove(&recorded.place.sequence).unwrap_or_default();
    corrections.reverse();
    if let Some(newest) = corrections.last() {
        recorded.standing = newest.after;
    }
    Ok(Some(FoundEvent {
        recorded,
        payload_hash,
        corrections,
    }))
}

fn recorded_event(row: EventRow) -> Result<RecordedEvent, DatabaseError> {
    let (
        account,
        source,
        event_id,
        metric,
        amount,
        event_at,
        recorded_at,
        origin,
        backfill,
        properties,
        sequence,
        charged,
    ) = row;
    let event_at = from_sql(event_at);
    let event = Event {
        identity: Identity {
            account: AccountId::parse(&account).map_err(corrupt("account id"))?,
            source: Source::parse(&source).map_err(corrupt("source"))?,
            event_id: EventId::parse(&event_id).map_err(corrupt("event id"))?,
        },
        metric: MetricSlug::parse(&metric).map_err(corrupt("metric"))?,
        amount: Units::positive(amount).map_err(corrupt("amount"))?,
        event_at: Some(event_at),
        properties: properties.0,
        origin: Origin::from_name(&origin).ok_or(DatabaseError::Corrupt { what: "origin" })?,
        backfill,
        charges: Vec::new(),
    };
    Ok(RecordedEvent {
        standing: Standing::recorded(event.amount),
        event,
        recorded_at: from_sql(recorded_at),
        charged: Units::try_from(charged).map_err(corrupt("charge"))?,
        place: Place { event_at, sequence },
    })
}
