//! Windows with what they have granted, and the gates that keep limits still while slices are carved.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, Period, Units};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows, from_sql, to_sql};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::domain::{carve::Granted, holding::Revision, window::WindowKey};

/// A window of an account.
pub type AccountWindow = (AccountId, WindowKey);

/// How many locks stand for all accounts: what changes an account's limits holds one of them alone, what carves
/// from them shares it.
const GATES: u32 = 64;
/// The class of these locks among the advisory locks of the database.
const GATE_CLASS: i32 = 0x0c_7201;

/// FNV-1a, 32 bits: the same in every process and version.
fn gate(account: &AccountId) -> i32 {
    let hash = account.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash % GATES).cast_signed()
}

/// Lets all that the transaction reads be of one instant. It must come first.
pub async fn read_one_snapshot(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets no limit of these accounts change before the transaction ends.
pub async fn share_gates<'a>(
    connection: &mut PgConnection,
    accounts: impl Iterator<Item = &'a AccountId>,
) -> Result<(), DatabaseError> {
    let gates: BTreeSet<i32> = accounts.map(gate).collect();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1, gate) FROM unnest($2::int[]) AS gate")
        .bind(GATE_CLASS)
        .bind(gates.into_iter().collect::<Vec<i32>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets nobody carve from limits of the account before the transaction ends.
pub async fn close_gate(connection: &mut PgConnection, account: &AccountId) -> Result<(), DatabaseError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(GATE_CLASS)
        .bind(gate(account))
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets nobody carve from any limit before the transaction ends.
pub async fn close_all_gates(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, gate) FROM generate_series(0, $2) AS gate")
        .bind(GATE_CLASS)
        .bind((GATES - 1).cast_signed())
        .execute(connection)
        .await?;
    Ok(())
}

/// The revisions in force. An account that nothing was set for is not there.
pub async fn list_revisions(
    connection: &mut PgConnection,
    accounts: &[&AccountId],
) -> Result<(HashMap<AccountId, u64>, u64), DatabaseError> {
    let rows: Vec<(Option<String>, Option<i64>, i64)> = sqlx::query_as(
        "SELECT account_id, revision, catalog.version FROM catalog
         LEFT JOIN account_state ON account_id = ANY($1)",
    )
    .bind(
        accounts
            .iter()
            .map(|account| account.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let (mut revisions, mut catalog) = (HashMap::with_capacity(rows.len()), 0);
    for (account, revision, version) in rows {
        catalog = u64::try_from(version).map_err(corrupt("catalog version"))?;
        if let Some((account, revision)) = account.zip(revision) {
            let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
            revisions.insert(account, u64::try_from(revision).map_err(corrupt("revision"))?);
        }
    }
    Ok((revisions, catalog))
}

/// The revision that holds for an account, given what [`list_revisions`] found.
#[must_use]
pub fn revision_of(account: &AccountId, (accounts, catalog): &(HashMap<AccountId, u64>, u64)) -> Revision {
    Revision {
        account: accounts.get(account).copied().unwrap_or(0),
        catalog: *catalog,
    }
}

/// The key of a window in columns.
pub(super) struct KeyColumns<'k> {
    pub(super) accounts: Vec<&'k str>,
    pub(super) metrics: Vec<&'k str>,
    pub(super) periods: Vec<&'static str>,
    pub(super) starts: Vec<OffsetDateTime>,
}

impl<'k> KeyColumns<'k> {
    pub(super) fn of(windows: impl Iterator<Item = &'k AccountWindow>) -> Self {
        let mut columns = Self {
            accounts: Vec::new(),
            metrics: Vec::new(),
            periods: Vec::new(),
            starts: Vec::new(),
        };
        for (account, key) in windows {
            columns.accounts.push(account.as_str());
            columns.metrics.push(key.metric.as_str());
            columns.periods.push(key.period.as_str());
            columns.starts.push(to_sql(key.start));
        }
        columns
    }
}

/// Writes down windows that are not there yet, and answers which were not: this transaction has them locked.
async fn insert_windows(
    connection: &mut PgConnection,
    windows: &[AccountWindow],
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let columns = KeyColumns::of(windows.iter());
    let rows: Vec<KeyRow> = sqlx::query_as(
        "INSERT INTO quota_window (account_id, metric, period, start_at, end_at)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
         ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING RETURNING account_id, metric, period, start_at",
    )
    .bind(columns.accounts)
    .bind(columns.metrics)
    .bind(columns.periods)
    .bind(columns.starts)
    .bind(
        windows
            .iter()
            .map(|(_, key)| end_to_sql(key.end))
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let made: HashSet<Name<'_>> = (rows.iter())
        .map(|(account, metric, period, start)| {
            (
                account.as_str(),
                metric.as_str(),
                period.as_str(),
                from_sql(*start),
            )
        })
        .collect();
    let made = windows.iter().filter(|window| made.contains(&name(window)));
    Ok(made.map(|window| (window.clone(), Granted::default())).collect())
}

/// A window's account, metric, period and first instant.
type KeyRow = (String, String, String, OffsetDateTime);
/// The same, read.
type Name<'w> = (&'w str, &'w str, &'w str, Timestamp);

fn name((account, key): &AccountWindow) -> Name<'_> {
    (
        account.as_str(),
        key.metric.as_str(),
        key.period.as_str(),
        key.start,
    )
}

