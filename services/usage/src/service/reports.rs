//! How reports are read: what a question stands for, and page by page its rows.

mod buckets;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::MetricSlug;
use octroi_kit::db::{DatabaseError, Scope, corrupt};
use sqlx::PgConnection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use self::buckets::{Counting, stretches};
use super::{
    Service,
    stats::{counted, sum},
};
use crate::{
    config,
    domain::{
        events::Place,
        report::{BucketRow, EventRow, Grain, Position, Report, ReportQuery, Row, windows_from},
        report_job::Keeping,
        sums::GROUPED_EVENTS_MAX,
    },
    error::Error,
    store::{self, Stretch},
};

/// How much may be read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The most rows that are answered.
    pub(super) rows: usize,
    /// The most events that are looked at, where not all of them are rows: so long it may take.
    scanned: i64,
    /// The most events that buckets are made of, where no rollup has them.
    events: Option<u64>,
}

impl Bounds {
    /// Of a page that somebody waits for.
    pub(super) const fn page(rows: usize) -> Self {
        Self {
            rows,
            scanned: 5_000,
            events: Some(GROUPED_EVENTS_MAX),
        }
    }

    /// Of what is read in one go: nothing else of it is in memory.
    pub(super) const STREAM: Self = Self {
        rows: 1_000,
        scanned: 20_000,
        events: Some(GROUPED_EVENTS_MAX),
    };

    /// The same in the background.
    pub(super) const JOB: Self = Self {
        events: None,
        ..Self::STREAM
    };
}

/// What the reports of one process share.
pub(super) struct Reports {
    pub(super) rows_max: u64,
    pub(super) jobs_at_once: u32,
    pub(super) jobs_max: u32,
    pub(super) keeping: Keeping,
    pub(super) lease: SignedDuration,
    /// One permit a page that is read, so that reports leave connections to everything else.
    reads: Semaphore,
    /// Told when a job was made here, so that it need not wait for the next look.
    pub(super) created: Notify,
}

impl Reports {
    pub(super) fn new(config: &config::Reports) -> Self {
        Self {
            rows_max: config.rows_max.into(),
            jobs_at_once: config.jobs_at_once,
            jobs_max: config.jobs_max,
            keeping: Keeping::of_days(config.kept_days),
            lease: SignedDuration::from_secs(config.lease_s.into()),
            reads: Semaphore::new(usize::try_from(config.reads_at_once).unwrap_or(1)),
            created: Notify::new(),
        }
    }

    /// Waits for its turn to read.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, DatabaseError> {
        // It is never closed.
        self.reads.acquire().await.map_err(|_| DatabaseError::Stopping)
    }
}

/// Some rows of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    /// How many were read for them, those that the filter took out among them.
    pub(super) read: u64,
    /// Where the next page begins; none at the end.
    pub(super) next: Option<Position>,
}

impl Service {
    /// What a question stands for: of the present, or of the instant that its first page was of.
    ///
    /// # Errors
    /// [`Error`] where account or metrics do not exist.
    pub(super) async fn report(
        &self,
        query: ReportQuery,
        recorded_before: Option<Timestamp>,
    ) -> Result<Report, Error> {
        let account = self.directory.get(&query.account).await?;
        let known = self.catalog.with_all(&query.metrics).await;
        known.map_err(|error| error.within("query"))?;
        let query = ReportQuery {
            zone: query.zone.or_else(|| Some(account.zone_name.clone())),
            ..query
        };
        let offset = SignedDuration::from_micros(self.db.clock().offset_us());
        let _turn = self.reports.turn().await?;
        self.db
            .transaction(Scope::Account(query.account.clone()), move |connection| {
                Box::pin(async move {
                    let recorded_before = match recorded_before {
                        Some(at) => at,
                        // The clocks of processes follow the primary's, never ahead of it: what was answered before is before
                        // this, whoever recorded it.
                        None => {
                            let primary = store::get_primary_time(connection).await?;
                            primary.saturating_add(offset).unwrap_or(primary)
                        }
                    };
                    resolve(connection, query, recorded_before).await
                })
            })
            .await
    }

    /// Rows from a position on.
    pub(super) async fn read_page(
        &self,
        report: &Report,
        from: Option<&Position>,
        bounds: Bounds,
    ) -> Result<Page, Error> {
        let _turn = self.reports.turn().await?;
        let (service, report, from) = (self.clone(), report.clone(), from.cloned());
        self.db
            .transaction(Scope::Account(report.query.account.clone()), move |connection| {
                Box::pin(async move { service.read(connection, &report, from.as_ref(), bounds).await })
            })
            .await
    }

