//! PostgreSQL: one pool a service, on the runtime of the stores.
//!
//! Work on the database runs in a task of its own, never inside the future of a request: a request that
//! is cancelled in the middle of `BEGIN` would give its connection back to the pool with a transaction
//! open, and the next write on it would be acknowledged and lost (sqlx 0.9.0, launchbadge/sqlx#4393).
//! `before_acquire` rolls back besides.

mod error;

use std::{str::FromStr as _, time::Duration};

use futures::future::BoxFuture;
use jiff::Timestamp;
use octroi_core::{AccountId, Clock};
use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use time::OffsetDateTime;
use tokio::{runtime::Handle, task::JoinError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use self::error::{DatabaseError, again_if_busy, corrupt, expect_rows};
use crate::config::{ConfigError, Secret};

/// The `[<service>.database]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Where the service's own schema is, as its own role. Empty means the process's private PostgreSQL.
    pub url: Secret,
    /// The most connections of this process for this service.
    pub connections_max: u32,
}

impl DatabaseConfig {
    /// The rules that types do not keep.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key below `service`.
    pub fn validate(&self, service: &str) -> Result<(), ConfigError> {
        if !(2..=500).contains(&self.connections_max) {
            return Err(ConfigError::new(
                format!("{service}.database.connections_max"),
                "must be 2 to 500",
            ));
        }
        check_url(&format!("{service}.database.url"), &self.url)
    }
}

/// Refuses what is no address of a PostgreSQL; an empty one is none.
///
/// # Errors
/// [`ConfigError`] that names `key`, without the address, which holds a password.
pub fn check_url(key: &str, url: &Secret) -> Result<(), ConfigError> {
    let schemes = ["postgres://", "postgresql://"];
    let is_address = |url: &str| {
        schemes.iter().any(|scheme| url.starts_with(scheme)) && PgConnectOptions::from_str(url).is_ok()
    };
    if url.is_empty() || is_address(url.expose()) {
        return Ok(());
    }
    let problem = "must be an address such as postgres://user:password@host:5432/database";
    Err(ConfigError::new(key, problem))
}

/// Whose rows a transaction may see, where row-level security is on.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of one account.
    Account(AccountId),
    /// Those of all accounts: for work that no user asked for, and for look-ups by a secret.
    AllAccounts,
}

impl Scope {
    /// What begins a transaction with this scope, in one round trip. First of all what somebody else may have left open is
    /// rolled back; that is begun before, because the server warns in its log of a rollback of nothing.
    fn begin(&self) -> String {
        let setting = match self {
            // Its alphabet has no quote.
            Self::Account(account) => account.as_str(),
            Self::AllAccounts => "*",
        };
        format!("BEGIN; ROLLBACK; BEGIN; SET LOCAL octroi.account_id = '{setting}'")
    }
}

/// What a task of its own answered. Its panic goes on here.
///
/// # Errors
/// The task's own, or [`DatabaseError::Stopping`] where it was ended with the process.
pub fn joined<T, E: From<DatabaseError>>(task: Result<Result<T, E>, JoinError>) -> Result<T, E> {
    match task {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(DatabaseError::Stopping.into()),
    }
}

