//! `GetUsageStats`: figures over a range, from the rollups, and from the ledger at the range's edges.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use octroi_core::{AccountId, MetricSlug, Period, PropertyKey, Violations, Window};
use octroi_kit::db::{DatabaseError, Scope};
use sqlx::PgConnection;

use super::{Service, catalog::Metrics};
use crate::{
    domain::{
        buckets::{before, cut, whole_quarters},
        figures::Figures,
        sums::{GROUPED_EVENTS_MAX, MetricStats, UsageGroup, groups_max, total},
    },
    error::Error,
    store::{self, Counted, GroupKey, Narrowed},
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
    /// The property by whose values the figures are asked for as well.
    pub group_by: Option<PropertyKey>,
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
    /// [`Error`] where account or metric do not exist, the range cannot be cut, or has too many events to group.
    pub async fn get_usage_stats(&self, query: StatsQuery) -> Result<UsageStats, Error> {
        let account = self.directory.get(&query.account).await?;
        let catalog = self.catalog.with_all(&query.metrics).await?;
        let (zone, zone_name) = match &query.zone {
            Some(zone) => (zone.clone(), zone.iana_name().unwrap_or("UTC").to_owned()),
            None => (account.zone.clone(), account.zone_name.clone()),
        };
        let windows = cut(query.range, query.granularity, &zone)?;
        let previous = if query.compare {
            before(&windows, query.granularity, &zone)
        } else {
            Vec::new()
        };
        let all: Vec<Window> = windows.iter().chain(&previous).copied().collect();
        let counted = counted(&query.account, &query.metrics, &catalog);
        let group_by = query.group_by.clone();
        let present = windows.clone();
        let (figures, groups) = self
            .db
            .transaction(Scope::Account(query.account), move |connection| {
                Box::pin(async move {
                    let figures = sum(connection, &counted, &all).await?;
                    let mut groups = HashMap::new();
                    if group_by.is_some() {
                        check_grouped(&figures, present.len())?;
                        let windows: Vec<(usize, Window)> = present.into_iter().enumerate().collect();
                        let narrowed = Narrowed {
                            group_by,
                            ..Narrowed::default()
                        };
                        groups = store::sum_ledger_windows(connection, &counted, &windows, &narrowed).await?;
                    }
                    Ok::<_, Error>((figures, groups))
                })
            })
            .await?;
        let mut groups = Groups::of(groups, &windows, query.metrics.len());
        let mut figures = Found(figures);
        let metrics = query.metrics.into_iter().filter_map(|metric| {
            let aggregation = catalog.get(&metric)?.aggregation;
            let (of_metric, groups_left_off) = groups.take(&metric);
            Some(MetricStats {
                aggregation,
                buckets: figures.take(&metric, &windows, 0),
                previous: figures.take(&metric, &previous, windows.len()),
                groups: of_metric,
                groups_left_off,
                metric,
            })
        });
        Ok(UsageStats {
            metrics: metrics.collect(),
            zone: zone_name,
        })
    }
}

/// What is counted of metrics of an account, as the catalog says.
pub(super) fn counted(account: &AccountId, metrics: &[MetricSlug], catalog: &Metrics) -> Counted {
    let unique = metrics.iter().filter_map(|metric| {
        let property = catalog.get(metric)?.property.clone()?;
        Some((metric.clone(), property))
    });
    Counted {
        account: account.clone(),
        metrics: metrics.to_vec(),
        unique: unique.collect(),
        salt: catalog.salt(),
    }
}

/// What windows come to, by metric and place of the window.
pub(super) async fn sum(
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
    // Two edges of one window have its place, and come to one sum.
    let at_edges = store::sum_ledger_windows(connection, counted, &edges, &Narrowed::default()).await?;
    for ((metric, place, _), at_edges) in at_edges {
        figures.entry((metric, place)).or_default().add(&at_edges);
    }
    Ok(figures)
}

/// Whether as many events lie in the first `windows` as can be read to group them.
fn check_grouped(figures: &HashMap<(MetricSlug, usize), Figures>, windows: usize) -> Result<(), Violations> {
    let present = figures.iter().filter(|((_, place), _)| *place < windows);
    let events: u64 = present.map(|(_, figures)| figures.events).sum();
    let mut violations = Violations::default();
    if events > GROUPED_EVENTS_MAX {
        let rule = format!("must be asked of at most {GROUPED_EVENTS_MAX} events: the range has {events}");
        violations.add("group_by", rule);
    }
    violations.finish()
}

/// What was found of windows.
struct Found(HashMap<(MetricSlug, usize), Figures>);

impl Found {
    /// The figures of windows whose places begin at `first`.
    fn take(&mut self, metric: &MetricSlug, windows: &[Window], first: usize) -> Vec<(Window, Figures)> {
        let found = windows.iter().zip(first..).map(|(window, place)| {
            let figures = self.0.remove(&(metric.clone(), place));
            (*window, figures.unwrap_or_default())
        });
        found.collect()
    }
}

/// What was found of groups.
struct Groups<'w> {
    by_metric: HashMap<MetricSlug, HashMap<Option<String>, Found>>,
    windows: &'w [Window],
    /// The most of one metric.
    max: usize,
}

impl<'w> Groups<'w> {
    fn of(found: HashMap<GroupKey, Figures>, windows: &'w [Window], metrics: usize) -> Self {
        let mut by_metric: HashMap<MetricSlug, HashMap<Option<String>, Found>> = HashMap::new();
        for ((metric, place, value), figures) in found {
            let groups = by_metric.entry(metric.clone()).or_default();
            let group = groups.entry(value).or_insert_with(|| Found(HashMap::new()));
            group.0.insert((metric, place), figures);
        }
        Self {
            by_metric,
            windows,
            max: groups_max(metrics, windows.len()),
        }
    }

    /// The groups of a metric, those with most events first, and how many more there are.
    fn take(&mut self, metric: &MetricSlug) -> (Vec<UsageGroup>, u64) {
        let found = self.by_metric.remove(metric).unwrap_or_default();
        let groups = found.into_iter().map(|(value, mut found)| UsageGroup {
            value,
            buckets: found.take(metric, self.windows, 0),
        });
        let mut groups: Vec<(u64, UsageGroup)> = groups
            .map(|group| (total(&group.buckets).events, group))
            .collect();
        groups.sort_by(|(many, one), (more, other)| more.cmp(many).then_with(|| one.value.cmp(&other.value)));
        let left_off = groups.len().saturating_sub(self.max) as u64;
        groups.truncate(self.max);
        (groups.into_iter().map(|(_, group)| group).collect(), left_off)
    }
}
