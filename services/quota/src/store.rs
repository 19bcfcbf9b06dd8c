//! Limits, windows and thresholds in PostgreSQL.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{
    AccountId, Aggregation, Entitlements, FeaturePlans, Metric, MetricKind, MetricSlug, Stage, Units,
};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::domain::{
    holding::{AccountEntitlements, Catalog},
    window::WindowKey,
};

/// The catalog that was applied last.
pub async fn find_catalog(connection: &mut PgConnection) -> Result<Option<Catalog>, DatabaseError> {
    type Row = (i64, Json<Entitlements>, Json<Vec<FeaturePlans>>, i32);
    let row: Option<Row> = sqlx::query_as(
        "SELECT version, default_entitlements, feature_plans, restricted_percent FROM catalog",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some((version, default_entitlements, feature_plans, restricted_percent)) = row else {
        return Ok(None);
    };
    let rows: Vec<(String, String, String, bool)> =
        sqlx::query_as("SELECT slug, kind, aggregation, write FROM metric")
            .fetch_all(connection)
            .await?;
    let metrics: Result<HashMap<MetricSlug, Metric>, DatabaseError> = rows
        .into_iter()
        .map(|row| metric(row).map(|metric| (metric.slug.clone(), metric)))
        .collect();
    Ok(Some(Catalog {
        version: u64::try_from(version).map_err(corrupt("catalog version"))?,
        metrics: metrics?,
        default_entitlements: default_entitlements.0,
        feature_plans: feature_plans.0,
        restricted_percent: u32::try_from(restricted_percent).map_err(corrupt("share"))?,
    }))
}

/// What people read of a metric stays with billing.
fn metric((slug, kind, aggregation, write): (String, String, String, bool)) -> Result<Metric, DatabaseError> {
    Ok(Metric {
        slug: MetricSlug::parse(&slug).map_err(corrupt("metric"))?,
        kind: MetricKind::from_name(&kind).ok_or(DatabaseError::Corrupt { what: "metric kind" })?,
        aggregation: Aggregation::from_name(&aggregation)
            .ok_or(DatabaseError::Corrupt { what: "aggregation" })?,
        display_name_en: String::new(),
        display_name_fr: String::new(),
        unit: String::new(),
        write,
    })
}

/// Makes `catalog` the one in force. Metrics that it does not have any more stay known.
pub async fn update_catalog(connection: &mut PgConnection, catalog: &Catalog) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO catalog (version, default_entitlements, feature_plans, restricted_percent) VALUES ($1, $2, $3, $4)
         ON CONFLICT (singleton) DO UPDATE SET version = excluded.version, feature_plans = excluded.feature_plans,
             default_entitlements = excluded.default_entitlements, restricted_percent = excluded.restricted_percent",
    )
    .bind(i64::try_from(catalog.version).map_err(corrupt("catalog version"))?)
    .bind(Json(&catalog.default_entitlements))
    .bind(Json(&catalog.feature_plans))
    .bind(i32::try_from(catalog.restricted_percent).map_err(corrupt("share"))?)
    .execute(&mut *connection)
    .await?;
    for metric in catalog.metrics.values() {
        sqlx::query(
            "INSERT INTO metric (slug, kind, aggregation, write) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slug) DO UPDATE
             SET kind = excluded.kind, aggregation = excluded.aggregation, write = excluded.write",
        )
        .bind(metric.slug.as_str())
        .bind(metric.kind.as_str())
        .bind(metric.aggregation.as_str())
        .bind(metric.write)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
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

fn stage_from_name(name: &str) -> Result<Stage, DatabaseError> {
    let found = STAGES.iter().find(|(_, one)| *one == name);
    found
        .map(|(stage, _)| *stage)
        .ok_or(DatabaseError::Corrupt { what: "stage" })
}

/// What is added to one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Whose.
    pub account: AccountId,
    /// Which window.
    pub key: WindowKey,
    /// Units of all origins; many events pass 64 bits.
    pub used: u128,
    /// Those of them that were recorded after the fact.
    pub used_direct: u128,
}

/// The use of a window before and after an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowUse {
    /// All units after it.
    pub used: u128,
    /// Units recorded after the fact, after it.
    pub used_direct: u128,
}

/// Adds to windows, making those that are new, and answers the use of each afterwards, in the order given.
/// The additions must be sorted, so that two transactions take the rows in one order.
pub async fn add_to_windows(
    connection: &mut PgConnection,
    additions: &[Addition],
) -> Result<Vec<WindowUse>, DatabaseError> {
    let rows: Vec<(String, String, String, OffsetDateTime, String, String)> = sqlx::query_as(
        "INSERT INTO quota_window AS w (account_id, metric, period, start_at, end_at, used, used_direct)
         SELECT account_id, metric, period, start_at, end_at, used::numeric, direct::numeric
         FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[])
              AS added (account_id, metric, period, start_at, end_at, used, direct)
         ON CONFLICT (account_id, metric, period, start_at)
         DO UPDATE SET used = w.used + excluded.used, used_direct = w.used_direct + excluded.used_direct
         RETURNING account_id, metric, period, start_at, used::text, used_direct::text",
    )
    .bind(additions.iter().map(|one| one.account.as_str()).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| one.key.metric.as_str()).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| one.key.period.as_str()).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| to_sql(one.key.start)).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| (one.key.end != Timestamp::MAX).then(|| to_sql(one.key.end))).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| one.used.to_string()).collect::<Vec<_>>())
    .bind(additions.iter().map(|one| one.used_direct.to_string()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut uses = HashMap::with_capacity(rows.len());
    for (account, metric, period, start_at, used, used_direct) in rows {
        let used = WindowUse {
            used: used.parse().map_err(corrupt("use"))?,
            used_direct: used_direct.parse().map_err(corrupt("use"))?,
        };
        uses.insert((account, metric, period, from_sql(start_at)), used);
    }
    additions
        .iter()
        .map(|one| {
            let key = (
                one.account.to_string(),
                one.key.metric.to_string(),
                one.key.period.as_str().to_owned(),
                one.key.start,
            );
            uses.get(&key).copied().ok_or(DatabaseError::RowsAffected {
                expected: 1,
                actual: 0,
            })
        })
        .collect()
}

/// A threshold that a window's use has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Whose.
    pub account: AccountId,
    /// Which window.
    pub key: WindowKey,
    /// The limit in force.
    pub limit: Units,
    /// The share that was reached, in percent.
    pub percent: u32,
    /// The use that reached it.
    pub used: u128,
    /// Whether people are told of this one, or of a higher one at the same time.
    pub notified: bool,
}

/// Notes that a threshold was reached, and answers whether this is the first time.
pub async fn insert_crossing(
    connection: &mut PgConnection,
    crossing: &Crossing,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "INSERT INTO crossed_threshold
             (account_id, metric, period, start_at, limit_amount, threshold_percent, used, notified, crossed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::numeric, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(crossing.account.as_str())
    .bind(crossing.key.metric.as_str())
    .bind(crossing.key.period.as_str())
    .bind(to_sql(crossing.key.start))
    .bind(crossing.limit.as_i64())
    .bind(i32::try_from(crossing.percent).map_err(corrupt("threshold"))?)
    .bind(crossing.used.to_string())
    .bind(crossing.notified)
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
