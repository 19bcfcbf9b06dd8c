//! `GetUsageStats`: figures over a range, from the rollups.

use jiff::tz::TimeZone;
use octroi_core::{AccountId, Aggregation, MetricSlug, Period, Window};
use octroi_kit::db::{DatabaseError, Scope};

use super::Service;
use crate::{
    domain::{buckets, sums::MetricStats},
    error::Error,
    store,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct StatsQuery {
    /// The account.
    pub account: AccountId,
    /// The metrics.
    pub metrics: Vec<MetricSlug>,
    /// The range.
    pub range: Window,
    /// HOUR, DAY or MONTH.
    pub granularity: Period,
    /// The zone; none means the account's.
    pub zone: Option<TimeZone>,
}

/// The use over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageStats {
    /// One a metric, in the order asked.
    pub metrics: Vec<MetricStats>,
    /// The zone whose hours, days and months these are.
    pub zone: String,
}

impl Service {
    /// Figures over a range, cut by the granularity; a bucket without use is there with 0.
    ///
    /// # Errors
    /// [`Error`] where account or metric do not exist, or the range cannot be cut.
    pub async fn get_usage_stats(&self, query: StatsQuery) -> Result<UsageStats, Error> {
        let account = self.directory.get(&query.account).await?;
        let aggregations = self.catalog.aggregations(&query.metrics).await?;
        let (zone, zone_name) = match query.zone {
            Some(zone) => {
                let name = zone.iana_name().unwrap_or("UTC").to_owned();
                (zone, name)
            }
            None => (account.zone.clone(), account.zone_name.clone()),
        };
        let windows = buckets::cut(query.range, query.granularity, &zone)?;
        let (account, metrics) = (query.account, query.metrics);
        let asked = metrics.iter().cloned().zip(aggregations);
        let asked: Vec<(MetricSlug, Aggregation)> = asked.collect();
        let unique = asked
            .iter()
            .filter(|(_, aggregation)| *aggregation == Aggregation::Unique);
        let unique: Vec<MetricSlug> = unique.map(|(metric, _)| metric.clone()).collect();
        let (mut figures, windows) = self
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let figures =
                        store::sum_windows(connection, &account, &metrics, &unique, &windows).await?;
                    Ok::<_, DatabaseError>((figures, windows))
                })
            })
            .await?;
        let metrics = asked.into_iter().map(|(metric, aggregation)| {
            let buckets = windows.iter().enumerate().map(|(place, window)| {
                let found = figures.remove(&(metric.clone(), place));
                (*window, found.unwrap_or_default())
            });
            MetricStats {
                buckets: buckets.collect(),
                metric,
                aggregation,
            }
        });
        Ok(UsageStats {
            metrics: metrics.collect(),
            zone: zone_name,
        })
    }
}
