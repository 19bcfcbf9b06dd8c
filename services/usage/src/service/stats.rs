//! `GetUsageStats`: figures over a range, from the rollups, and from the ledger at the range's edges.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use octroi_core::{AccountId, Aggregation, MetricSlug, Period, Window};
use octroi_kit::db::{DatabaseError, Scope};
use sqlx::PgConnection;

use super::Service;
use crate::{
    domain::{
        buckets::{before, cut, whole_quarters},
        figures::Figures,
        sums::MetricStats,
    },
    error::Error,
    store::{self, Counted},
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
    /// Whether the period before is asked for as well.
    pub compare: bool,
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
        let catalog = self.catalog.with_all(&query.metrics).await?;
        let (zone, zone_name) = match query.zone {
            Some(zone) => {
                let name = zone.iana_name().unwrap_or("UTC").to_owned();
                (zone, name)
            }
            None => (account.zone.clone(), account.zone_name.clone()),
        };
        let windows = cut(query.range, query.granularity, &zone)?;
        let previous = if query.compare {
            before(&windows, query.granularity, &zone)
        } else {
            Vec::new()
        };
        let countings = query.metrics.iter().filter_map(|metric| catalog.get(metric));
        let aggregations: Vec<Aggregation> = countings.clone().map(|counting| counting.aggregation).collect();
        let unique = (query.metrics.iter().zip(countings))
            .filter_map(|(metric, counting)| Some((metric.clone(), counting.property.clone()?)));
        let counted = Counted {
            account: query.account.clone(),
            metrics: query.metrics.clone(),
            unique: unique.collect(),
            salt: catalog.salt(),
        };
        let all: Vec<Window> = windows.iter().chain(&previous).copied().collect();
        let mut figures = self
            .db
            .transaction(Scope::Account(query.account), move |connection| {
                Box::pin(async move { sum(connection, &counted, &all).await })
            })
            .await?;
        let mut of = |metric: &MetricSlug, windows: &[Window], first: usize| -> Vec<(Window, Figures)> {
            let found = windows.iter().zip(first..);
            found
                .map(|(window, place)| {
                    let figures = figures.remove(&(metric.clone(), place));
                    (*window, figures.unwrap_or_default())
                })
                .collect()
        };
        let metrics = query.metrics.iter().zip(aggregations);
        let metrics = metrics.map(|(metric, aggregation)| MetricStats {
            metric: metric.clone(),
            aggregation,
            buckets: of(metric, &windows, 0),
            previous: of(metric, &previous, windows.len()),
        });
        Ok(UsageStats {
            metrics: metrics.collect(),
            zone: zone_name,
        })
    }
}

/// What windows come to, by metric and place of the window.
async fn sum(
    connection: &mut PgConnection,
    counted: &Counted,
    windows: &[Window],
) -> Result<HashMap<(MetricSlug, usize), Figures>, DatabaseError> {
    let (mut whole, mut edges) = (Vec::with_capacity(windows.len()), Vec::new());
    for (place, window) in windows.iter().enumerate() {
        let (quarters, left) = whole_quarters(*window);
        whole.push(quarters);
        edges.extend(left.into_iter().map(|edge| (place, edge)));
    }
    let mut figures = store::sum_windows(connection, counted, &whole).await?;
    for (key, at_edge) in store::sum_edges(connection, counted, &edges).await? {
        figures.entry(key).or_default().add(&at_edge);
    }
    Ok(figures)
}
