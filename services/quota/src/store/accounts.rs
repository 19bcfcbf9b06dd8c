//! What holds for accounts: what billing pushed, overrides, the calendar.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{AccountId, Anchor, Entitlements, MetricSlug, Period, Stage, Units};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use super::windows::{count, period_from_name};
use crate::domain::{
    calendar::{Calendar, Segment},
    holding::{AccountEntitlements, AccountState},
    limits::{LimitOverride, Overrides},
};

/// One segment of a calendar, as it is written down.
#[derive(Deserialize, Serialize)]
struct StoredSegment {
    /// None for the first.
    from: Option<Timestamp>,
    zone: String,
    anchor: Anchor,
    cuts_month: bool,
}

fn to_stored(calendar: &Calendar) -> Json<Vec<StoredSegment>> {
    let segment = |one: &Segment| StoredSegment {
        from: (one.from != Timestamp::MIN).then_some(one.from),
        zone: one.zone.iana_name().unwrap_or("UTC").to_owned(),
        anchor: one.anchor,
        cuts_month: one.cuts_month,
    };
    Json(calendar.segments().map(segment).collect())
}

fn from_stored(stored: Vec<StoredSegment>) -> Result<Calendar, DatabaseError> {
    let segments: Result<Vec<Segment>, DatabaseError> = (stored.into_iter())
        .map(|one| {
            Ok(Segment {
                from: one.from.unwrap_or(Timestamp::MIN),
                zone: TimeZone::get(&one.zone).map_err(corrupt("zone"))?,
                anchor: one.anchor,
                cuts_month: one.cuts_month,
            })
        })
        .collect();
    Calendar::of_segments(segments?).ok_or(DatabaseError::Corrupt { what: "calendar" })
}

#[derive(sqlx::FromRow)]
struct StoredState {
    account_id: String,
    revision: Option<i64>,
    calendar: Option<Json<Vec<StoredSegment>>>,
    version: Option<i64>,
    entitlements: Option<Json<Entitlements>>,
    anchor_at: Option<OffsetDateTime>,
    stage: Option<String>,
    overrides: Option<Json<Vec<StoredOverride>>>,
}

#[derive(Deserialize)]
struct StoredOverride {
    metric: String,
    period: String,
    amount: i64,
    /// Microseconds since the Unix epoch.
    expires_us: Option<i64>,
    note: String,
}

/// Reads the states of accounts that exist, whose zones these are. One that is not written down yet is, so that its
/// windows follow from its zone of now and not from a later one.
pub async fn read_states(
    connection: &mut PgConnection,
    accounts: &[(AccountId, TimeZone)],
    now: Timestamp,
) -> Result<HashMap<AccountId, AccountState>, DatabaseError> {
    let names: Vec<&str> = accounts.iter().map(|(account, _)| account.as_str()).collect();
    let mut rows = find_states(connection, &names).await?;
    if rows.iter().any(|row| row.calendar.is_none()) {
        // Who changes what holds for an account has its gate: what was changed meanwhile is read again, and nothing is
        // before the first state of these accounts is written down.
        let new = accounts.iter().map(|(account, _)| account);
        super::share_gates(connection, new).await?;
        rows = find_states(connection, &names).await?;
    }
    let zones: HashMap<&str, &TimeZone> = (accounts.iter()).map(|(id, zone)| (id.as_str(), zone)).collect();
    loop {
        let mut states = HashMap::with_capacity(rows.len());
        let mut new: Vec<(AccountId, Calendar)> = Vec::new();
        for row in rows {
            let account = AccountId::parse(&row.account_id).map_err(corrupt("account id"))?;
            let zone = zones
                .get(account.as_str())
                .map_or(TimeZone::UTC, |zone| (*zone).clone());
            let (state, is_new) = state(row, &zone)?;
            if is_new {
                new.push((account.clone(), state.calendar.clone()));
            }
            states.insert(account, state);
        }
        if new.is_empty() || insert_states(connection, &new, now).await? == count(new.len()) {
            return Ok(states);
        }
        // Others wrote some of them down meanwhile, and their zone is what holds.
        rows = find_states(connection, &names).await?;
    }
}

