//! The rows of reports of buckets: which there are, and their figures.

use octroi_core::{MetricSlug, Period, Violations, Window};
use sqlx::PgConnection;

use super::{
    super::{
        catalog::Metrics,
        stats::{counted, sum},
    },
    ahead,
};
use crate::{
    domain::{
        events::Place,
        figures::Figures,
        report::{BucketRow, Position, Report, Row, windows_from},
    },
    error::Error,
    store::{self, Narrowed},
};

/// Metrics that have rows of the same windows.
pub(super) type Buckets = (Vec<MetricSlug>, Vec<Window>);

/// The buckets of a page, and where the next one begins.
pub(super) fn stretches(
    report: &Report,
    period: Period,
    from: Option<&Position>,
    limit: usize,
) -> (Vec<Buckets>, Option<Position>) {
    let (range, mut room) = (report.query.range(), limit);
    let mut stretches: Vec<Buckets> = Vec::new();
    for (metric, place) in ahead(report, from) {
        let start = place.event_at.max(range.start);
        let most = room.saturating_add(1);
        let mut windows = windows_from(start, range.end, period, &report.zone, most);
        let next = windows.get(room).map(|window| Position {
            metric: metric.clone(),
            place: Place {
                event_at: window.start,
                sequence: i64::MIN,
            },
        });
        windows.truncate(room);
        room -= windows.len();
        match stretches.last_mut() {
            Some((metrics, same)) if *same == windows => metrics.push(metric.clone()),
            _ => stretches.push((vec![metric.clone()], windows)),
        }
        if next.is_some() {
            return (stretches, next);
        }
    }
    (stretches, None)
}

/// How the figures of buckets are found.
pub(super) struct Counting<'a> {
    pub(super) report: &'a Report,
    pub(super) catalog: &'a Metrics,
    /// The most events that are read, where no rollup has what is asked for.
    pub(super) events_max: Option<u64>,
}

impl Counting<'_> {
    /// The rows of these metrics and windows, metric by metric.
    pub(super) async fn rows(
        &self,
        connection: &mut PgConnection,
        metrics: &[MetricSlug],
        windows: &[Window],
    ) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::with_capacity(metrics.len().saturating_mul(windows.len()));
        if windows.is_empty() || metrics.is_empty() {
            return Ok(rows);
        }
        let query = &self.report.query;
        let counted = counted(&query.account, metrics, self.catalog);
        let mut figures = sum(connection, &counted, windows).await?;
        if !query.filter.is_empty() {
            self.check_events(figures.values())?;
            let windows: Vec<(usize, Window)> = windows.iter().copied().enumerate().collect();
            let narrowed = Narrowed {
                filter: query.filter.clone(),
                ..Narrowed::default()
            };
            let found = store::sum_ledger_windows(connection, &counted, &windows, &narrowed).await?;
            figures = found
                .into_iter()
                .map(|((metric, place, _), figures)| ((metric, place), figures))
                .collect();
        }
        for metric in metrics {
            let Some(counting) = self.catalog.get(metric) else {
                continue;
            };
            for (place, window) in windows.iter().enumerate() {
                let figures = figures.remove(&(metric.clone(), place)).unwrap_or_default();
                let row = BucketRow::of(metric.clone(), counting.aggregation, *window, &figures);
                rows.push(Row::Bucket(row.ok_or(Error::SumOutOfRange)?));
            }
        }
        Ok(rows)
    }

    /// Whether as many events are there as can be read where no rollup has what is asked for.
    fn check_events<'f>(&self, figures: impl Iterator<Item = &'f Figures>) -> Result<(), Violations> {
        let events: u64 = figures.map(|figures| figures.events).sum();
        let mut violations = Violations::default();
        if let Some(most) = self.events_max.filter(|most| events > *most) {
            let rule = format!(
                "must make pages of at most {most} events where source or properties are given: this one has {events}; a job has no such bound"
            );
            violations.add("query.granularity", rule);
        }
        violations.finish()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use octroi_core::AccountId;

    use super::*;
    use crate::domain::report::{Filter, Grain, ReportQuery};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn report(metrics: &[&str]) -> Report {
        Report {
            query: ReportQuery {
                account: AccountId::parse("acme").expect("an id"),
                metrics: Vec::new(),
                start_at: at("2026-03-01T12:00:00Z"),
                end_at: at("2026-03-04T00:00:00Z"),
                grain: Grain::Bucket(Period::Day),
                zone: Some("UTC".to_owned()),
                filter: Filter::default(),
                columns: Vec::new(),
            },
            metrics: metrics
                .iter()
                .map(|slug| MetricSlug::parse(slug).expect("a slug"))
                .collect(),
            zone: TimeZone::UTC,
            recorded_before: at("2026-04-01T00:00:00Z"),
        }
    }

    #[test]
    fn pages_of_buckets_tile_every_metric_whatever_their_size() {
        let report = report(&["a", "b", "c"]);
        let all = |limit: usize| {
            let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
            loop {
                let (stretches, next) = stretches(&report, Period::Day, from.as_ref(), limit);
                let page: Vec<(MetricSlug, Window)> = stretches
                    .into_iter()
                    .flat_map(|(metrics, windows)| {
                        metrics.into_iter().flat_map(move |metric| {
                            windows
                                .clone()
                                .into_iter()
                                .map(move |window| (metric.clone(), window))
                        })
                    })
                    .collect();
                assert!(page.len() == limit || next.is_none(), "a full page, or the last");
                pages += 1;
                found.extend(page);
                match next {
                    Some(next) => from = Some(next),
                    None => return (found, pages),
                }
            }
        };
        let (whole, pages) = all(100);
        assert_eq!((whole.len(), pages), (9, 1));
        assert_eq!(whole[0].1.start, at("2026-03-01T12:00:00Z"));
        for (limit, expected) in [(1, 9), (2, 5), (3, 3), (4, 3), (8, 2), (9, 1)] {
            let (found, pages) = all(limit);
            assert_eq!(found, whole, "{limit}");
            assert_eq!(pages, expected, "{limit}");
        }
    }

    #[test]
    fn metrics_with_the_same_windows_are_counted_together() {
        let report = report(&["a", "b", "c"]);
        let (whole, _) = stretches(&report, Period::Day, None, 100);
        assert_eq!(whole.len(), 1);
        let (cut, next) = stretches(&report, Period::Day, None, 7);
        assert_eq!(cut.len(), 2);
        let next = next.expect("a next page");
        assert_eq!(
            (next.metric.as_str(), next.place.event_at),
            ("c", at("2026-03-02T00:00:00Z"))
        );
    }
}