/// The version in the one row of the schema's table `catalog`, or 0 where none was applied yet. Nobody else
/// changes it before the transaction ends.
///
/// # Errors
/// [`DatabaseError`].
pub async fn lock_catalog_version(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    sqlx::query("LOCK TABLE catalog IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *connection)
        .await?;
    let version: Option<i64> = sqlx::query_scalar("SELECT version FROM catalog")
        .fetch_optional(connection)
        .await?;
    u64::try_from(version.unwrap_or(0)).map_err(corrupt("catalog version"))
}

/// A time as sqlx takes it. The store is the only room that needs it.
#[must_use]
pub fn to_sql(at: Timestamp) -> OffsetDateTime {
    // Both cover the years -9999 to 9999.
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanosecond()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The instant as the database keeps it, in whole microseconds.
#[must_use]
pub fn as_stored(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// A time as the domain takes it.
#[must_use]
pub fn from_sql(at: OffsetDateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A service's database. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    runtime: Handle,
    clock: Clock,
}

impl Db {
    /// Connects as `service` and asks the primary for the time. In a sandbox the clock is one that
    /// [`Db::move_clock`] moves.
    ///
    /// # Errors
    /// [`DatabaseError`] where it cannot be reached; the first connection is tried for 10 s.
    pub async fn connect(
        config: &DatabaseConfig,
        service: &'static str,
        sandbox: bool,
    ) -> Result<Self, DatabaseError> {
        let options = connect_options(config, service)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.connections_max)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(2))
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let clock = first_time(&pool, sandbox).await?;
        Ok(Self {
            pool,
            runtime: Handle::current(),
            clock,
        })
    }

    /// The clock that follows this database's primary.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The pool, for what needs its own connection: migrations, tests.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs `work` in one transaction, which is committed where it succeeds and rolled back where it
    /// fails. It runs to its end even when the caller does not wait for it any more.
    ///
    /// # Errors
    /// What `work` answers, or a [`DatabaseError`] of beginning and committing.
    pub async fn transaction<T, E, F>(&self, scope: Scope, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let pool = self.pool.clone();
        let task = async move {
            let mut connection = pool.acquire().await.map_err(DatabaseError::from)?;
            let error = match connection.begin_with(AssertSqlSafe(scope.begin())).await {
                Ok(mut transaction) => {
                    let answer = work(&mut transaction).await?;
                    transaction.commit().await.map_err(DatabaseError::from)?;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // Whatever state it is in, nobody else gets it.
            connection.close_on_drop();
            Err(DatabaseError::from(error).into())
        };
        joined(self.runtime.spawn(task.in_current_span()).await)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`DatabaseError`] where it does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        let pool = self.pool.clone();
        let ping = self
            .runtime
            .spawn(async move { sqlx::query("SELECT 1").execute(&pool).await });
        ping.await.map_err(|_| DatabaseError::Stopping)??;
        Ok(())
    }

    /// Moves the test clock of every process of this service to `offset_us` microseconds from the primary's
    /// time; each of them reads it within a second. Processes outside of a sandbox never look.
    ///
    /// # Errors
    /// [`DatabaseError`] where it cannot be written; `RowsAffected` where the schema has no test clock.
    pub async fn move_clock(&self, offset_us: i64) -> Result<(), DatabaseError> {
        let moved = sqlx::query("UPDATE test_clock SET offset_us = $1")
            .bind(offset_us)
            .execute(&self.pool)
            .await?;
        expect_rows(1, moved.rows_affected())
    }

    /// Corrects the clock by the primary's time, and a test clock by its row, each second until `stop`.
    pub async fn keep_time(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sample_time().await {
                tracing::debug!(error = %error, "the primary did not tell the time");
            }
        }
    }

    async fn sample_time(&self) -> Result<(), DatabaseError> {
        if self.clock.is_test() {
            self.clock.set_offset_us(offset_us_of(&self.pool).await?);
        }
        self.clock.sample(time_of(&self.pool).await?);
        Ok(())
    }
}

fn connect_options(config: &DatabaseConfig, service: &str) -> Result<PgConnectOptions, DatabaseError> {
    Ok(PgConnectOptions::from_str(config.url.expose())?
        .application_name(&format!("octroi-{service}"))
        .statement_cache_capacity(256)
        .options([
            ("search_path", service),
            ("timezone", "UTC"),
            ("statement_timeout", "5000"),
            ("lock_timeout", "2000"),
            ("idle_in_transaction_session_timeout", "5000"),
            // Statements are planned once, maybe while their tables are empty, and look up a few keys each: none may be
            // planned as a walk through a table that has many rows later. This does not keep the planner from joining two
            // lists row by row: whoever looks up many keys does it in a `LATERAL` that ends with `OFFSET 0` or `FOR
            // UPDATE`, and whoever changes many rows names them by `ON CONFLICT` or by `= ANY` alone
            // (docs/decisions/0006-many-keys.md).
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            // ROLLBACK without a transaction warns, at every acquire.
            ("client_min_messages", "error"),
        ]))
}

async fn first_time(pool: &PgPool, sandbox: bool) -> Result<Clock, DatabaseError> {
    let mut tries = 0;
    loop {
        match clock_of(pool, sandbox).await {
            Ok(clock) => return Ok(clock),
            Err(DatabaseError::Unavailable(error)) if tries < 5 => {
                tries += 1;
                tracing::warn!(error = %error, "waiting for the database");
                tokio::time::sleep(Duration::from_millis(200 * tries)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn clock_of(pool: &PgPool, sandbox: bool) -> Result<Clock, DatabaseError> {
    let now = time_of(pool).await?;
    if !sandbox {
        return Ok(Clock::database(now));
    }
    let clock = Clock::test(now);
    // A schema is migrated after this; one that has no row yet was never moved.
    let has_row: bool = sqlx::query_scalar("SELECT to_regclass('test_clock') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    if has_row {
        clock.set_offset_us(offset_us_of(pool).await?);
    }
    Ok(clock)
}

/// How far the service's test clock is from the primary's time, in microseconds.
async fn offset_us_of(pool: &PgPool) -> Result<i64, DatabaseError> {
    Ok(sqlx::query_scalar("SELECT offset_us FROM test_clock")
        .fetch_one(pool)
        .await?)
}

/// The primary's time. A standby is refused: no decision is made on a copy.
async fn time_of(pool: &PgPool) -> Result<Timestamp, DatabaseError> {
    let (now, standby): (OffsetDateTime, bool) =
        sqlx::query_as("SELECT clock_timestamp(), pg_is_in_recovery()")
            .fetch_one(pool)
            .await?;
    if standby {
        return Err(DatabaseError::Unavailable(sqlx::Error::Protocol(
            "the address leads to a standby".into(),
        )));
    }
    Ok(from_sql(now))
}

/// Brings the schema up to date.
///
/// # Errors
/// Where a migration fails or was changed after it ran.
pub async fn migrate_up(db: &Db, migrator: &Migrator) -> Result<(), MigrateError> {
    let mut connection = db.pool.acquire().await?;
    // Building an index may take longer than a call may.
    connection.execute("SET statement_timeout = 0").await?;
    migrator.run_direct(None, &mut *connection, false).await?;
    connection.execute("RESET statement_timeout").await?;
    Ok(())
}

/// Takes the schema back to the state after migration `target`; 0 takes back everything.
///
/// # Errors
/// Where a migration fails or was changed after it ran.
pub async fn migrate_down(db: &Db, migrator: &Migrator, target: i64) -> Result<(), MigrateError> {
    let mut connection = db.pool.acquire().await?;
    connection.execute("SET statement_timeout = 0").await?;
    migrator.undo(&mut *connection, target).await?;
    Ok(())
}

/// The migrations that the schema lacks.
///
/// # Errors
/// [`DatabaseError`] where it cannot be asked.
pub async fn pending_migrations(db: &Db, migrator: &Migrator) -> Result<Vec<i64>, DatabaseError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&db.pool)
        .await?;
    let applied: Vec<i64> = if exists {
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(&db.pool)
            .await?
    } else {
        Vec::new()
    };
    Ok(migrator
        .iter()
        .filter(|migration| {
            migration.migration_type.is_up_migration() && !applied.contains(&migration.version)
        })
        .map(|migration| migration.version)
        .collect())
}
