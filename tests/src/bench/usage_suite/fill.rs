//! Fills the ledger with a month of events, as recording them would have, in the time that PostgreSQL alone needs.

use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{books::Books, catalog::CALLS};

/// Accounts that have events.
pub(super) const ACCOUNTS: u32 = 100;
/// The beginning of their names.
pub(super) const NAME: &str = "filled";

/// A month, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Month {
    /// Its first second.
    pub(super) start: i64,
    /// The first second after it.
    pub(super) end: i64,
}

/// Further events of each account, spread evenly over the month.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events {
    /// The number of the first, from which its id follows.
    pub(super) first: u64,
    /// How many there are of each account: at least one in each quarter of an hour.
    pub(super) count: u64,
}

/// Adds events to the ledger, their keys, and what they come to in the rollups. Nobody may record meanwhile: the keys'
/// index is made anew, which takes a fraction of the time.
pub(super) async fn fill(books: &Books<'_>, month: Month, events: Events) -> Result<()> {
    let (mut one, mut other) = (books.session().await?, books.session().await?);
    for session in [&mut one, &mut other] {
        execute(session, "SET search_path = usage".to_owned()).await?;
    }
    execute(
        &mut one,
        format!("SELECT make_ledger_month(to_timestamp({}))", month.start),
    )
    .await?;
    let (ledger, keys) = (
        execute(&mut one, ledger_of(month, events)),
        execute(&mut other, keys_of(month, events)),
    );
    tokio::try_join!(ledger, keys)?;
    check_keys(&mut one, events).await?;
    for table in ["rollup_quarter", "rollup_day"] {
        execute(&mut one, rollup_of(table, month, events)).await?;
    }
    // The rollups count the lag down by what is added to their days, so it is counted up as commits do.
    let added = events.count * u64::from(ACCOUNTS);
    execute(
        &mut one,
        format!("UPDATE rollup_lag SET events = events + {added} WHERE slot = 0"),
    )
    .await?;
    let vacuum = "VACUUM (ANALYZE) ledger, event_key, rollup_quarter, rollup_day";
    execute(&mut one, vacuum.to_owned()).await?;
    execute(&mut one, "CHECKPOINT".to_owned()).await
}

/// Every account with every event: its name, its number and its time.
fn all(month: Month, Events { first, count }: Events) -> String {
    // Whole microseconds, rounded down.
    let step_us = u64::try_from(month.end - month.start).unwrap_or(0) * 1_000_000 / count.max(1);
    format!(
        "(SELECT '{NAME}-' || account AS account_id, 'filled-' || ({first} + number) AS event_id,
                 to_timestamp({}) + number * interval '{step_us} microseconds' AS event_at
          FROM generate_series(0, {ACCOUNTS} - 1) AS account CROSS JOIN generate_series(0, {count} - 1) AS number) AS event",
        month.start
    )
}

fn ledger_of(month: Month, events: Events) -> String {
    format!(
        "INSERT INTO ledger (account_id, metric, event_at, source, event_id, amount, charged_amount, recorded_at, origin, backfill,
                             properties)
         SELECT account_id, '{CALLS}', event_at, 'application', event_id, 1, 0, event_at, 'direct', false, '{{}}' FROM {}",
        all(month, events)
    )
}

/// The key of an event as `event_key_of` makes it, written out: a call of a function costs more than all the rest. The bytes in
/// the middle are the source, `application`, after its length.
const KEY: &str = "encode(substring(sha256(int8send(length(account_id)) || account_id::bytea
     || '\\x000000000000000b6170706c69636174696f6e'::bytea || int8send(length(event_id)) || event_id::bytea) FROM 1 FOR 16), 'hex')::uuid";

fn keys_of(month: Month, events: Events) -> String {
    // No repeat comes, so the hash of the content may be any.
    format!(
        "ALTER TABLE event_key DROP CONSTRAINT event_key_pkey;
         INSERT INTO event_key (key, payload_hash, event_at, denied, recorded_at)
         SELECT {KEY}, '00000000-0000-0000-0000-000000000000', event_at, false, event_at FROM {};
         ALTER TABLE event_key ADD PRIMARY KEY (key)",
        all(month, events)
    )
}

/// The keys are those that usage would have made.
async fn check_keys(session: &mut PgConnection, events: Events) -> Result<()> {
    const FOUND: &str =
        "SELECT count(*) FROM event_key WHERE key = event_key_of($1 || '-0', 'application', 'filled-' || $2)";
    let found: i64 = sqlx::query_scalar(FOUND)
        .bind(NAME)
        .bind(i64::try_from(events.first)?)
        .fetch_one(session)
        .await?;
    ensure!(found == 1, "keys are made in another way");
    Ok(())
}

/// What the events come to. All accounts have the same.
fn rollup_of(table: &str, month: Month, Events { count, .. }: Events) -> String {
    let step_us = u64::try_from(month.end - month.start).unwrap_or(0) * 1_000_000 / count.max(1);
    let bucket = match table {
        "rollup_day" => "date_trunc('day', event_at, 'UTC')",
        _ => "date_bin('15 minutes', event_at, 'epoch')",
    };
    format!(
        "INSERT INTO {table} AS r (account_id, metric, bucket_at, amount, events, max_amount, latest_at, latest_amount)
         SELECT '{NAME}-' || account, '{CALLS}', bucket_at, events, events, 1, latest_at, 1
         FROM (SELECT {bucket} AS bucket_at, count(*) AS events, max(event_at) AS latest_at
               FROM (SELECT to_timestamp({}) + number * interval '{step_us} microseconds' AS event_at
                     FROM generate_series(0, {count} - 1) AS number) AS event
               GROUP BY 1) AS bucket CROSS JOIN generate_series(0, {ACCOUNTS} - 1) AS account
         ORDER BY account, bucket_at
         ON CONFLICT (account_id, metric, bucket_at) DO UPDATE
         SET amount = r.amount + excluded.amount, events = r.events + excluded.events,
             latest_at = greatest(r.latest_at, excluded.latest_at)",
        month.start
    )
}

async fn execute(session: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(session).await?;
    Ok(())
}
