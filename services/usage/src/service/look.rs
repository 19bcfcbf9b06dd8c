//! Finished hours are looked at for use out of the ordinary: each hour of UTC once, by one process, in batches.

mod batch;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp, ToSpan as _, tz::TimeZone};
use octroi_core::{AccountId, MetricKind, Window};
use octroi_kit::{
    db::{DatabaseError, Scope, corrupt},
    directory::DirectoryError,
    outbox::Wake,
};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::batch::{Asked, look_at_batch};
use super::Service;
use crate::{
    config,
    domain::anomaly::{HOUR, Rules, Todo, WEEKS_MIN, hours_ended, plan, reach_back, samples_of},
    error::Error,
    store::{self, Look, Series},
};

/// How often a process asks whether there is something to look at.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// What other work gets between two batches.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the look is a process's that does not say anything.
const TERM: Duration = Duration::from_secs(60);
/// The accounts and metrics of one batch: some 4,000 hours are read for them.
const BATCH: i32 = 400;
/// No hour is begun while the rollups lack more events than these: it might seem less than it is.
const LAG_EVENTS_MAX: u64 = 10_000;
/// How long an anomaly is kept, from its end: 13 months.
const KEPT_HOURS: i64 = 400 * 24;
/// How many are deleted after each hour.
const DELETED_AT_ONCE: i64 = 1_000;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing: it is not time, or another process does it.
    Idle,
    /// Some; there may be more.
    On,
}

/// One process's look at hours.
struct Lookout {
    service: Service,
    rules: Rules,
    grace: SignedDuration,
    account_day_max: u32,
    holder: Uuid,
    wake: Wake,
}

/// Accounts and metrics that are looked at together.
struct Batch {
    /// The hour of UTC.
    hour_at: Timestamp,
    /// With the first quarter of an hour in which each was used, where it was.
    series: Vec<(Series, Option<Timestamp>)>,
}

