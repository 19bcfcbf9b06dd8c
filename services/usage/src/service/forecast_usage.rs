//! `ForecastUsage`: when limits will be reached.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricKind, MetricSlug, Window};
use octroi_kit::db::{DatabaseError, Scope};

use super::Service;
use crate::{
    domain::{
        buckets::quarter_of,
        forecast::{Forecast, History, Target, WEEKS_MAX, forecast},
    },
    error::Error,
    store::{self, Series},
};

/// Forecasts of limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecasts {
    /// One a target, in the order asked; none where there is nothing to go by.
    pub forecasts: Vec<(MetricSlug, Option<Forecast>)>,
    /// When they were made.
    pub as_of: Timestamp,
}

impl Service {
    /// When each limit will be reached, or what its window will have used by its end.
    ///
    /// # Errors
    /// [`Error`] where the account or a metric does not exist.
    pub async fn forecast_usage(&self, account: AccountId, targets: Vec<Target>) -> Result<Forecasts, Error> {
        let zone = self.directory.get(&account).await?.zone.clone();
        let catalog = self
            .catalog
            .with(targets.iter().map(|target| &target.metric))
            .await?;
        let mut summed = BTreeSet::new();
        for (index, target) in targets.iter().enumerate() {
            let Some(counting) = catalog.get(&target.metric) else {
                return Err(Error::MetricNotFound {
                    metric: target.metric.clone(),
                    field: format!("targets[{index}].metric"),
                });
            };
            // Of a level the rollups do not know what was given back; what is no sum has no limit.
            if counting.kind == MetricKind::Flow && counting.aggregation.may_be_limited() {
                summed.insert(target.metric.clone());
            }
        }
        let now = self.db.clock().now();
        let histories = self.histories(account, summed, now).await?;
        let mut forecasts = Vec::with_capacity(targets.len());
        for target in targets {
            let history = histories.get(&target.metric);
            let made = history.and_then(|history| forecast(&target, history, now, &zone));
            forecasts.push((target.metric, made));
            // A lifetime is some thousand hours of eight weeks; others have their turn in between.
            tokio::task::yield_now().await;
        }
        Ok(Forecasts {
            forecasts,
            as_of: now,
        })
    }

    /// What each metric used in the weeks before.
    async fn histories(
        &self,
        account: AccountId,
        metrics: BTreeSet<MetricSlug>,
        now: Timestamp,
    ) -> Result<HashMap<MetricSlug, History>, DatabaseError> {
        let end = quarter_of(now);
        // A day more, because the same time of the local clock may be an hour earlier.
        let back = SignedDuration::from_hours(i64::from(WEEKS_MAX) * 7 * 24 + 24);
        let range = Window {
            start: end.saturating_sub(back).unwrap_or(Timestamp::MIN),
            end,
        };
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let mut histories = HashMap::with_capacity(metrics.len());
                    for metric in metrics {
                        let series = Series {
                            account: account.to_string(),
                            metric: metric.to_string(),
                        };
                        let quarters = store::list_quarters(connection, &series, range).await?;
                        histories.insert(metric, History::new(range, quarters));
                    }
                    Ok(histories)
                })
            })
            .await
    }
}
