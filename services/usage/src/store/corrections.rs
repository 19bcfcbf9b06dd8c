//! Corrections of events.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, Aggregation, EventId, MetricKind, MetricSlug, Source, Units};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    correction::{Correctable, Corrected, Correction, Standing},
    event::{EventKey, Identity, Origin},
    events::Place,
};

/// Inserts the keys of corrections that were not made before, and answers which those were. They are sorted, so that calls
/// that make the same ones never wait for each other in a circle.
pub async fn insert_correction_keys(
    connection: &mut PgConnection,
    corrections: &[&Correction],
    event_times: &[Timestamp],
    now: Timestamp,
) -> Result<HashSet<EventKey>, DatabaseError> {
    let keys = corrections.iter().map(|one| Uuid::from_bytes(one.key().bytes()));
    let hashes = (corrections.iter()).map(|one| Uuid::from_bytes(one.payload_hash()));
    let added: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO event_key (key, payload_hash, event_at, denied, recorded_at)
         SELECT key, payload_hash, event_at, false, $4
         FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS named (key, payload_hash, event_at) ORDER BY key
         ON CONFLICT DO NOTHING RETURNING key",
    )
    .bind(keys.collect::<Vec<_>>())
    .bind(hashes.collect::<Vec<_>>())
    .bind(event_times.iter().map(|at| to_sql(*at)).collect::<Vec<_>>())
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    Ok((added.into_iter())
        .map(|key| EventKey::new(key.into_bytes()))
        .collect())
}

type CorrectableRow = (
    String,
    String,
    String,
    String,
    String,
    OffsetDateTime,
    i64,
    String,
    i64,
    OffsetDateTime,
    Option<Uuid>,
);

