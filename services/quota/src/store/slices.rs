//! Slices of limits.

use std::collections::HashSet;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId, Units};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::windows::{period_from_name, units};
use crate::domain::{
    slice::{Slice, SliceKind, common},
    window::WindowKey,
};

/// A slice as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRow {
    /// The slice.
    pub slice: Slice,
    /// Who has it: a process, or a hold.
    pub owner: Uuid,
    /// Whether others closed it because its owner did not: all of it counts as used.
    pub abandoned: bool,
    /// What the request of a hold asked for; none of holds that were made before that was kept.
    pub content_hash: Option<Vec<u8>>,
    /// What was charged to it, where it is sealed.
    pub charge: Option<Units>,
    /// When it was carved.
    pub carved_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct StoredSlice {
    id: Uuid,
    account_id: String,
    metric: String,
    kind: String,
    buffered: bool,
    owner: Uuid,
    cap: i64,
    abandoned: bool,
    charge: Option<i64>,
    content_hash: Option<Vec<u8>>,
    periods: Vec<String>,
    starts: Vec<OffsetDateTime>,
    ends: Vec<Option<OffsetDateTime>>,
    carved_at: OffsetDateTime,
    spend_until: OffsetDateTime,
    hard_end_at: OffsetDateTime,
}

const SLICE_COLUMNS: &str =
    "s.id, s.account_id, s.metric, s.kind, s.buffered, s.owner, s.cap, s.abandoned, s.charge, s.content_hash, s.periods,
    s.starts, s.ends, s.carved_at, s.spend_until, s.hard_end_at";

impl TryFrom<StoredSlice> for SliceRow {
    type Error = DatabaseError;

    fn try_from(row: StoredSlice) -> Result<Self, DatabaseError> {
        let metric = MetricSlug::parse(&row.metric).map_err(corrupt("metric"))?;
        let windows: Result<Vec<WindowKey>, DatabaseError> =
            (row.periods.iter().zip(row.starts).zip(row.ends))
                .map(|((period, start), end)| {
                    Ok(WindowKey {
                        metric: metric.clone(),
                        period: period_from_name(period)?,
                        start: from_sql(start),
                        end: end.map_or(Timestamp::MAX, from_sql),
                    })
                })
                .collect();
        let windows = windows?;
        Ok(Self {
            slice: Slice {
                id: SliceId::new(row.id),
                account: AccountId::parse(&row.account_id).map_err(corrupt("account id"))?,
                metric,
                kept: row.buffered,
                kind: SliceKind::from_name(&row.kind).ok_or(DatabaseError::Corrupt {
                    what: "kind of slice",
                })?,
                cap: units(row.cap)?,
                covers: common(windows.iter()),
                windows,
                spend_until: from_sql(row.spend_until),
                hard_end_at: from_sql(row.hard_end_at),
            },
            owner: row.owner,
            abandoned: row.abandoned,
            content_hash: row.content_hash,
            charge: row.charge.map(units).transpose()?,
            carved_at: from_sql(row.carved_at),
        })
    }
}

fn read(rows: Vec<StoredSlice>) -> Result<Vec<SliceRow>, DatabaseError> {
    rows.into_iter().map(SliceRow::try_from).collect()
}

/// Closes slices that are open, so that they can be sealed, and answers them; those that others closed are among the
/// answer, those that are sealed are not. A buffered slice of a replica but `own` stays open
/// until nothing can be charged to it any more: nobody else knows what was answered.
pub async fn close_slices(
    connection: &mut PgConnection,
    slices: &[SliceId],
    own: Uuid,
    now: Timestamp,
) -> Result<Vec<SliceRow>, DatabaseError> {
    let statement = format!(
        "UPDATE slice AS s SET state = 'closing',
                abandoned = s.abandoned OR (s.state = 'open' AND s.buffered AND s.owner <> $2)
         WHERE s.id = ANY (ARRAY(
             SELECT id FROM slice
             WHERE id = ANY($1) AND (state = 'closing' OR state = 'open' AND
                                     (NOT buffered OR owner = $2 OR hard_end_at <= $3))
             ORDER BY id FOR UPDATE))
         RETURNING {SLICE_COLUMNS}"
    );
    let rows: Vec<StoredSlice> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(ids(slices))
        .bind(own)
        .bind(to_sql(now))
        .fetch_all(connection)
        .await?;
    read(rows)
}