impl Service {
    /// Looks at finished hours, until `stop`.
    pub async fn look_at_hours(self, anomalies: config::Anomalies, wake: Wake, stop: CancellationToken) {
        let lookout = Lookout {
            service: self,
            rules: anomalies.rules(),
            grace: SignedDuration::from_secs(anomalies.grace_s.into()),
            account_day_max: anomalies.account_day_max,
            holder: Uuid::new_v4(),
            wake,
        };
        loop {
            let pause = match lookout.look_on().await {
                Ok(Progress::On) => PAUSE,
                Ok(Progress::Idle) => ASK_EVERY,
                Err(error) => {
                    tracing::warn!(error = %error, "finished hours are not looked at; trying again");
                    ASK_EVERY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = lookout.release().await {
            tracing::warn!(error = %error, "another process looks at hours only after this one's term");
        }
    }
}

impl Lookout {
    /// Leaves the look to others at once.
    async fn release(&self) -> Result<(), Error> {
        let holder = self.holder;
        self.transaction(move |connection| {
            Box::pin(async move { Ok(store::release_look(connection, holder).await?) })
        })
        .await
    }

    async fn look_on(&self) -> Result<Progress, Error> {
        let now = self.service.db.clock().now();
        let Some(batch) = self.claim(now).await? else {
            return Ok(Progress::Idle);
        };
        let Some((last, _)) = batch.series.last() else {
            self.finish(batch.hour_at, now).await?;
            return Ok(Progress::On);
        };
        let to = Look {
            hour_at: Some(batch.hour_at),
            after: last.clone(),
        };
        // Nobody waits for the network in a transaction.
        let asked = self.asked(&batch).await?;
        let (holder, rules, account_day_max) = (self.holder, self.rules, self.account_day_max);
        let told = self
            .transaction(move |connection| {
                Box::pin(async move {
                    let told = look_at_batch(connection, &asked, &rules, account_day_max, now).await?;
                    store::move_look(connection, holder, &to).await?;
                    Ok(told)
                })
            })
            .await?;
        if told {
            self.wake.wake();
        }
        Ok(Progress::On)
    }

    /// What is looked at next; none where it is not time, or another process has the look.
    async fn claim(&self, now: Timestamp) -> Result<Option<Batch>, Error> {
        let (holder, weeks, grace) = (self.holder, self.rules.weeks, self.grace);
        self.transaction(move |connection| {
            Box::pin(async move {
                let Some(look) = store::claim_look(connection, holder, TERM).await? else {
                    return Ok(None);
                };
                let Todo::Look(hour_at) = plan(look.hour_at, now, grace) else {
                    return Ok(None);
                };
                let goes_on = look.hour_at == Some(hour_at) && look.after != Series::default();
                if !goes_on && store::count_rollup_lag(connection).await? > LAG_EVENTS_MAX {
                    tracing::warn!(hour = %hour_at, "an hour is not looked at yet, because the rollups are far behind");
                    return Ok(None);
                }
                let after = if goes_on { look.after } else { Series::default() };
                let range = Window {
                    start: reach_back(hour_at, weeks),
                    end: hour_at,
                };
                let metrics = summed_metrics(connection).await?;
                let metrics: Vec<&str> = metrics.iter().map(String::as_str).collect();
                let series = store::list_series(connection, &after, range, &metrics, BATCH).await?;
                Ok(Some(Batch { hour_at, series }))
            })
        })
        .await
    }

    /// The hours of a batch, and what each is compared with.
    async fn asked(&self, batch: &Batch) -> Result<Vec<Asked>, Error> {
        let young = batch
            .hour_at
            .saturating_sub(SignedDuration::from_hours(i64::from(WEEKS_MIN - 1) * 7 * 24))
            .unwrap_or(Timestamp::MIN);
        let series: Vec<(&Series, Timestamp)> = (batch.series.iter())
            .filter_map(|(series, first_at)| Some((series, (*first_at)?)))
            .filter(|(_, first_at)| *first_at < young)
            .collect();
        let zones = self.zones(series.iter().map(|(series, _)| *series)).await?;
        let mut asked = Vec::with_capacity(series.len());
        for (series, first_at) in series {
            let Some(zone) = zones.get(series.account.as_str()) else {
                continue;
            };
            for hour in hours_ended(batch.hour_at, zone) {
                let samples = samples_of(hour, zone, self.rules.weeks, first_at);
                if samples.len() >= usize::try_from(WEEKS_MIN).unwrap_or(usize::MAX) {
                    asked.push(Asked {
                        series: series.clone(),
                        hour,
                        samples,
                    });
                }
            }
        }
        Ok(asked)
    }

    /// The zones of accounts that are open.
    async fn zones<'s>(
        &self,
        series: impl Iterator<Item = &'s Series>,
    ) -> Result<HashMap<&'s str, TimeZone>, Error> {
        let accounts: BTreeSet<&str> = series.map(|series| series.account.as_str()).collect();
        let questions = accounts.into_iter().map(async |account| {
            let id = AccountId::parse(account).map_err(corrupt("account id"))?;
            match self.service.directory.get(&id).await {
                Ok(known) => Ok(Some((account, known.zone.clone()))),
                Err(DirectoryError::NotFound(_) | DirectoryError::Closed(_)) => Ok(None),
                Err(error) => Err(Error::from(error)),
            }
        });
        let answers: Result<Vec<_>, Error> = join_all(questions).await.into_iter().collect();
        Ok(answers?.into_iter().flatten().collect())
    }

    /// All of an hour was looked at.
    async fn finish(&self, hour_at: Timestamp, now: Timestamp) -> Result<(), Error> {
        let holder = self.holder;
        let to = Look {
            hour_at: Some(hour_at.saturating_add(HOUR).unwrap_or(hour_at)),
            after: Series::default(),
        };
        let before = now.saturating_sub(KEPT_HOURS.hours()).unwrap_or(Timestamp::MIN);
        self.transaction(move |connection| {
            Box::pin(async move {
                store::delete_anomalies_before(connection, before, DELETED_AT_ONCE).await?;
                Ok(store::move_look(connection, holder, &to).await?)
            })
        })
        .await
    }

    async fn transaction<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> futures::future::BoxFuture<'c, Result<T, Error>>
            + Send
            + 'static,
    {
        self.service.db.transaction(Scope::AllAccounts, work).await
    }
}

/// The metrics whose hours are looked at: flows that are summed or counted. The rollups say of a level what was taken, not
/// what is held; the largest, the newest and distinct values are no sums.
async fn summed_metrics(connection: &mut PgConnection) -> Result<Vec<String>, DatabaseError> {
    let metrics = store::list_metrics(connection).await?.into_iter();
    let summed = metrics
        .filter(|(_, counting)| counting.kind == MetricKind::Flow && counting.aggregation.may_be_limited());
    Ok(summed.map(|(metric, _)| metric.to_string()).collect())
}