/// Locks events of an account until the transaction ends, so that nobody else corrects them, and answers them with their
/// newest corrections. One that the ledger does not have is not there.
pub async fn lock_events(
    connection: &mut PgConnection,
    account: &AccountId,
    identities: &[&Identity],
) -> Result<HashMap<EventKey, Correctable>, DatabaseError> {
    let keys: HashMap<Uuid, &Identity> = (identities.iter())
        .map(|identity| (Uuid::from_bytes(identity.key().bytes()), *identity))
        .collect();
    // In one order, so that two calls that correct the same events never wait for each other in a circle.
    let locked: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT k.key, e.event_at FROM (SELECT key FROM unnest($1::uuid[]) AS k (key) ORDER BY key) AS k
         CROSS JOIN LATERAL (SELECT event_at FROM event_key AS e
                             WHERE e.key = k.key AND NOT e.denied FOR UPDATE) AS e",
    )
    .bind(keys.keys().copied().collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let locked: Vec<(&Identity, OffsetDateTime)> = (locked.into_iter())
        .filter_map(|(key, event_at)| Some((*keys.get(&key)?, event_at)))
        .collect();
    let rows: Vec<CorrectableRow> = sqlx::query_as(
        "SELECT k.source, k.event_id, e.metric, m.kind, m.aggregation, e.event_at, e.sequence, e.origin, e.amount, e.recorded_at,
                e.message_id
         FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS k (source, event_id, event_at)
         CROSS JOIN metric AS m
         CROSS JOIN LATERAL (SELECT metric, event_at, sequence, origin, amount, recorded_at, message_id FROM ledger AS e
                             WHERE e.account_id = $1 AND e.metric = m.slug AND e.event_at = k.event_at
                               AND e.source = k.source AND e.event_id = k.event_id OFFSET 0) AS e",
    )
    .bind(account.as_str())
    .bind(locked.iter().map(|(identity, _)| identity.source.as_str()).collect::<Vec<_>>())
    .bind(locked.iter().map(|(identity, _)| identity.event_id.as_str()).collect::<Vec<_>>())
    .bind(locked.iter().map(|(_, event_at)| *event_at).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let mut events = HashMap::with_capacity(rows.len());
    for row in rows {
        let event = correctable(account, row)?;
        events.insert(event.identity.key(), event);
    }
    let named: Vec<(&MetricSlug, Place)> = (events.values())
        .map(|event| (&event.metric, place(event)))
        .collect();
    let newest = correction_rows(connection, account, &named, 1).await?;
    let mut newest: HashMap<i64, CorrectionRow> = newest.into_iter().map(|row| (row.0, row)).collect();
    for event in events.values_mut() {
        if let Some(row) = newest.remove(&event.sequence) {
            event.message_id = row.10;
            event.newest = Some(corrected(row)?);
        }
    }
    Ok(events)
}

fn place(event: &Correctable) -> Place {
    Place {
        event_at: event.event_at,
        sequence: event.sequence,
    }
}

fn correctable(account: &AccountId, row: CorrectableRow) -> Result<Correctable, DatabaseError> {
    let (
        source,
        event_id,
        metric,
        kind,
        aggregation,
        event_at,
        sequence,
        origin,
        amount,
        recorded_at,
        message_id,
    ) = row;
    Ok(Correctable {
        identity: Identity {
            account: account.clone(),
            source: Source::parse(&source).map_err(corrupt("source"))?,
            event_id: EventId::parse(&event_id).map_err(corrupt("event id"))?,
        },
        metric: MetricSlug::parse(&metric).map_err(corrupt("metric"))?,
        kind: MetricKind::from_name(&kind).ok_or(DatabaseError::Corrupt { what: "metric kind" })?,
        aggregation: Aggregation::from_name(&aggregation)
            .ok_or(DatabaseError::Corrupt { what: "aggregation" })?,
        event_at: from_sql(event_at),
        sequence,
        origin: Origin::from_name(&origin).ok_or(DatabaseError::Corrupt { what: "origin" })?,
        recorded: Units::try_from(amount).map_err(corrupt("amount"))?,
        recorded_at: from_sql(recorded_at),
        newest: None,
        message_id,
    })
}

type CorrectionRow = (
    i64,
    i32,
    String,
    i64,
    bool,
    i64,
    bool,
    String,
    String,
    OffsetDateTime,
    Option<Uuid>,
);

/// Up to `limit` corrections of each of the events of an account, the newest first, by the event's number in the ledger.
pub async fn list_corrections(
    connection: &mut PgConnection,
    account: &AccountId,
    events: &[(&MetricSlug, Place)],
    limit: i64,
) -> Result<HashMap<i64, Vec<Corrected>>, DatabaseError> {
    let mut corrections: HashMap<i64, Vec<Corrected>> = HashMap::new();
    for row in correction_rows(connection, account, events, limit).await? {
        corrections.entry(row.0).or_default().push(corrected(row)?);
    }
    Ok(corrections)
}

async fn correction_rows(
    connection: &mut PgConnection,
    account: &AccountId,
    events: &[(&MetricSlug, Place)],
    limit: i64,
) -> Result<Vec<CorrectionRow>, DatabaseError> {
    let rows = sqlx::query_as(
        "SELECT k.sequence, c.revision, c.correction_id, c.amount_before, c.voided_before, c.amount_after, c.voided_after,
                c.reason, c.actor, c.corrected_at, c.message_id
         FROM unnest($2::text[], $3::timestamptz[], $4::bigint[]) AS k (metric, event_at, sequence)
         CROSS JOIN LATERAL (SELECT * FROM correction AS c
                             WHERE c.account_id = $1 AND c.metric = k.metric AND c.event_at = k.event_at
                               AND c.ledger_sequence = k.sequence
                             ORDER BY c.revision DESC LIMIT $5) AS c
         ORDER BY k.sequence, c.revision DESC",
    )
    .bind(account.as_str())
    .bind(events.iter().map(|(metric, _)| metric.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, place)| to_sql(place.event_at)).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, place)| place.sequence).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Those of the corrections that were made of these events, by their ids.
