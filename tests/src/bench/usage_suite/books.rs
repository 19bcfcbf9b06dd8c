//! What PostgreSQL has of what was recorded: the oracle of this bench, which asks no service.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::runtime::Runtime;

/// How long what was recorded may take to be everywhere.
const SETTLE_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who takes commits of the ledger besides its rollups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followers {
    /// Nobody.
    None,
    /// Quota, whose windows follow.
    Quota,
}

/// A look at a database from beside.
#[derive(Debug)]
pub(super) struct Books<'a> {
    runtime: &'a Runtime,
    url: String,
    followers: Followers,
}

/// What callers were told is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Events that were not there before.
    pub(super) events: u64,
    /// Their units.
    pub(super) units: u64,
}

/// What the books have of some accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Recorded {
    /// Rows of the ledger.
    pub(super) events: i64,
    /// Their units as the ledger has them.
    pub(super) units: i64,
    /// Events as the rollups of days have them.
    pub(super) day_events: i64,
    /// Units as the rollups of quarters of an hour have them.
    pub(super) quarter_units: i64,
}

impl<'a> Books<'a> {
    /// A look as the superuser at `url`.
    pub(super) fn new(runtime: &'a Runtime, url: &str, followers: Followers) -> Self {
        Self {
            runtime,
            url: url.to_owned(),
            followers,
        }
    }

    /// A session of the superuser's.
    pub(super) async fn session(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Runs statements that answer nothing.
    pub(super) fn execute(&self, statements: &str) -> Result<()> {
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
                .execute(&mut session)
                .await?;
            Ok(session.close().await?)
        })
    }

    /// Waits until whatever follows the ledger has all of it, and says how long that took until the rollups had it.
    ///
    /// # Errors
    /// When it does not get there.
    pub(super) fn settle(&self) -> Result<Duration> {
        let since = Instant::now();
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            let mut summed_after = None;
            loop {
                let lag = rollup_lag(&mut session).await?;
                if lag == 0 {
                    let summed_after = *summed_after.get_or_insert_with(|| since.elapsed());
                    if self.is_quiet(&mut session).await? {
                        session.close().await?;
                        return Ok(summed_after);
                    }
                }
                ensure!(
                    since.elapsed() < SETTLE_MAX,
                    "the rollups lack {lag} events, or others lack some, after {} s",
                    SETTLE_MAX.as_secs()
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Whether no commit is on its way any more: every one has left the outbox, and quota has taken as many as the rollups.
    async fn is_quiet(&self, session: &mut PgConnection) -> Result<bool> {
        const OUTBOX: &str = "SELECT count(*) = 0 FROM usage.outbox";
        const TAKEN: &str = "SELECT (SELECT count(*) FROM usage.inbox WHERE consumer = 'usage.rollup')
             = (SELECT count(*) FROM quota.inbox WHERE consumer = 'quota.usage')
             AND NOT EXISTS (SELECT FROM quota.outbox)";
        let sent: bool = sqlx::query_scalar(OUTBOX).fetch_one(&mut *session).await?;
        Ok(sent
            && match self.followers {
                Followers::None => true,
                Followers::Quota => sqlx::query_scalar(TAKEN).fetch_one(session).await?,
            })
    }

    /// What the rollups lack now, in events.
    pub(super) async fn lag(&self) -> Result<i64> {
        let mut session = self.session().await?;
        let lag = rollup_lag(&mut session).await?;
        session.close().await?;
        Ok(lag)
    }

    /// What the books have of accounts by the beginning of their names.
    pub(super) fn recorded(&self, accounts: &str) -> Result<Recorded> {
        const RECORDED: &str = "SELECT
                (SELECT count(*) FROM usage.ledger WHERE account_id LIKE $1) AS events,
                (SELECT coalesce(sum(amount), 0)::bigint FROM usage.ledger WHERE account_id LIKE $1) AS units,
                (SELECT coalesce(sum(events), 0)::bigint FROM usage.rollup_day WHERE account_id LIKE $1) AS day_events,
                (SELECT coalesce(sum(amount), 0)::bigint FROM usage.rollup_quarter WHERE account_id LIKE $1) AS quarter_units";
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            let recorded = sqlx::query_as(RECORDED)
                .bind(format!("{accounts}-%"))
                .fetch_one(&mut session)
                .await?;
            session.close().await?;
            Ok(recorded)
        })
    }

    /// How many keys there are.
    fn keys(&self) -> Result<i64> {
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM usage.event_key")
                .fetch_one(&mut session)
                .await?;
            session.close().await?;
            Ok(keys)
        })
    }

    /// How many events or units are amiss, where these were acknowledged and nothing else was.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub(super) fn amiss(&self, acknowledged: &BTreeMap<String, Acknowledged>) -> Result<u64> {
        let (mut amiss, mut all) = (0, 0);
        for (accounts, expected) in acknowledged {
            let (events, units) = (i64::try_from(expected.events)?, i64::try_from(expected.units)?);
            let found = self.recorded(accounts)?;
            let expected = Recorded {
                events,
                units,
                day_events: events,
                quarter_units: units,
            };
            if found != expected {
                eprintln!("of {accounts} the books should have {expected:?}, and have {found:?}");
            }
            amiss += found.events.abs_diff(events) + found.units.abs_diff(units);
            amiss += found.day_events.abs_diff(events) + found.quarter_units.abs_diff(units);
            all += events;
        }
        let keys = self.keys()?;
        if keys != all {
            eprintln!("{all} events were acknowledged, and there are {keys} keys");
        }
        Ok(amiss + keys.abs_diff(all))
    }
}

async fn rollup_lag(session: &mut PgConnection) -> Result<i64> {
    const LAG: &str = "SELECT coalesce(sum(events), 0)::bigint FROM usage.rollup_lag";
    Ok(sqlx::query_scalar(LAG).fetch_one(session).await?)
}
