//! What the databases and the broker say once everything is healed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::FieldTable,
};
use octroi_proto::{common::v1::Period, quota::v1::GetCurrentUsageRequest};
use sqlx::{Connection as _, PgConnection};

use super::{
    oracle::{Backlog, Entry, Figures, Found, Limit, Rollup, Threshold, Window},
    plan::{REQUESTS, TOKENS},
    rules::QUEUES,
    run::Place,
};

/// The services whose outboxes lie on the way of what was recorded.
const OUTBOXES: &str = "SELECT (SELECT count(*) FROM usage.outbox) + (SELECT count(*) FROM quota.outbox)";

/// Buckets of the rollups beside what the ledger has of their time; a bucket that only one of them has is there as well.
const ROLLUPS: &str = "
    WITH quarter AS (
        SELECT account_id, metric, date_bin('15 minutes', event_at, 'epoch'::timestamptz) AS bucket_at,
               count(*) AS events, sum(amount)::bigint AS amount
        FROM usage.ledger WHERE account_id = ANY ($1) GROUP BY 1, 2, 3),
    expected AS (
        SELECT 'quarter' AS width, * FROM quarter
        UNION ALL
        SELECT 'day', account_id, metric, date_trunc('day', bucket_at, 'UTC'), sum(events)::bigint, sum(amount)::bigint
        FROM quarter GROUP BY 2, 3, 4),
    rolled AS (
        SELECT 'quarter' AS width, account_id, metric, bucket_at, events::bigint, amount::bigint
        FROM usage.rollup_quarter WHERE account_id = ANY ($1)
        UNION ALL
        SELECT 'day', account_id, metric, bucket_at, events::bigint, amount::bigint
        FROM usage.rollup_day WHERE account_id = ANY ($1))
    SELECT concat_ws(' ', width, account_id, metric, bucket_at), coalesce(expected.events, 0), coalesce(expected.amount, 0),
           coalesce(rolled.events, 0), coalesce(rolled.amount, 0)
    FROM expected FULL JOIN rolled USING (width, account_id, metric, bucket_at)";

const WINDOWS: &str = "
    SELECT account_id, metric, period, extract(epoch FROM start_at)::bigint, used::bigint, overrun::bigint,
        (SELECT coalesce(sum(amount), 0)::bigint FROM usage.ledger AS event
         WHERE event.account_id = one.account_id AND event.metric = one.metric
           AND event.event_at >= start_at AND event.event_at < end_at)
    FROM quota.quota_window AS one WHERE account_id = ANY ($1)";

/// Keys without an event of the ledger, and events of it without a key.
const KEYS_APART: &str = "
    SELECT count(*) FILTER (WHERE event.key IS NULL), count(*) FILTER (WHERE known.key IS NULL)
    FROM (SELECT key FROM usage.event_key WHERE NOT denied) AS known
    FULL JOIN (SELECT usage.event_key_of(account_id, source, event_id) AS key FROM usage.ledger) AS event USING (key)";

const NOTICES: &str = "
    SELECT account_id, facts ->> 'metric', facts ->> 'period',
           extract(epoch FROM (facts ->> 'window_start_time')::timestamptz)::bigint, (facts ->> 'percent')::integer
    FROM notification.notice WHERE account_id = ANY ($1)";

/// Whose books are read.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Where.
    pub place: Place,
    /// The accounts.
    pub accounts: Vec<String>,
    /// The source of the run's events.
    pub source: String,
}

type WindowColumns = (String, String, String, i64, i64, i64, i64);
type ThresholdColumns = (String, String, String, i64, i32);