/// Closes what is open of these holds; whoever looks after slices settles it.
pub async fn close_holds(connection: &mut PgConnection, holds: &[Uuid]) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE slice SET state = 'closing' WHERE id = ANY (ARRAY(
             SELECT id FROM slice WHERE owner = ANY($1) AND state = 'open' AND kind = 'hold' ORDER BY id FOR UPDATE))",
    )
    .bind(holds)
    .execute(connection)
    .await?;
    Ok(())
}

/// Closes holds that have expired, so many at the most. One that is renewed meanwhile stays.
pub async fn close_expired_holds(
    connection: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE slice SET state = 'closing' WHERE id = ANY (ARRAY(
             SELECT id FROM slice WHERE state = 'open' AND kind = 'hold' AND spend_until <= $1
             ORDER BY spend_until LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_sql(now))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(())
}

fn ids(slices: &[SliceId]) -> Vec<Uuid> {
    slices.iter().map(|slice| slice.uuid()).collect()
}

/// Notes what was charged to slices that are closing, and answers which were still; no slice is applied twice. Only
/// holds are remembered, because their requests may come again.
pub async fn apply_charges(
    connection: &mut PgConnection,
    charges: &[(SliceId, Units)],
) -> Result<Vec<SliceId>, DatabaseError> {
    let (ids, charged): (Vec<Uuid>, Vec<i64>) = charges
        .iter()
        .map(|(slice, charge)| (slice.uuid(), charge.as_i64()))
        .unzip();
    let applied: Vec<Uuid> = sqlx::query_scalar(
        "WITH ours AS MATERIALIZED (SELECT id, kind FROM slice WHERE id = ANY($1::uuid[]) AND state = 'closing'
                                    ORDER BY id FOR UPDATE),
              gone AS (DELETE FROM slice WHERE id = ANY (ARRAY(SELECT id FROM ours WHERE kind <> 'hold')) RETURNING id),
              kept AS (UPDATE slice SET state = 'sealed', charge = ($2::bigint[])[array_position($1, id)]
                       WHERE id = ANY (ARRAY(SELECT id FROM ours WHERE kind = 'hold')) RETURNING id)
         SELECT id FROM gone UNION ALL SELECT id FROM kept",
    )
    .bind(ids)
    .bind(charged)
    .fetch_all(connection)
    .await?;
    Ok(applied.into_iter().map(SliceId::new).collect())
}

/// Which slices are looked for.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// Those of one account and metric that replicas have, carved before an instant, but one's own.
    Others {
        /// Whose.
        account: &'a AccountId,
        /// Of which metric.
        metric: &'a MetricSlug,
        /// Whose are not looked for.
        own: Uuid,
        /// They are older than this.
        carved_before: Timestamp,
    },
    /// Those of one account, of replicas.
    OfAccount(&'a AccountId),
    /// Those of replicas that are past their time, those that are closing, and those of replicas that were not seen since
    /// an instant.
    Done {
        /// The time.
        now: Timestamp,
        /// Replicas that were not seen since then are gone.
        seen_since: Timestamp,
        /// The most.
        limit: i64,
    },
}

/// Slices that are not sealed.
pub async fn list_slices(
    connection: &mut PgConnection,
    which: Which<'_>,
) -> Result<Vec<SliceRow>, DatabaseError> {
    let select =
        |rest: &str| sqlx::AssertSqlSafe(format!("SELECT {SLICE_COLUMNS} FROM slice s WHERE {rest}"));
    let rows: Vec<StoredSlice> = match which {
        Which::Others {
            account,
            metric,
            own,
            carved_before,
        } => {
            sqlx::query_as(select(
                "state <> 'sealed' AND account_id = $1 AND metric = $2 AND kind = 'replica' AND NOT buffered AND owner <> $3
                 AND carved_at < $4",
            ))
            .bind(account.as_str())
            .bind(metric.as_str())
            .bind(own)
            .bind(to_sql(carved_before))
            .fetch_all(connection)
            .await?
        }
        Which::OfAccount(account) => {
            sqlx::query_as(select("state <> 'sealed' AND account_id = $1 AND kind = 'replica' AND NOT buffered"))
                .bind(account.as_str())
                .fetch_all(connection)
                .await?
        }
        Which::Done {
            now,
            seen_since,
            limit,
        } => {
            sqlx::query_as(select(
                "s.id = ANY (ARRAY((SELECT id FROM slice WHERE state = 'open' AND spend_until <= $1 AND kind <> 'hold'
                           AND (NOT buffered OR hard_end_at <= $1) ORDER BY spend_until LIMIT $3)
                          UNION ALL (SELECT id FROM slice WHERE state = 'closing' LIMIT $3)
                          UNION ALL (SELECT theirs.id FROM replica
                                     CROSS JOIN LATERAL (SELECT id FROM slice WHERE owner = replica.id AND state = 'open'
                                                         AND NOT buffered OFFSET 0) AS theirs
                                     WHERE seen_at < $2 LIMIT $3)))",
            ))
            .bind(to_sql(now))
            .bind(to_sql(seen_since))
            .bind(limit)
            .fetch_all(connection)
            .await?
        }
    };
    read(rows)
}