pub(super) fn end_to_sql(end: Timestamp) -> Option<OffsetDateTime> {
    (end != Timestamp::MAX).then(|| to_sql(end))
}

/// Account, metric, period and first instant; open caps, held and charged units; overrun, returned, followed.
pub(super) type GrantedRow = (
    String,
    String,
    String,
    OffsetDateTime,
    i64,
    i64,
    i64,
    String,
    String,
    String,
);

fn granted(
    (_, _, _, _, open_cap, held, charged, overrun, returned, used): &GrantedRow,
) -> Result<Granted, DatabaseError> {
    Ok(Granted {
        open_cap: units(*open_cap)?,
        held: units(*held)?,
        charged: units(*charged)?,
        overrun: overrun.parse().map_err(corrupt("overrun"))?,
        returned: returned.parse().map_err(corrupt("amount given back"))?,
        followed: used.parse().map_err(corrupt("use"))?,
    })
}

pub(super) fn period_from_name(name: &str) -> Result<Period, DatabaseError> {
    Period::from_name(name).ok_or(DatabaseError::Corrupt { what: "period" })
}

pub(super) fn units(amount: i64) -> Result<Units, DatabaseError> {
    Units::try_from(amount).map_err(corrupt("amount"))
}

/// Ends the MONTH windows of an account that run at an instant, because a billing period begins there.
pub async fn end_months(
    connection: &mut PgConnection,
    account: &AccountId,
    at: Timestamp,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE quota_window SET end_at = $2
         WHERE account_id = $1 AND period = 'month' AND start_at < $2 AND end_at > $2",
    )
    .bind(account.as_str())
    .bind(to_sql(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks windows in one order and answers what they have granted; those that are not written down yet are.
pub async fn lock_windows(
    connection: &mut PgConnection,
    windows: &BTreeSet<AccountWindow>,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let mut granted = lock_written_windows(connection, windows).await?;
    if granted.len() < windows.len() {
        let missing = || windows.iter().filter(|window| !granted.contains_key(window));
        let new: Vec<AccountWindow> = missing().cloned().collect();
        granted.extend(insert_windows(connection, &new).await?);
        // Others wrote these down meanwhile.
        let theirs = || windows.iter().filter(|window| !granted.contains_key(window));
        if granted.len() < windows.len() {
            let found = windows_where(connection, theirs(), LOCKED).await?;
            granted.extend(found);
        }
    }
    expect_rows(count(windows.len()), count(granted.len()))?;
    Ok(granted)
}

/// Locks those of the windows that are written down, in one order, and answers what they have granted.
pub async fn lock_written_windows(
    connection: &mut PgConnection,
    windows: &BTreeSet<AccountWindow>,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    windows_where(connection, windows.iter(), LOCKED).await
}

/// How the look-up of one window ends. Either keeps the planner from making a join of it.
const LOCKED: &str = "FOR UPDATE";
const FOUND: &str = "OFFSET 0";

/// What windows have granted; one that is not written down has granted nothing, and is not there.
pub async fn find_windows(
    connection: &mut PgConnection,
    windows: &[AccountWindow],
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    windows_where(connection, windows.iter(), FOUND).await
}

/// A window is found by its beginning, so the answer has it as it was asked for. Each is looked up by its key, one after
/// the other in one order, whatever the planner believes of the table: it would join the rows with the keys, and where
/// it takes the table for small that is the square of their number, or worse where they are locked.
async fn windows_where<'w>(
    connection: &mut PgConnection,
    windows: impl Iterator<Item = &'w AccountWindow> + Clone,
    ending: &'static str,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let columns = KeyColumns::of(windows.clone());
    let statement = format!(
        "SELECT k.account_id, k.metric, k.period, k.start_at, w.open_cap, w.held, w.charged, w.overrun::text,
                w.returned::text, w.used::text
         FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
                    AS k (account_id, metric, period, start_at) ORDER BY 1, 2, 3, 4) AS k
         CROSS JOIN LATERAL (SELECT * FROM quota_window AS q
                             WHERE q.account_id = k.account_id AND q.metric = k.metric AND q.period = k.period
                               AND q.start_at = k.start_at {ending}) AS w"
    );
    let rows: Vec<GrantedRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(columns.accounts)
        .bind(columns.metrics)
        .bind(columns.periods)
        .bind(columns.starts)
        .fetch_all(connection)
        .await?;
    by_window(windows, &rows)
}