impl Reader {
    /// What is still to be done.
    ///
    /// # Errors
    /// When the database or the broker does not answer.
    pub async fn backlog(&self) -> Result<Backlog> {
        let mut session = self.place.database().await?;
        let lag = sqlx::query_scalar("SELECT coalesce(sum(events), 0)::bigint FROM usage.rollup_lag");
        let lag: i64 = lag.fetch_one(&mut session).await?;
        let outbox: i64 = sqlx::query_scalar(OUTBOXES).fetch_one(&mut session).await?;
        session.close().await?;
        let broker = Broker::open(&self.place).await?;
        let mut waiting = 0;
        for queue in QUEUES.into_iter().chain(["notification.thresholds"]) {
            waiting += broker.depth(queue).await?;
        }
        broker.close().await?;
        Ok(Backlog {
            lag,
            outbox: units(outbox)?,
            waiting,
        })
    }

    /// All of it.
    ///
    /// # Errors
    /// When the database, the broker or quota does not answer.
    pub async fn read(&self) -> Result<Found> {
        let backlog = self.backlog().await?;
        let mut session = self.place.database().await?;
        let (crossed, fired) = self.crossed(&mut session).await?;
        let found = Found {
            ledger: self.ledger(&mut session).await?,
            keys_apart: keys_apart(&mut session).await?,
            rollups: self.rollups(&mut session).await?,
            totals: self.totals(&mut session).await?,
            windows: self.windows(&mut session).await?,
            crossed,
            fired,
            told: self.thresholds(&mut session, NOTICES).await?,
            limits: self.limits().await?,
            dead: dead(&self.place).await?,
            backlog,
            ..Found::default()
        };
        session.close().await?;
        Ok(found)
    }

    async fn ledger(&self, session: &mut PgConnection) -> Result<Vec<Entry>> {
        type Columns = (String, String, String, i64, i64, Option<String>);
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT event_id, account_id, metric, amount, (extract(epoch FROM event_at) * 1000)::bigint,
                    properties ->> 'region'
             FROM usage.ledger WHERE source = $1",
        )
        .bind(&self.source)
        .fetch_all(session)
        .await?;
        let entry = |(event_id, account, metric, amount, at_ms, region): Columns| {
            Ok(Entry {
                event_id,
                account,
                metric,
                amount: units(amount)?,
                at_ms,
                region,
            })
        };
        rows.into_iter().map(entry).collect()
    }

    async fn rollups(&self, session: &mut PgConnection) -> Result<Vec<Rollup>> {
        let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(ROLLUPS)
            .bind(&self.accounts)
            .fetch_all(session)
            .await?;
        let figures = |events, amount| {
            anyhow::Ok(Figures {
                events: units(events)?,
                amount: units(amount)?,
            })
        };
        let rollup = |(bucket, events, amount, rolled_events, rolled_amount)| {
            Ok(Rollup {
                bucket,
                ledger: figures(events, amount)?,
                rollup: figures(rolled_events, rolled_amount)?,
            })
        };
        rows.into_iter().map(rollup).collect()
    }

    async fn totals(&self, session: &mut PgConnection) -> Result<BTreeMap<(String, String), u64>> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT account_id, metric, sum(amount)::bigint FROM usage.ledger WHERE account_id = ANY ($1) GROUP BY 1, 2",
        )
        .bind(&self.accounts)
        .fetch_all(session)
        .await?;
        let total = |(account, metric, amount)| Ok(((account, metric), units(amount)?));
        rows.into_iter().map(total).collect()
    }

    async fn windows(&self, session: &mut PgConnection) -> Result<Vec<Window>> {
        let rows: Vec<WindowColumns> = sqlx::query_as(WINDOWS)
            .bind(&self.accounts)
            .fetch_all(session)
            .await?;
        let window = |(account, metric, period, start, used, overrun, ledger): WindowColumns| {
            Ok(Window {
                account,
                metric,
                period,
                start,
                used: units(used)?,
                overrun: units(overrun)?,
                ledger: units(ledger)?,
            })
        };
        rows.into_iter().map(window).collect()
    }

    async fn crossed(
        &self,
        session: &mut PgConnection,
    ) -> Result<(BTreeSet<Threshold>, BTreeSet<Threshold>)> {
        let all = "SELECT account_id, metric, period, extract(epoch FROM start_at)::bigint, threshold_percent
                   FROM quota.crossed_threshold WHERE account_id = ANY ($1)";
        let fired =
            "SELECT account_id, metric, period, extract(epoch FROM start_at)::bigint, threshold_percent
                     FROM quota.crossed_threshold WHERE account_id = ANY ($1) AND notified";
        let all = self.thresholds(session, all).await?.into_iter().collect();
        let fired = self.thresholds(session, fired).await?.into_iter().collect();
        Ok((all, fired))
    }

    async fn thresholds(&self, session: &mut PgConnection, question: &'static str) -> Result<Vec<Threshold>> {
        let rows: Vec<ThresholdColumns> = sqlx::query_as(question)
            .bind(&self.accounts)
            .fetch_all(session)
            .await?;
        let threshold = |(account, metric, period, start, percent): ThresholdColumns| {
            Ok(Threshold {
                account,
                metric,
                period,
                start,
                percent: u32::try_from(percent)?,
            })
        };
        rows.into_iter().map(threshold).collect()
    }

    /// The limits of any of the accounts: none of them has bought anything.
    async fn limits(&self) -> Result<Vec<Limit>> {
        let request = GetCurrentUsageRequest {
            account_id: self.accounts.first().context("no account")?.clone(),
            metrics: vec![REQUESTS.to_owned(), TOKENS.to_owned()],
        };
        let mut quota = self.place.clients.quota.clone();
        let usage = quota.get_current_usage(request).await?.into_inner();
        let limit = |limit: octroi_proto::quota::v1::LimitStatus| {
            let period = match limit.period() {
                Period::Hour => "hour",
                Period::Day => "day",
                Period::Month => "month",
                _ => "lifetime",
            };
            Limit {
                metric: limit.metric,
                period: period.to_owned(),
                amount: limit.limit,
            }
        };
        Ok(usage.limits.into_iter().map(limit).collect())
    }
}