    /// The same within a transaction.
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        report: &Report,
        from: Option<&Position>,
        bounds: Bounds,
    ) -> Result<Page, Error> {
        match report.query.grain {
            Grain::Event => read_events(connection, report, from, bounds).await,
            Grain::Bucket(period) => {
                let catalog = self.catalog.with(&report.metrics).await?;
                let (stretches, next) = stretches(report, period, from, bounds.rows);
                let mut page = Page {
                    next,
                    ..Page::default()
                };
                for (metrics, windows) in stretches {
                    let counting = Counting {
                        report,
                        catalog: &catalog,
                        events_max: bounds.events,
                    };
                    page.rows
                        .extend(counting.rows(connection, &metrics, &windows).await?);
                }
                page.read = page.rows.len() as u64;
                Ok(page)
            }
        }
    }

    /// What each metric of a report comes to over the whole range, by the rollups: none where the filter takes events out.
    pub(super) async fn totals(
        &self,
        connection: &mut PgConnection,
        report: &Report,
    ) -> Result<Vec<BucketRow>, Error> {
        if !report.query.filter.is_empty() {
            return Ok(Vec::new());
        }
        let catalog = self.catalog.with(&report.metrics).await?;
        let counting = Counting {
            report,
            catalog: &catalog,
            events_max: None,
        };
        let rows = counting
            .rows(connection, &report.metrics, &[report.query.range()])
            .await?;
        let totals = rows.into_iter().filter_map(|row| match row {
            Row::Bucket(row) => Some(row),
            Row::Event(_) => None,
        });
        Ok(totals.collect())
    }

    /// How many rows a report has at the most, as the figures have it: with a filter, how many are read.
    pub(super) async fn count_rows(&self, report: &Report) -> Result<u64, Error> {
        let (query, metrics) = (&report.query, report.metrics.clone());
        if let Grain::Bucket(period) = query.grain {
            // None needs more than what is too many for a call, and a job counts again.
            let most = usize::try_from(self.reports.rows_max).unwrap_or(usize::MAX);
            let windows = windows_from(
                query.start_at,
                query.end_at,
                period,
                &report.zone,
                most.saturating_add(1),
            );
            return Ok((windows.len() as u64).saturating_mul(metrics.len() as u64));
        }
        let catalog = self.catalog.with(&metrics).await?;
        let mut counted = counted(&query.account, &metrics, &catalog);
        counted.unique.clear();
        let range = query.range();
        let _turn = self.reports.turn().await?;
        self.db
            .transaction(Scope::Account(query.account.clone()), move |connection| {
                Box::pin(async move {
                    let figures = sum(connection, &counted, &[range]).await?;
                    Ok(figures.values().map(|figures| figures.events).sum::<u64>())
                })
            })
            .await
    }
}

/// A question with what it stands for.
pub(super) async fn resolve(
    connection: &mut PgConnection,
    query: ReportQuery,
    recorded_before: Timestamp,
) -> Result<Report, Error> {
    let mut metrics = query.metrics.clone();
    if metrics.is_empty() {
        metrics = match query.grain {
            Grain::Event => store::list_used_metrics(connection, &query.account, query.range()).await?,
            Grain::Bucket(_) => {
                store::list_counted_metrics(connection, &query.account, query.range()).await?
            }
        };
    }
    metrics.sort_unstable();
    let zone = query.zone.as_deref().unwrap_or("UTC");
    Ok(Report {
        zone: TimeZone::get(zone).map_err(corrupt("zone"))?,
        metrics,
        query,
        recorded_before,
    })
}

/// Which metrics of a report are still to be read, and from where on.
fn ahead<'r>(report: &'r Report, from: Option<&Position>) -> impl Iterator<Item = (&'r MetricSlug, Place)> {
    let from = from.cloned();
    let range = report.query.range();
    report.metrics.iter().filter_map(move |metric| match &from {
        Some(from) if *metric < from.metric => None,
        Some(from) if *metric == from.metric => Some((metric, from.place)),
        _ => Some((metric, Position::first(metric.clone(), range).place)),
    })
}

async fn read_events(
    connection: &mut PgConnection,
    report: &Report,
    from: Option<&Position>,
    bounds: Bounds,
) -> Result<Page, Error> {
    let mut page = Page::default();
    let mut scanned_left = bounds.scanned;
    for (metric, after) in ahead(report, from) {
        let room = bounds.rows.saturating_sub(page.rows.len());
        if room == 0 || scanned_left <= 0 {
            page.next = Some(Position {
                metric: metric.clone(),
                place: after,
            });
            break;
        }
        let stretch = Stretch {
            metric,
            after,
            // One more says whether there is a next page.
            rows: i64::try_from(room).map_or(i64::MAX, |room| room.saturating_add(1)),
            scanned: scanned_left,
        };
        let mut rows = store::list_report_events(connection, report, stretch).await?;
        let cut_at = cut(&mut rows, room);
        let (read, scan_end) = measured(connection, report, stretch, rows.len(), cut_at).await?;
        page.read += read.unsigned_abs();
        scanned_left -= read;
        page.rows.extend(rows.into_iter().map(Row::Event));
        if let Some(place) = cut_at.or(scan_end) {
            page.next = Some(Position {
                metric: metric.clone(),
                place,
            });
            break;
        }
    }
    Ok(page)
}

/// Leaves `room` rows, and answers the place of the last one where there are more.
fn cut(rows: &mut Vec<EventRow>, room: usize) -> Option<Place> {
    let more = rows.len() > room;
    rows.truncate(room);
    rows.last().filter(|_| more).map(|last| last.place)
}

/// How many events were read for rows, and where it was that looking ended before the metric did.
async fn measured(
    connection: &mut PgConnection,
    report: &Report,
    stretch: Stretch<'_>,
    rows: usize,
    cut_at: Option<Place>,
) -> Result<(i64, Option<Place>), Error> {
    if report.query.filter.is_empty() {
        return Ok((i64::try_from(rows).unwrap_or(i64::MAX), None));
    }
    let Some((last, read)) = store::measure_stretch(connection, report, stretch, cut_at).await? else {
        return Ok((0, None));
    };
    Ok((read, (read >= stretch.scanned).then_some(last)))
}