async fn find_states(
    connection: &mut PgConnection,
    accounts: &[&str],
) -> Result<Vec<StoredState>, DatabaseError> {
    let rows = sqlx::query_as(
        "SELECT k.account_id, a.revision, a.calendar, e.version, e.entitlements, e.anchor_at, e.stage,
                (SELECT jsonb_agg(jsonb_build_object(
                     'metric', metric, 'period', period, 'amount', amount, 'note', note,
                     'expires_us', (extract(epoch FROM expires_at) * 1000000)::bigint))
                 FROM limit_override o WHERE o.account_id = k.account_id) AS overrides
         FROM unnest($1::text[]) AS k (account_id)
         LEFT JOIN LATERAL (SELECT * FROM account_state AS a WHERE a.account_id = k.account_id OFFSET 0) AS a ON true
         LEFT JOIN LATERAL (SELECT * FROM entitlement AS e WHERE e.account_id = k.account_id OFFSET 0) AS e ON true",
    )
    .bind(accounts)
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// The state, and whether it is not written down yet.
fn state(row: StoredState, zone: &TimeZone) -> Result<(AccountState, bool), DatabaseError> {
    let pushed = match (row.version, row.entitlements, row.anchor_at, row.stage) {
        (Some(version), Some(entitlements), Some(anchor_at), Some(stage)) => Some(AccountEntitlements {
            version: u64::try_from(version).map_err(corrupt("version"))?,
            entitlements: entitlements.0,
            anchor_at: from_sql(anchor_at),
            stage: stage_from_name(&stage)?,
        }),
        _ => None,
    };
    let is_new = row.calendar.is_none();
    let calendar = match row.calendar {
        Some(stored) => from_stored(stored.0)?,
        None => first_calendar(zone, pushed.as_ref()),
    };
    // The first revision is 1, written down or about to be.
    let revision = u64::try_from(row.revision.unwrap_or(1)).map_err(corrupt("revision"))?;
    let overrides = overrides(row.overrides.map(|json| json.0).unwrap_or_default())?;
    let state = AccountState {
        revision,
        calendar,
        pushed,
        overrides,
    };
    Ok((state, is_new))
}

fn first_calendar(zone: &TimeZone, pushed: Option<&AccountEntitlements>) -> Calendar {
    let anchor = pushed.map_or(Anchor::FIRST_OF_MONTH, |pushed| {
        Anchor::at(pushed.anchor_at, zone)
    });
    Calendar::new(zone.clone(), anchor)
}

fn overrides(stored: Vec<StoredOverride>) -> Result<Overrides, DatabaseError> {
    (stored.into_iter())
        .map(|one| {
            let metric = MetricSlug::parse(&one.metric).map_err(corrupt("metric"))?;
            let expires_at = one.expires_us.map(Timestamp::from_microsecond).transpose();
            let replaced = LimitOverride {
                amount: Units::try_from(one.amount).map_err(corrupt("amount"))?,
                expires_at: expires_at.map_err(corrupt("time"))?,
                note: one.note,
            };
            Ok(((metric, period_from_name(&one.period)?), replaced))
        })
        .collect()
}

/// Answers how many were not there.
async fn insert_states(
    connection: &mut PgConnection,
    states: &[(AccountId, Calendar)],
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let inserted = sqlx::query(
        "INSERT INTO account_state (account_id, revision, calendar, changed_at)
         SELECT account_id, 1, calendar, $3 FROM unnest($1::text[], $2::jsonb[]) AS s (account_id, calendar)
         ORDER BY account_id ON CONFLICT DO NOTHING",
    )
    .bind(
        states
            .iter()
            .map(|(account, _)| account.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        states
            .iter()
            .map(|(_, calendar)| to_stored(calendar))
            .collect::<Vec<_>>(),
    )
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

/// Notes that something of the account changed: whoever remembers an older revision looks again. `calendar` is set
/// where it changed too. An account that is not written down yet stays so, unless it gets a calendar: its first state is
/// made of what is written down then ([`read_states`]).
pub async fn update_state(
    connection: &mut PgConnection,
    account: &AccountId,
    calendar: Option<&Calendar>,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE account_state SET revision = revision + 1, calendar = coalesce($2, calendar), changed_at = $3
         WHERE account_id = $1",
    )
    .bind(account.as_str())
    .bind(calendar.map(to_stored))
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    if let Some(calendar) = calendar {
        insert_states(connection, &[(account.clone(), calendar.clone())], now).await?;
    }
    Ok(())
}

/// Notes the version of the zone that an account's calendar follows, and answers whether it is a newer one. Of an account
/// that is not written down yet any is; so is 0, which says nothing.
pub async fn update_zone_version(
    connection: &mut PgConnection,
    account: &AccountId,
    version: u64,
) -> Result<bool, DatabaseError> {
    let newer: Option<bool> = sqlx::query_scalar(
        "UPDATE account_state SET zone_version = greatest(zone_version, $2) WHERE account_id = $1
         RETURNING $2 = 0 OR (SELECT zone_version < $2 FROM account_state AS before WHERE before.account_id = $1)",
    )
    .bind(account.as_str())
    .bind(i64::try_from(version).map_err(corrupt("version of a zone"))?)
    .fetch_optional(connection)
    .await?;
    Ok(newer.unwrap_or(true))
}

/// The calendar of an account, where it is written down. Nobody else changes it before the transaction ends.
pub async fn lock_calendar(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<Calendar>, DatabaseError> {
    let stored: Option<Json<Vec<StoredSegment>>> =
        sqlx::query_scalar("SELECT calendar FROM account_state WHERE account_id = $1 FOR UPDATE")
            .bind(account.as_str())
            .fetch_optional(connection)
            .await?;
    stored.map(|stored| from_stored(stored.0)).transpose()
}

/// Accounts whose limits or windows changed since an instant, with their revisions.
pub async fn list_changes(
    connection: &mut PgConnection,
    since: Timestamp,
) -> Result<Vec<(AccountId, u64)>, DatabaseError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT account_id, revision FROM account_state WHERE changed_at > $1 AND revision > 1",
    )
    .bind(to_sql(since))
    .fetch_all(connection)
    .await?;
    (rows.into_iter())
        .map(|(account, revision)| {
            let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
            Ok((account, u64::try_from(revision).map_err(corrupt("revision"))?))
        })
        .collect()
}

/// Sets what replaces the amount of a limit.
pub async fn upsert_override(
    connection: &mut PgConnection,
    account: &AccountId,
    (metric, period): (&MetricSlug, Period),
    replaced: &LimitOverride,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO limit_override (account_id, metric, period, amount, expires_at, note)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, metric, period)
         DO UPDATE SET amount = excluded.amount, expires_at = excluded.expires_at, note = excluded.note",
    )
    .bind(account.as_str())
    .bind(metric.as_str())
    .bind(period.as_str())
    .bind(replaced.amount.as_i64())
    .bind(replaced.expires_at.map(to_sql))
    .bind(&replaced.note)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets the plan's amount hold again, where `expired_at` is given only if what replaced it has expired by then. Answers
