//! What was charged to slices of limits, and what accounts hold of LEVEL metrics.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId, Units};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, to_sql};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::spends::{LevelKey, SliceSpend, Spends, Sums};

/// Charges the sums to slices that take them, locks every slice and level that the sums name until the transaction
/// ends, and answers how each stood before. Most commits need nothing more; what was charged and does not stand
/// is corrected by [`correct_spends`].
pub async fn charge_sums(
    connection: &mut PgConnection,
    sums: &Sums,
    now: Timestamp,
) -> Result<Charged, DatabaseError> {
    let mut charged = Charged::default();
    if !sums.slices.is_empty() {
        charge_slices(connection, sums, &mut charged, now).await?;
    }
    if !sums.levels.is_empty() {
        charged.before.levels = lock_levels(connection, sums).await?;
    }
    Ok(charged)
}

/// How slices and levels stood before, and what slices have now.
#[derive(Debug, Default)]
pub struct Charged {
    /// Before anything was charged.
    pub before: Spends,
    /// What each slice that took its sum has spent now.
    spent: HashMap<SliceId, Units>,
}

async fn charge_slices(
    connection: &mut PgConnection,
    sums: &Sums,
    charged: &mut Charged,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let ids: Vec<Uuid> = sums.slices.keys().map(|slice| slice.uuid()).collect();
    let caps: Vec<i64> = sums.slices.values().map(|sum| sum.first.cap.as_i64()).collect();
    let amounts: Vec<i64> = (sums.slices.values())
        .map(|sum| i64::try_from(sum.amount).unwrap_or(i64::MAX))
        .collect();
    let ends: Vec<_> = (sums.slices.values())
        .map(|sum| to_sql(sum.first.hard_end_at))
        .collect();
    // A slice is charged here and nowhere else, in the transaction of the events that it pays for. Sorted, so that
    // two commits never wait for each other in a circle; a row that refuses is locked all the same.
    let took: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "INSERT INTO slice_spend AS s (slice_id, cap, spent, sealed, hard_end_at)
         SELECT slice_id, cap, CASE WHEN amount <= cap THEN amount ELSE 0 END, false, hard_end_at
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS c (slice_id, cap, amount, hard_end_at)
         WHERE hard_end_at > $5 ORDER BY slice_id
         ON CONFLICT (slice_id) DO UPDATE SET spent = s.spent + excluded.spent
         WHERE NOT s.sealed AND s.spent + excluded.spent <= s.cap
         RETURNING slice_id, cap, spent",
    )
    .bind(&ids)
    .bind(caps)
    .bind(amounts)
    .bind(ends)
    .bind(to_sql(now))
    .fetch_all(&mut *connection)
    .await?;
    for (id, cap, spent) in took {
        let slice = SliceId::new(id);
        let sum = sums
            .slices
            .get(&slice)
            .ok_or(DatabaseError::Corrupt { what: "slice" })?;
        let (cap, spent) = (units(cap)?, units(spent)?);
        let taken = Units::new(sum.amount)
            .ok()
            .filter(|amount| *amount <= sum.first.cap);
        charged.spent.insert(slice, spent);
        charged.before.slices.insert(
            slice,
            SliceSpend {
                cap,
                spent: spent.saturating_sub(taken.unwrap_or(Units::ZERO)),
                open: true,
            },
        );
    }
    let refused: Vec<Uuid> = (sums.slices.keys())
        .filter(|slice| !charged.spent.contains_key(slice))
        .map(|slice| slice.uuid())
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let rows: Vec<(Uuid, i64, i64, bool)> = sqlx::query_as(
        "SELECT slice_id, cap, spent, NOT sealed AND hard_end_at > $2 FROM slice_spend
         WHERE slice_id = ANY($1) ORDER BY slice_id FOR UPDATE",
    )
    .bind(&refused)
    .bind(to_sql(now))
    .fetch_all(connection)
    .await?;
    for (id, cap, spent, open) in rows {
        let (cap, spent) = (units(cap)?, units(spent)?);
        let spend = SliceSpend { cap, spent, open };
        charged.before.slices.insert(SliceId::new(id), spend);
    }
    Ok(())
}