/// Asks the replicas that have buffered slices of a metric to settle them, but `own`.
pub async fn recall_slices(
    connection: &mut PgConnection,
    account: &AccountId,
    metric: &MetricSlug,
    own: Uuid,
    carved_before: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE slice SET recalled = true
         WHERE state = 'open' AND account_id = $1 AND metric = $2 AND kind = 'replica' AND buffered AND owner <> $3
         AND carved_at < $4 AND NOT recalled",
    )
    .bind(account.as_str())
    .bind(metric.as_str())
    .bind(own)
    .bind(to_sql(carved_before))
    .execute(connection)
    .await?;
    Ok(())
}

/// Slices of `owner` that another replica asked it to settle, with whose they are.
pub async fn list_recalled(
    connection: &mut PgConnection,
    owner: Uuid,
) -> Result<Vec<(AccountId, SliceId)>, DatabaseError> {
    let rows: Vec<(String, Uuid)> =
        sqlx::query_as("SELECT account_id, id FROM slice WHERE owner = $1 AND recalled AND state = 'open'")
            .bind(owner)
            .fetch_all(connection)
            .await?;
    let read = |(account, id): (String, Uuid)| {
        let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
        Ok((account, SliceId::new(id)))
    };
    rows.into_iter().map(read).collect()
}

/// Which of these slices are not sealed.
pub async fn list_unsealed(
    connection: &mut PgConnection,
    slices: &[SliceId],
) -> Result<HashSet<SliceId>, DatabaseError> {
    if slices.is_empty() {
        return Ok(HashSet::new());
    }
    let unsealed: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM slice WHERE id = ANY($1) AND state <> 'sealed'")
            .bind(ids(slices))
            .fetch_all(connection)
            .await?;
    Ok(unsealed.into_iter().map(SliceId::new).collect())
}

/// The slices of holds, sealed ones included; each has its hold as its owner.
pub async fn list_holds(
    connection: &mut PgConnection,
    holds: &[Uuid],
) -> Result<Vec<SliceRow>, DatabaseError> {
    let statement = format!("SELECT {SLICE_COLUMNS} FROM slice s WHERE owner = ANY($1)");
    let rows: Vec<StoredSlice> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(holds)
        .fetch_all(connection)
        .await?;
    read(rows)
}

/// Those of the accounts that have as many open holds as they may.
pub async fn list_full_of_holds(
    connection: &mut PgConnection,
    accounts: &[AccountId],
    max: u64,
) -> Result<HashSet<AccountId>, DatabaseError> {
    let full: Vec<String> = sqlx::query_scalar(
        "SELECT account FROM unnest($1::text[]) AS account
         WHERE EXISTS (SELECT DISTINCT owner FROM slice
                       WHERE account_id = account AND kind = 'hold' AND state = 'open' OFFSET $2)",
    )
    .bind(accounts.iter().map(AccountId::as_str).collect::<Vec<_>>())
    .bind(i64::try_from(max.saturating_sub(1)).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let read = |account: String| AccountId::parse(&account).map_err(corrupt("account id"));
    full.into_iter().map(read).collect()
}

/// Lets every slice of a hold that is open at `now` live until `until` or longer, and answers until when; none where
/// none is open.
pub async fn renew_hold(
    connection: &mut PgConnection,
    hold: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Timestamp>, DatabaseError> {
    let renewed: Vec<OffsetDateTime> = sqlx::query_scalar(
        "UPDATE slice SET spend_until = greatest(spend_until, $3)
         WHERE owner = $1 AND kind = 'hold' AND state = 'open' AND spend_until > $2 RETURNING spend_until",
    )
    .bind(hold)
    .bind(to_sql(now))
    .bind(to_sql(until))
    .fetch_all(connection)
    .await?;
    Ok(renewed.into_iter().map(from_sql).min())
}

/// Notes that a replica is alive, and forgets those that were not seen for a day and have nothing.
pub async fn see_replica(
    connection: &mut PgConnection,
    replica: Uuid,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO replica (id, seen_at) VALUES ($1, $2)
         ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(replica)
    .bind(to_sql(now))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM replica WHERE seen_at < $1 - interval '1 day'
         AND NOT EXISTS (SELECT FROM slice WHERE owner = replica.id)",
    )
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(())
}
