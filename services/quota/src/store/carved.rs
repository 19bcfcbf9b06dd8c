//! Slices that were carved, with what their windows granted: one statement, so that others wait for a window as shortly as
//! can be.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::SliceId;
use octroi_kit::db::{DatabaseError, expect_rows, to_sql};
use sqlx::{FromRow as _, PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::windows::{AccountWindow, Change, GrantedRow, KeyColumns, by_window, count, end_to_sql};
use crate::domain::{
    carve::Granted,
    slice::{Slice, SliceKind},
    window::WindowKey,
};

/// A slice that was carved. It has a window at least.
#[derive(Clone, Debug)]
pub struct NewSlice {
    /// The slice.
    pub slice: Slice,
    /// The process or the hold that has it.
    pub owner: Uuid,
    /// What the request of a hold asked for.
    pub content_hash: Option<[u8; 32]>,
}

/// Which of these slices are written down, whatever became of them.
pub async fn list_written(
    connection: &mut PgConnection,
    slices: &[SliceId],
) -> Result<HashSet<SliceId>, DatabaseError> {
    let ids: Vec<Uuid> = slices.iter().map(|slice| slice.uuid()).collect();
    let found: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM slice WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().map(SliceId::new).collect())
}

/// Writes down slices and what their windows grant them, with windows that are not written down yet, and answers what
/// these have granted then. None where a slice was there already; what was written then must not stand.
pub async fn write_carved(
    connection: &mut PgConnection,
    slices: &[NewSlice],
    now: Timestamp,
) -> Result<Option<HashMap<AccountWindow, Granted>>, DatabaseError> {
    let of = |part: fn(&Slice) -> OffsetDateTime| -> Vec<OffsetDateTime> {
        slices.iter().map(|new| part(&new.slice)).collect()
    };
    // Arrays of arrays must be rectangular, so the windows come as texts: `{hour,day}`.
    let lists = |part: fn(&WindowKey) -> String| -> Vec<String> {
        let list = |windows: &[WindowKey]| windows.iter().map(part).collect::<Vec<_>>().join(",");
        slices
            .iter()
            .map(|new| format!("{{{}}}", list(&new.slice.windows)))
            .collect()
    };
    let changes = changes(slices);
    let keys = KeyColumns::of(changes.keys());
    let rows = sqlx::query(
        "WITH carved AS (
             INSERT INTO slice (id, account_id, metric, kind, owner, cap, state, periods, starts, ends,
                                carved_at, spend_until, hard_end_at, buffered, content_hash)
             SELECT id, account_id, metric, kind, owner, cap, 'open', periods::text[], starts::timestamptz[],
                    ends::timestamptz[], $12, spend_until, hard_end_at, buffered, content_hash
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[], $8::text[],
                         $9::text[], $10::timestamptz[], $11::timestamptz[], $13::boolean[], $14::bytea[])
                  AS s (id, account_id, metric, kind, owner, cap, periods, starts, ends, spend_until, hard_end_at, buffered,
                        content_hash)
             ON CONFLICT DO NOTHING RETURNING id)
         INSERT INTO quota_window AS w (account_id, metric, period, start_at, end_at, open_cap, held)
         SELECT * FROM unnest($15::text[], $16::text[], $17::text[], $18::timestamptz[], $19::timestamptz[], $20::bigint[],
                              $21::bigint[])
         ORDER BY 1, 2, 3, 4
         ON CONFLICT (account_id, metric, period, start_at) DO UPDATE
         SET open_cap = w.open_cap + excluded.open_cap, held = w.held + excluded.held
         RETURNING w.account_id, w.metric, w.period, w.start_at, w.open_cap, w.held, w.charged, w.overrun::text,
                   w.returned::text, w.used::text, (SELECT count(*) FROM carved) AS carved",
    )
    .bind(slices.iter().map(|new| new.slice.id.uuid()).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.slice.account.as_str()).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.slice.metric.as_str()).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.slice.kind.as_str()).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.owner).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.slice.cap.as_i64()).collect::<Vec<_>>())
    .bind(lists(|key| key.period.as_str().to_owned()))
    .bind(lists(|key| format!("\"{}\"", key.start)))
    .bind(lists(|key| {
        if key.end == Timestamp::MAX { "NULL".to_owned() } else { format!("\"{}\"", key.end) }
    }))
    .bind(of(|slice| to_sql(slice.spend_until)))
    .bind(of(|slice| to_sql(slice.hard_end_at)))
    .bind(to_sql(now))
    .bind(slices.iter().map(|new| new.slice.kept).collect::<Vec<_>>())
    .bind(slices.iter().map(|new| new.content_hash.map(Vec::from)).collect::<Vec<_>>())
    .bind(keys.accounts)
    .bind(keys.metrics)
    .bind(keys.periods)
    .bind(keys.starts)
    .bind(changes.keys().map(|(_, key)| end_to_sql(key.end)).collect::<Vec<_>>())
    .bind(changes.values().map(|change| change.open_cap).collect::<Vec<_>>())
    .bind(changes.values().map(|change| change.held).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let carved = rows.first().map(|row| row.try_get("carved")).transpose()?;
    if carved.map(i64::cast_unsigned) != Some(count(slices.len())) {
        return Ok(None);
    }
    let rows = rows.iter().map(GrantedRow::from_row);
    let granted = by_window(changes.keys(), &rows.collect::<Result<Vec<_>, _>>()?)?;
    expect_rows(count(changes.len()), count(granted.len()))?;
    Ok(Some(granted))
}

/// What the windows of slices grant them.
fn changes(slices: &[NewSlice]) -> BTreeMap<AccountWindow, Change> {
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    for slice in slices.iter().map(|new| &new.slice) {
        let cap = slice.cap.as_i64();
        for key in &slice.windows {
            *changes.entry((slice.account.clone(), key.clone())).or_default() += Change {
                open_cap: cap,
                held: if slice.kind == SliceKind::Hold { cap } else { 0 },
                ..Change::default()
            };
        }
    }
    changes
}