/// whether anything was deleted.
pub async fn delete_override(
    connection: &mut PgConnection,
    account: &AccountId,
    (metric, period): (&MetricSlug, Period),
    expired_at: Option<Timestamp>,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "DELETE FROM limit_override WHERE account_id = $1 AND metric = $2 AND period = $3
         AND ($4::timestamptz IS NULL OR expires_at <= $4)",
    )
    .bind(account.as_str())
    .bind(metric.as_str())
    .bind(period.as_str())
    .bind(expired_at.map(to_sql))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Accounts with an override that has expired.
pub async fn list_expired_overrides(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<Vec<(AccountId, MetricSlug, Period)>, DatabaseError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT account_id, metric, period FROM limit_override WHERE expires_at <= $1 ORDER BY expires_at LIMIT 100",
    )
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    (rows.into_iter())
        .map(|(account, metric, period)| {
            let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
            let metric = MetricSlug::parse(&metric).map_err(corrupt("metric"))?;
            Ok((account, metric, period_from_name(&period)?))
        })
        .collect()
}

/// What billing pushed for an account.
pub async fn find_entitlements(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<AccountEntitlements>, DatabaseError> {
    let row: Option<(i64, Json<Entitlements>, OffsetDateTime, String)> = sqlx::query_as(
        "SELECT version, entitlements, anchor_at, stage FROM entitlement WHERE account_id = $1",
    )
    .bind(account.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|(version, entitlements, anchor_at, stage)| {
        Ok(AccountEntitlements {
            version: u64::try_from(version).map_err(corrupt("version"))?,
            entitlements: entitlements.0,
            anchor_at: from_sql(anchor_at),
            stage: stage_from_name(&stage)?,
        })
    })
    .transpose()
}

/// Sets what an account is entitled to, where `given` is newer, and answers the version in force then.
pub async fn upsert_entitlements(
    connection: &mut PgConnection,
    account: &AccountId,
    given: &AccountEntitlements,
) -> Result<u64, DatabaseError> {
    let version = i64::try_from(given.version).map_err(corrupt("version"))?;
    let written = sqlx::query(
        "INSERT INTO entitlement AS e (account_id, version, entitlements, anchor_at, stage) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, entitlements = excluded.entitlements,
             anchor_at = excluded.anchor_at, stage = excluded.stage
         WHERE e.version < excluded.version",
    )
    .bind(account.as_str())
    .bind(version)
    .bind(Json(&given.entitlements))
    .bind(to_sql(given.anchor_at))
    .bind(stage_name(given.stage))
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 1 {
        return Ok(given.version);
    }
    // A statement of its own: it sees what another transaction wrote while ours waited for it.
    let version: i64 = sqlx::query_scalar("SELECT version FROM entitlement WHERE account_id = $1")
        .bind(account.as_str())
        .fetch_one(connection)
        .await?;
    u64::try_from(version).map_err(corrupt("version"))
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::Current, "current"),
    (Stage::Grace, "grace"),
    (Stage::Restricted, "restricted"),
    (Stage::ReadOnly, "read_only"),
    (Stage::Suspended, "suspended"),
];

fn stage_name(stage: Stage) -> &'static str {
    STAGES
        .iter()
        .find(|(one, _)| *one == stage)
        .map_or("current", |(_, name)| name)
}

pub(super) fn stage_from_name(name: &str) -> Result<Stage, DatabaseError> {
    let found = STAGES.iter().find(|(_, one)| *one == name);
    found
        .map(|(stage, _)| *stage)
        .ok_or(DatabaseError::Corrupt { what: "stage" })
}