async fn lock_levels(
    connection: &mut PgConnection,
    sums: &Sums,
) -> Result<HashMap<LevelKey, i64>, DatabaseError> {
    let accounts: Vec<&str> = sums.levels.keys().map(|key| key.0.as_str()).collect();
    let metrics: Vec<&str> = sums.levels.keys().map(|key| key.1.as_str()).collect();
    sqlx::query(
        "INSERT INTO level (account_id, metric, amount)
         SELECT account_id, metric, 0 FROM unnest($1::text[], $2::text[]) AS named (account_id, metric)
         ORDER BY account_id, metric ON CONFLICT DO NOTHING",
    )
    .bind(&accounts)
    .bind(&metrics)
    .execute(&mut *connection)
    .await?;
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT named.account_id, named.metric, level.amount
         FROM (SELECT * FROM unnest($1::text[], $2::text[]) AS named (account_id, metric)
               ORDER BY account_id, metric) AS named
         CROSS JOIN LATERAL (SELECT amount FROM level WHERE level.account_id = named.account_id
                             AND level.metric = named.metric FOR UPDATE) AS level",
    )
    .bind(&accounts)
    .bind(&metrics)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(account, metric, amount)| {
            let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
            let metric = MetricSlug::parse(&metric).map_err(corrupt("metric"))?;
            Ok(((account, metric), amount))
        })
        .collect()
}

/// Brings slices and levels to where the events that are really recorded leave them.
pub async fn correct_spends(
    connection: &mut PgConnection,
    charged: &Charged,
    after: &Spends,
) -> Result<(), DatabaseError> {
    let (ids, spent): (Vec<Uuid>, Vec<i64>) = (after.slices.iter())
        .filter(|(slice, spend)| {
            let before = charged.before.slices.get(slice).map(|before| before.spent);
            charged.spent.get(slice).copied().or(before) != Some(spend.spent)
        })
        .map(|(slice, spend)| (slice.uuid(), spend.spent.as_i64()))
        .unzip();
    if !ids.is_empty() {
        // All of them are locked by this transaction already, so their order is of no matter.
        let done = sqlx::query(
            "UPDATE slice_spend SET spent = ($2::bigint[])[array_position($1, slice_id)] WHERE slice_id = ANY($1::uuid[])",
        )
        .bind(&ids)
        .bind(spent)
        .execute(&mut *connection)
        .await?;
        expect_rows(count(ids.len()), done.rows_affected())?;
    }
    let changed: Vec<(&LevelKey, i64)> = (after.levels.iter())
        .filter(|(key, amount)| charged.before.levels.get(key) != Some(amount))
        .map(|(key, amount)| (key, *amount))
        .collect();
    if !changed.is_empty() {
        let done = sqlx::query(
            "INSERT INTO level (account_id, metric, amount) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
             ON CONFLICT (account_id, metric) DO UPDATE SET amount = excluded.amount",
        )
        .bind(changed.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
        .bind(changed.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
        .bind(changed.iter().map(|(_, amount)| *amount).collect::<Vec<_>>())
        .execute(connection)
        .await?;
        expect_rows(count(changed.len()), done.rows_affected())?;
    }
    Ok(())
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn units(amount: i64) -> Result<Units, DatabaseError> {
    Units::try_from(amount).map_err(corrupt("amount of a slice"))
}

/// A slice that is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSeal {
    /// The slice.
    pub slice: SliceId,
    /// The most that may be charged to it.
    pub cap: Units,
    /// From when on nothing can be charged to it anyway.
    pub hard_end_at: Timestamp,
}

/// Seals slices and answers what was charged to each. Nothing is charged to one of them afterwards. Of one that ended
/// before `forgotten_before` the row may have been deleted: what is not there counts as charged to the full, because
/// nobody knows that it was not.
pub async fn seal_slices(
    connection: &mut PgConnection,
    slices: &[ToSeal],
    forgotten_before: Timestamp,
) -> Result<HashMap<SliceId, Units>, DatabaseError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "INSERT INTO slice_spend AS s (slice_id, cap, spent, sealed, hard_end_at)
         SELECT slice_id, cap, CASE WHEN hard_end_at < $4 THEN cap ELSE 0 END, true, hard_end_at
         FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS c (slice_id, cap, hard_end_at) ORDER BY slice_id
         ON CONFLICT (slice_id) DO UPDATE SET sealed = true
         RETURNING slice_id, spent",
    )
    .bind(slices.iter().map(|one| one.slice.uuid()).collect::<Vec<_>>())
    .bind(slices.iter().map(|one| one.cap.as_i64()).collect::<Vec<_>>())
    .bind(slices.iter().map(|one| to_sql(one.hard_end_at)).collect::<Vec<_>>())
    .bind(to_sql(forgotten_before))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, spent)| Ok((SliceId::new(id), units(spent)?)))
        .collect()
}

/// Forgets slices to which nothing could be charged any more since `before`, at most `limit` of them, and answers
/// how many those were.
pub async fn delete_ended_slices(
    connection: &mut PgConnection,
    before: Timestamp,
    limit: u64,
) -> Result<u64, DatabaseError> {
    let done = sqlx::query(
        "DELETE FROM slice_spend WHERE slice_id = ANY (ARRAY(
             SELECT slice_id FROM slice_spend WHERE hard_end_at < $1 ORDER BY hard_end_at LIMIT $2))",
    )
    .bind(to_sql(before))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