async fn keys_apart(session: &mut PgConnection) -> Result<(u64, u64)> {
    let (without_event, without_key): (i64, i64) = sqlx::query_as(KEYS_APART).fetch_one(session).await?;
    Ok((units(without_event)?, units(without_key)?))
}

/// The dead letters of each queue, by what is in them. They stay there.
async fn dead(place: &Place) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let broker = Broker::open(place).await?;
    let mut dead = BTreeMap::new();
    for queue in QUEUES {
        let mut letters = BTreeSet::new();
        let name = broker.name(&format!("{queue}.dead"));
        while let Some(got) = (broker.channel)
            .basic_get(name.as_str().into(), BasicGetOptions::default())
            .await?
        {
            letters.insert(String::from_utf8_lossy(&got.delivery.data).into_owned());
        }
        dead.insert(queue.to_owned(), letters);
    }
    broker.close().await?;
    Ok(dead)
}

/// Takes the dead letters away that runs before left.
///
/// # Errors
/// When the broker does not answer.
pub async fn forget_dead_letters(place: &Place) -> Result<()> {
    let broker = Broker::open(place).await?;
    for queue in QUEUES {
        let name = broker.name(&format!("{queue}.dead"));
        let purging = (broker.channel).queue_purge(name.as_str().into(), QueuePurgeOptions::default());
        purging.await?;
    }
    broker.close().await
}

/// A session with the broker, past the proxy.
#[derive(Debug)]
pub struct Broker {
    connection: Connection,
    /// Where everything is asked.
    pub channel: Channel,
    namespace: String,
}

impl Broker {
    /// Opens it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open(place: &Place) -> Result<Self> {
        let connection = Connection::connect(&place.broker, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self {
            connection,
            channel,
            namespace: place.namespace.clone(),
        })
    }

    /// What a queue or an exchange is called there.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace)
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = self.name(queue);
        let declaring = (self.channel).queue_declare(name.as_str().into(), passive, FieldTable::default());
        Ok(declaring.await?.message_count().into())
    }

    /// Closes it. What was looked at goes back to where it was.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn close(self) -> Result<()> {
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}

fn units(amount: i64) -> Result<u64> {
    u64::try_from(amount).context("a negative sum")
}