/// What rows say of these windows; each is found by its beginning.
pub(super) fn by_window<'w>(
    windows: impl Iterator<Item = &'w AccountWindow>,
    rows: &[GrantedRow],
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let found: HashMap<Name<'_>, &GrantedRow> = (rows.iter())
        .map(|row| {
            (
                (row.0.as_str(), row.1.as_str(), row.2.as_str(), from_sql(row.3)),
                row,
            )
        })
        .collect();
    let mut answer = HashMap::with_capacity(rows.len());
    for window in windows {
        if let Some(row) = found.get(&name(window)) {
            answer.insert(window.clone(), granted(row)?);
        }
    }
    Ok(answer)
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What is added to and taken from one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To the caps of slices that may be charged.
    pub open_cap: i64,
    /// To the part of them that holds have.
    pub held: i64,
    /// To what was charged to slices that are sealed.
    pub charged: i64,
    /// To what entered without permission.
    pub overrun: u128,
    /// To what was given back.
    pub returned: u128,
    /// To the use as the ledger's events are followed.
    pub followed: u128,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.open_cap += other.open_cap;
        self.held += other.held;
        self.charged += other.charged;
        self.overrun += other.overrun;
        self.returned += other.returned;
        self.followed += other.followed;
    }
}

/// Changes windows that are written down, and answers what they have granted then. They are locked in the order of their
/// keys, and looked at no earlier than changed, so that others wait as shortly as can be.
pub async fn change_windows(
    connection: &mut PgConnection,
    changes: &BTreeMap<AccountWindow, Change>,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let changed = try_change(connection, changes).await?;
    expect_rows(count(changes.len()), count(changed.len()))?;
    Ok(changed)
}

/// The same; windows that are not written down yet are.
pub async fn add_to_windows(
    connection: &mut PgConnection,
    changes: &BTreeMap<AccountWindow, Change>,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    let mut changed = try_change(connection, changes).await?;
    if changed.len() < changes.len() {
        let missing = changes.iter().filter(|(window, _)| !changed.contains_key(window));
        let missing: BTreeMap<AccountWindow, Change> = missing
            .map(|(window, change)| (window.clone(), *change))
            .collect();
        let new: Vec<AccountWindow> = missing.keys().cloned().collect();
        insert_windows(connection, &new).await?;
        changed.extend(change_windows(connection, &missing).await?);
    }
    Ok(changed)
}

/// Changes those that are written down. Each is locked and then replaced through its key alone: an UPDATE that joins
/// the windows with what changes them may be planned as a walk through all of them for every one, or for every two.
async fn try_change(
    connection: &mut PgConnection,
    changes: &BTreeMap<AccountWindow, Change>,
) -> Result<HashMap<AccountWindow, Granted>, DatabaseError> {
    // A row is found by its beginning, whatever end was known of it when it was looked at.
    let mut sums: BTreeMap<Name<'_>, Change> = BTreeMap::new();
    for (window, change) in changes {
        *sums.entry(name(window)).or_default() += *change;
    }
    let rows: Vec<GrantedRow> = sqlx::query_as(
        "WITH changed AS MATERIALIZED (
             SELECT q.account_id, q.metric, q.period, q.start_at, q.end_at, q.open_cap + c.open_cap AS open_cap,
                    q.held + c.held AS held, q.charged + c.charged AS charged, q.overrun + c.overrun::numeric AS overrun,
                    q.returned + c.returned::numeric AS returned, q.used + c.followed::numeric AS used
             FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[],
                                        $7::bigint[], $8::text[], $9::text[], $10::text[])
                        AS c (account_id, metric, period, start_at, open_cap, held, charged, overrun, returned, followed)
                   ORDER BY 1, 2, 3, 4) AS c
             CROSS JOIN LATERAL (SELECT * FROM quota_window AS q
                                 WHERE q.account_id = c.account_id AND q.metric = c.metric AND q.period = c.period
                                   AND q.start_at = c.start_at FOR UPDATE) AS q)
         INSERT INTO quota_window AS w
                (account_id, metric, period, start_at, end_at, open_cap, held, charged, overrun, returned, used)
         SELECT * FROM changed
         ON CONFLICT (account_id, metric, period, start_at) DO UPDATE
         SET open_cap = excluded.open_cap, held = excluded.held, charged = excluded.charged,
             overrun = excluded.overrun, returned = excluded.returned, used = excluded.used
         RETURNING w.account_id, w.metric, w.period, w.start_at, w.open_cap, w.held, w.charged, w.overrun::text,
                   w.returned::text, w.used::text",
    )
    .bind(sums.keys().map(|name| name.0).collect::<Vec<_>>())
    .bind(sums.keys().map(|name| name.1).collect::<Vec<_>>())
    .bind(sums.keys().map(|name| name.2).collect::<Vec<_>>())
    .bind(sums.keys().map(|name| to_sql(name.3)).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.open_cap).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.held).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.charged).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.overrun.to_string()).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.returned.to_string()).collect::<Vec<_>>())
    .bind(sums.values().map(|change| change.followed.to_string()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    by_window(changes.keys(), &rows)
}
