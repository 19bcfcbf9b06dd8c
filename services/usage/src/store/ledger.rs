//! The rows of the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, MetricSlug, Source, Units};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::{
    domain::{
        event::{Accepted, Event, Identity, Origin, RecordedEvent},
        settlement::Known,
    },
    error::Error,
};

/// Inserts the events that are not in the ledger yet and answers which those were.
pub async fn insert_events(
    connection: &mut PgConnection,
    events: &[&Accepted],
    now: Timestamp,
) -> Result<HashSet<Identity>, DatabaseError> {
    let text =
        |part: fn(&Event) -> &str| -> Vec<&str> { events.iter().map(|one| part(&one.event)).collect() };
    let amounts: Vec<i64> = events.iter().map(|one| one.recorded_amount().as_i64()).collect();
    let charged: Vec<i64> = events.iter().map(|one| one.charged_amount().as_i64()).collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|one| to_sql(one.event_at)).collect();
    let backfills: Vec<bool> = events.iter().map(|one| one.event.backfill).collect();
    let properties: Vec<Json<&BTreeMap<String, String>>> =
        events.iter().map(|one| Json(&one.event.properties)).collect();
    let hashes: Vec<&[u8]> = events.iter().map(|one| &one.payload_hash[..]).collect();
    let inserted: Vec<(String, String, String)> = sqlx::query_as(
        "INSERT INTO usage_event
             (account_id, source, event_id, metric, amount, event_at, origin, backfill, properties, payload_hash,
              charged_amount, recorded_at)
         SELECT *, $12 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                              $7::text[], $8::boolean[], $9::jsonb[], $10::bytea[], $11::bigint[])
         ON CONFLICT DO NOTHING
         RETURNING account_id, source, event_id",
    )
    .bind(text(|event| event.identity.account.as_str()))
    .bind(text(|event| event.identity.source.as_str()))
    .bind(text(|event| event.identity.event_id.as_str()))
    .bind(text(|event| event.metric.as_str()))
    .bind(amounts)
    .bind(times)
    .bind(text(|event| event.origin.as_str()))
    .bind(backfills)
    .bind(properties)
    .bind(hashes)
    .bind(charged)
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    inserted.into_iter().map(identity).collect()
}

/// Takes back events that this transaction has inserted. Nobody else has seen them, and nobody else can take
/// their identities before the transaction ends.
pub async fn delete_events(connection: &mut PgConnection, events: &[&Accepted]) -> Result<(), DatabaseError> {
    let (accounts, sources, event_ids) = columns(events.iter().map(|one| &one.event.identity));
    let deleted = sqlx::query(
        "DELETE FROM usage_event WHERE ctid = ANY (ARRAY(
             SELECT e.ctid FROM unnest($1::text[], $2::text[], $3::text[]) AS gone (account_id, source, event_id)
             CROSS JOIN LATERAL (SELECT ctid FROM usage_event AS e
                                 WHERE e.account_id = gone.account_id AND e.source = gone.source
                                   AND e.event_id = gone.event_id OFFSET 0) AS e))",
    )
    .bind(accounts)
    .bind(sources)
    .bind(event_ids)
    .execute(connection)
    .await?;
    expect_rows(
        u64::try_from(events.len()).unwrap_or(u64::MAX),
        deleted.rows_affected(),
    )
}

/// The number of this transaction, by which snapshots of the ledger know it.
pub async fn current_transaction(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    let number: String = sqlx::query_scalar("SELECT pg_current_xact_id()::text")
        .fetch_one(connection)
        .await?;
    number.parse().map_err(corrupt("transaction"))
}

/// Accounts, sources and event ids.
fn columns<'i>(identities: impl Iterator<Item = &'i Identity>) -> (Vec<&'i str>, Vec<&'i str>, Vec<&'i str>) {
    identities
        .map(|one| (one.account.as_str(), one.source.as_str(), one.event_id.as_str()))
        .collect()
}

fn identity((account, source, event_id): (String, String, String)) -> Result<Identity, DatabaseError> {
    Ok(Identity {
        account: AccountId::parse(&account).map_err(corrupt("account id"))?,
        source: Source::parse(&source).map_err(corrupt("source"))?,
        event_id: EventId::parse(&event_id).map_err(corrupt("event id"))?,
    })
}

/// What the ledger has of these identities.
pub async fn list_known(
    connection: &mut PgConnection,
    identities: &[&Identity],
) -> Result<HashMap<Identity, Known>, DatabaseError> {
    if identities.is_empty() {
        return Ok(HashMap::new());
    }
    let (accounts, sources, event_ids) = columns(identities.iter().copied());
    let rows: Vec<(String, String, String, Vec<u8>, OffsetDateTime, bool)> = sqlx::query_as(
        "SELECT account_id, source, event_id, payload_hash, recorded_at, origin = 'denial'
         FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (account_id, source, event_id)
         CROSS JOIN LATERAL (SELECT payload_hash, recorded_at, origin FROM usage_event AS e
                             WHERE e.account_id = asked.account_id AND e.source = asked.source
                               AND e.event_id = asked.event_id OFFSET 0) AS e",
    )
    .bind(accounts)
    .bind(sources)
    .bind(event_ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(account, source, event_id, hash, recorded_at, denied)| {
            let payload_hash = hash.try_into().map_err(corrupt("payload hash"))?;
            Ok((
                identity((account, source, event_id))?,
                Known {
                    payload_hash,
                    recorded_at: from_sql(recorded_at),
                    denied,
                },
            ))
        })
        .collect()
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
    Vec<u8>,
    i64,
);

/// Up to `limit` events of an account before the place `before`, the newest first.
pub async fn list_events(
    connection: &mut PgConnection,
    account: &AccountId,
    metric: Option<&MetricSlug>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<RecordedEvent>, Error> {
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence,
                payload_hash, charged_amount
         FROM usage_event
         WHERE account_id = $1 AND ($2::text IS NULL OR metric = $2) AND ($3::bigint IS NULL OR sequence < $3)
           AND origin <> 'denial'
         ORDER BY sequence DESC LIMIT $4",
    )
    .bind(account.as_str())
    .bind(metric.map(MetricSlug::as_str))
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await
    .map_err(DatabaseError::from)?;
    rows.into_iter().map(|row| Ok(recorded_event(row)?)).collect()
}

/// The event of an identity.
pub async fn find_event(
    connection: &mut PgConnection,
    identity: &Identity,
) -> Result<Option<RecordedEvent>, DatabaseError> {
    let row: Option<EventRow> = sqlx::query_as(
        "SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence,
                payload_hash, charged_amount
         FROM usage_event WHERE account_id = $1 AND source = $2 AND event_id = $3 AND origin <> 'denial'",
    )
    .bind(identity.account.as_str())
    .bind(identity.source.as_str())
    .bind(identity.event_id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(recorded_event).transpose()
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
        payload_hash,
        charged,
    ) = row;
    let event = Event {
        identity: identity((account, source, event_id))?,
        metric: MetricSlug::parse(&metric).map_err(corrupt("metric"))?,
        amount: Units::positive(amount).map_err(corrupt("amount"))?,
        event_at: Some(from_sql(event_at)),
        properties: properties.0,
        origin: Origin::from_name(&origin).ok_or(DatabaseError::Corrupt { what: "origin" })?,
        backfill,
        charges: Vec::new(),
    };
    Ok(RecordedEvent {
        event,
        recorded_at: from_sql(recorded_at),
        charged: Units::try_from(charged).map_err(corrupt("charge"))?,
        sequence,
        payload_hash: payload_hash.try_into().map_err(corrupt("payload hash"))?,
    })
}
