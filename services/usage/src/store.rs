//! The ledger and its rollups in PostgreSQL.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, Metric, MetricSlug, Source, Units, Window};
use octroi_kit::db::{DatabaseError, from_sql, to_sql};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::{
    domain::event::{Event, Identity, Origin},
    error::Error,
    service::{MetricStats, MetricTotal, RecordedEvent, TotalsQuery, UsageBucket},
};

type Accepted = crate::service::Accepted;

fn corrupt<E>(what: &'static str) -> impl FnOnce(E) -> DatabaseError {
    move |_| DatabaseError::Corrupt { what }
}

/// The metrics of the catalog.
pub async fn list_metrics(connection: &mut PgConnection) -> Result<Vec<MetricSlug>, DatabaseError> {
    let slugs: Vec<String> = sqlx::query_scalar("SELECT slug FROM metric")
        .fetch_all(connection)
        .await?;
    slugs
        .iter()
        .map(|slug| MetricSlug::parse(slug).map_err(corrupt("metric")))
        .collect()
}

/// The catalog's version, 0 where none was applied; nobody else changes it until the transaction ends.
pub async fn lock_catalog_version(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    sqlx::query("LOCK TABLE catalog IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *connection)
        .await?;
    let version: Option<i64> = sqlx::query_scalar("SELECT version FROM catalog")
        .fetch_optional(connection)
        .await?;
    u64::try_from(version.unwrap_or(0)).map_err(corrupt("catalog version"))
}

/// Sets version and metrics. A metric that is not in the new catalog stays: the ledger speaks of it.
pub async fn update_catalog(
    connection: &mut PgConnection,
    version: u64,
    metrics: &[Metric],
) -> Result<(), Error> {
    let version = i64::try_from(version).map_err(corrupt("catalog version"))?;
    sqlx::query("INSERT INTO catalog (version) VALUES ($1) ON CONFLICT (singleton) DO UPDATE SET version = excluded.version")
        .bind(version)
        .execute(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
    for metric in metrics {
        sqlx::query(
            "INSERT INTO metric (slug, kind, aggregation) VALUES ($1, $2, $3)
             ON CONFLICT (slug) DO UPDATE SET kind = excluded.kind, aggregation = excluded.aggregation",
        )
        .bind(metric.slug.as_str())
        .bind(metric.kind.as_str())
        .bind(metric.aggregation.as_str())
        .execute(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
    }
    Ok(())
}

/// Inserts the events that are not in the ledger yet and answers which those were.
pub async fn insert_events(
    connection: &mut PgConnection,
    events: &[&Accepted],
    now: Timestamp,
) -> Result<HashSet<Identity>, DatabaseError> {
    let text =
        |part: fn(&Event) -> &str| -> Vec<&str> { events.iter().map(|one| part(&one.event)).collect() };
    let amounts: Vec<i64> = events.iter().map(|one| one.event.amount.as_i64()).collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|one| to_sql(one.event_at)).collect();
    let backfills: Vec<bool> = events.iter().map(|one| one.event.backfill).collect();
    let properties: Vec<Json<&BTreeMap<String, String>>> =
        events.iter().map(|one| Json(&one.event.properties)).collect();
    let hashes: Vec<&[u8]> = events.iter().map(|one| &one.payload_hash[..]).collect();
    let inserted: Vec<(String, String, String)> = sqlx::query_as(
        "INSERT INTO usage_event
             (account_id, source, event_id, metric, amount, event_at, origin, backfill, properties, payload_hash, recorded_at)
         SELECT *, $11 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                              $7::text[], $8::boolean[], $9::jsonb[], $10::bytea[])
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
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    inserted.into_iter().map(identity).collect()
}

fn identity((account, source, event_id): (String, String, String)) -> Result<Identity, DatabaseError> {
    Ok(Identity {
        account: AccountId::parse(&account).map_err(corrupt("account id"))?,
        source: Source::parse(&source).map_err(corrupt("source"))?,
        event_id: EventId::parse(&event_id).map_err(corrupt("event id"))?,
    })
}

/// What the ledger knows of an event.
pub struct Known {
    /// The hash of its content.
    pub payload_hash: [u8; 32],
    /// When the ledger took it.
    pub recorded_at: OffsetDateTime,
}

/// What the ledger has of these identities.
pub async fn find_recorded(
    connection: &mut PgConnection,
    identities: &[&Identity],
) -> Result<HashMap<Identity, Known>, DatabaseError> {
    if identities.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, String, String, Vec<u8>, OffsetDateTime)> = sqlx::query_as(
        "SELECT account_id, source, event_id, payload_hash, recorded_at
         FROM usage_event JOIN unnest($1::text[], $2::text[], $3::text[]) AS asked (account_id, source, event_id)
         USING (account_id, source, event_id)",
    )
    .bind(identities.iter().map(|one| one.account.as_str()).collect::<Vec<_>>())
    .bind(identities.iter().map(|one| one.source.as_str()).collect::<Vec<_>>())
    .bind(identities.iter().map(|one| one.event_id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(account, source, event_id, hash, recorded_at)| {
            let payload_hash = hash.try_into().map_err(corrupt("payload hash"))?;
            Ok((
                identity((account, source, event_id))?,
                Known {
                    payload_hash,
                    recorded_at,
                },
            ))
        })
        .collect()
}

/// What one commit adds to one bucket of the rollups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// The sum of amounts; many events of 2^53 − 1 pass 64 bits.
    pub amount: u128,
    /// The number of events.
    pub events: i64,
}

/// Adds to the rollups.
pub async fn add_to_rollups(
    connection: &mut PgConnection,
    increments: &BTreeMap<(String, String, Timestamp), Increment>,
) -> Result<(), DatabaseError> {
    let amounts: Result<Vec<sqlx::types::Decimal>, _> = increments
        .values()
        .map(|one| {
            i128::try_from(one.amount)
                .ok()
                .and_then(|amount| sqlx::types::Decimal::try_from_i128_with_scale(amount, 0).ok())
                .ok_or(())
        })
        .collect();
    let amounts = amounts.map_err(corrupt("amount"))?;
    let accounts: Vec<&str> = increments.keys().map(|key| key.0.as_str()).collect();
    let metrics: Vec<&str> = increments.keys().map(|key| key.1.as_str()).collect();
    let buckets: Vec<OffsetDateTime> = increments.keys().map(|key| to_sql(key.2)).collect();
    let events: Vec<i64> = increments.values().map(|one| one.events).collect();
    for statement in [
        "INSERT INTO rollup_quarter AS r (account_id, metric, bucket_at, amount, events)
         SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])
         ON CONFLICT (account_id, metric, bucket_at)
         DO UPDATE SET amount = r.amount + excluded.amount, events = r.events + excluded.events",
        "INSERT INTO rollup_day AS r (account_id, metric, bucket_at, amount, events)
         SELECT account_id, metric, day_at, sum(amount), sum(events)::bigint
         FROM (SELECT account_id, metric, date_trunc('day', bucket_at, 'UTC') AS day_at, amount, events
               FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])
                    AS given (account_id, metric, bucket_at, amount, events)) AS days
         GROUP BY account_id, metric, day_at ORDER BY account_id, metric, day_at
         ON CONFLICT (account_id, metric, bucket_at)
         DO UPDATE SET amount = r.amount + excluded.amount, events = r.events + excluded.events",
    ] {
        sqlx::query(statement)
            .bind(&accounts)
            .bind(&metrics)
            .bind(&buckets)
            .bind(&amounts)
            .bind(&events)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Sums the rollups of an account by bucket. Buckets without use are there with 0.
pub async fn sum_buckets(
    connection: &mut PgConnection,
    account: &AccountId,
    metrics: &[MetricSlug],
    windows: &[Window],
) -> Result<Vec<MetricStats>, Error> {
    let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(
        "SELECT r.metric, b.place, sum(r.amount)::text, sum(r.events)::bigint
         FROM unnest($3::timestamptz[], $4::timestamptz[]) WITH ORDINALITY AS b (start_at, end_at, place)
         JOIN rollup_quarter r ON r.account_id = $1 AND r.metric = ANY($2) AND r.bucket_at >= b.start_at AND r.bucket_at < b.end_at
         GROUP BY r.metric, b.place",
    )
    .bind(account.as_str())
    .bind(metrics.iter().map(MetricSlug::as_str).collect::<Vec<_>>())
    .bind(windows.iter().map(|window| to_sql(window.start)).collect::<Vec<_>>())
    .bind(windows.iter().map(|window| to_sql(window.end)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
    .map_err(DatabaseError::from)?;
    let mut sums: HashMap<(String, i64), (Units, u64)> = HashMap::with_capacity(rows.len());
    for (metric, place, amount, events) in rows {
        let events = u64::try_from(events).map_err(corrupt("number of events"))?;
        sums.insert((metric, place), (units(&amount)?, events));
    }
    let stats = metrics.iter().map(|metric| {
        let buckets = (1_i64..).zip(windows).map(|(place, window)| {
            let (amount, events) = sums
                .get(&(metric.to_string(), place))
                .copied()
                .unwrap_or_default();
            UsageBucket {
                window: *window,
                amount,
                events,
            }
        });
        MetricStats {
            metric: metric.clone(),
            buckets: buckets.collect(),
        }
    });
    Ok(stats.collect())
}

fn units(sum: &str) -> Result<Units, Error> {
    let sum: u128 = sum.parse().map_err(corrupt("sum"))?;
    u64::try_from(sum)
        .ok()
        .and_then(|sum| Units::new(sum).ok())
        .ok_or(Error::SumOutOfRange)
}

/// Sums the ledger by origin, and the rollups beside it.
pub async fn sum_ledger(
    connection: &mut PgConnection,
    query: &TotalsQuery,
) -> Result<Vec<MetricTotal>, Error> {
    let account = query.account.as_ref().map(AccountId::as_str);
    let metrics: Vec<&str> = query.metrics.iter().map(MetricSlug::as_str).collect();
    let start = to_sql(query.range.start);
    let end = query.range.is_bounded().then(|| to_sql(query.range.end));
    let ledger: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT metric, coalesce(sum(amount) FILTER (WHERE origin = 'decision'), 0)::text,
                coalesce(sum(amount) FILTER (WHERE origin = 'direct'), 0)::text, count(*)
         FROM usage_event
         WHERE ($1::text IS NULL OR account_id = $1) AND metric = ANY($2) AND event_at >= $3
           AND ($4::timestamptz IS NULL OR event_at < $4) AND ($5::text IS NULL OR source = $5)
         GROUP BY metric",
    )
    .bind(account)
    .bind(&metrics)
    .bind(start)
    .bind(end)
    .bind(query.source.as_ref().map(Source::as_str))
    .fetch_all(&mut *connection)
    .await
    .map_err(DatabaseError::from)?;
    let rollups: Vec<(String, String)> = sqlx::query_as(
        "SELECT metric, sum(amount)::text FROM rollup_quarter
         WHERE ($1::text IS NULL OR account_id = $1) AND metric = ANY($2) AND bucket_at >= $3
           AND ($4::timestamptz IS NULL OR bucket_at < $4)
         GROUP BY metric",
    )
    .bind(account)
    .bind(&metrics)
    .bind(start)
    .bind(end)
    .fetch_all(connection)
    .await
    .map_err(DatabaseError::from)?;
    query
        .metrics
        .iter()
        .map(|metric| total_of(metric, &ledger, &rollups))
        .collect()
}

fn total_of(
    metric: &MetricSlug,
    ledger: &[(String, String, String, i64)],
    rollups: &[(String, String)],
) -> Result<MetricTotal, Error> {
    let mut total = MetricTotal {
        metric: metric.clone(),
        decided: Units::ZERO,
        direct: Units::ZERO,
        events: 0,
        rollup: Units::ZERO,
    };
    if let Some((_, decided, direct, events)) = ledger.iter().find(|row| row.0 == metric.as_str()) {
        total.decided = units(decided)?;
        total.direct = units(direct)?;
        total.events = u64::try_from(*events).map_err(corrupt("number of events"))?;
    }
    if let Some((_, amount)) = rollups.iter().find(|row| row.0 == metric.as_str()) {
        total.rollup = units(amount)?;
    }
    Ok(total)
}

/// Events that the rollups do not have yet.
pub async fn count_rollup_lag(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    let lag: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM usage_event) - (SELECT coalesce(sum(events), 0)::bigint FROM rollup_day)",
    )
    .fetch_one(connection)
    .await?;
    u64::try_from(lag).map_err(corrupt("rollup"))
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
        "SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence
         FROM usage_event
         WHERE account_id = $1 AND ($2::text IS NULL OR metric = $2) AND ($3::bigint IS NULL OR sequence < $3)
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
        "SELECT account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties, sequence
         FROM usage_event WHERE account_id = $1 AND source = $2 AND event_id = $3",
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
    ) = row;
    let event = Event {
        identity: identity((account, source, event_id))?,
        metric: MetricSlug::parse(&metric).map_err(corrupt("metric"))?,
        amount: Units::positive(amount).map_err(corrupt("amount"))?,
        event_at: Some(from_sql(event_at)),
        properties: properties.0,
        origin: Origin::from_name(&origin).ok_or(DatabaseError::Corrupt { what: "origin" })?,
        backfill,
    };
    Ok(RecordedEvent {
        event,
        recorded_at: from_sql(recorded_at),
        sequence,
    })
}