pub async fn find_corrections(
    connection: &mut PgConnection,
    account: &AccountId,
    events: &[(&MetricSlug, Place)],
    ids: &[&EventId],
) -> Result<HashMap<EventId, Corrected>, DatabaseError> {
    let rows: Vec<CorrectionRow> = sqlx::query_as(
        "SELECT k.sequence, c.revision, c.correction_id, c.amount_before, c.voided_before, c.amount_after, c.voided_after,
                c.reason, c.actor, c.corrected_at, c.message_id
         FROM unnest($2::text[], $3::timestamptz[], $4::bigint[]) AS k (metric, event_at, sequence)
         CROSS JOIN LATERAL (SELECT * FROM correction AS c
                             WHERE c.account_id = $1 AND c.metric = k.metric AND c.event_at = k.event_at
                               AND c.ledger_sequence = k.sequence AND c.correction_id = ANY($5) OFFSET 0) AS c",
    )
    .bind(account.as_str())
    .bind(events.iter().map(|(metric, _)| metric.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, place)| to_sql(place.event_at)).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, place)| place.sequence).collect::<Vec<_>>())
    .bind(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let made = rows.into_iter().map(|row| {
        let corrected = corrected(row)?;
        Ok((corrected.id.clone(), corrected))
    });
    made.collect()
}

fn corrected(row: CorrectionRow) -> Result<Corrected, DatabaseError> {
    let (_, revision, id, amount_before, voided_before, amount_after, voided_after, reason, actor, at, _) =
        row;
    let revision = u32::try_from(revision).map_err(corrupt("revision"))?;
    let standing = |revision, amount, voided| {
        Ok::<_, DatabaseError>(Standing {
            revision,
            amount: Units::try_from(amount).map_err(corrupt("amount"))?,
            voided,
        })
    };
    Ok(Corrected {
        id: EventId::parse(&id).map_err(corrupt("correction id"))?,
        before: standing(revision.saturating_sub(1), amount_before, voided_before)?,
        after: standing(revision, amount_after, voided_after)?,
        reason,
        actor,
        corrected_at: from_sql(at),
    })
}

/// Writes corrections down, which a message tells of.
pub async fn append_corrections(
    connection: &mut PgConnection,
    made: &[(&Correctable, &Corrected)],
    message_id: Uuid,
) -> Result<(), DatabaseError> {
    let text = |of: fn(&(&Correctable, &Corrected)) -> String| made.iter().map(of).collect::<Vec<_>>();
    let numbers = |of: fn(&(&Correctable, &Corrected)) -> i64| made.iter().map(of).collect::<Vec<_>>();
    let flags = |of: fn(&(&Correctable, &Corrected)) -> bool| made.iter().map(of).collect::<Vec<_>>();
    let times = |of: fn(&(&Correctable, &Corrected)) -> Timestamp| {
        made.iter().map(|one| to_sql(of(one))).collect::<Vec<_>>()
    };
    let done = sqlx::query(
        "INSERT INTO correction (account_id, metric, event_at, ledger_sequence, revision, source, event_id, origin,
                                 correction_id, amount_before, voided_before, amount_after, voided_after, reason, actor,
                                 corrected_at, message_id)
         SELECT *, $17 FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::int[], $6::text[], $7::text[],
                              $8::text[], $9::text[], $10::bigint[], $11::boolean[], $12::bigint[], $13::boolean[],
                              $14::text[], $15::text[], $16::timestamptz[])",
    )
    .bind(text(|(event, _)| event.identity.account.to_string()))
    .bind(text(|(event, _)| event.metric.to_string()))
    .bind(times(|(event, _)| event.event_at))
    .bind(numbers(|(event, _)| event.sequence))
    .bind(
        (made.iter())
            .map(|(_, made)| i32::try_from(made.after.revision).map_err(corrupt("revision")))
            .collect::<Result<Vec<_>, _>>()?,
    )
    .bind(text(|(event, _)| event.identity.source.to_string()))
    .bind(text(|(event, _)| event.identity.event_id.to_string()))
    .bind(text(|(event, _)| event.origin.as_str().to_owned()))
    .bind(text(|(_, made)| made.id.to_string()))
    .bind(numbers(|(_, made)| made.before.amount.as_i64()))
    .bind(flags(|(_, made)| made.before.voided))
    .bind(numbers(|(_, made)| made.after.amount.as_i64()))
    .bind(flags(|(_, made)| made.after.voided))
    .bind(text(|(_, made)| made.reason.clone()))
    .bind(text(|(_, made)| made.actor.clone()))
    .bind(times(|(_, made)| made.corrected_at))
    .bind(message_id)
    .execute(connection)
    .await?;
    expect_rows(made.len() as u64, done.rows_affected())
}
