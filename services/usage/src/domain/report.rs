//! What a report is of, its rows, and where a page goes on.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{
    AccountId, Aggregation, Anchor, EventId, MetricSlug, Period, PropertyKey, Source, Units, Window,
    period::window_containing,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    csv::Csv,
    event::Origin,
    events::{NotAPlace, Place},
    figures::Figures,
};

/// What one row of a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    /// One event.
    Event,
    /// One metric in one HOUR, DAY or MONTH.
    Bucket(Period),
}

/// Which of the events of a metric and a range are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only what this source said.
    pub source: Option<Source>,
    /// Only events that have all of these properties.
    pub properties: BTreeMap<String, String>,
}

impl Filter {
    /// Whether all events are meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.properties.is_empty()
    }
}

/// What a report is of, in the form that it is kept in with a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportQuery {
    /// The account.
    pub account: AccountId,
    /// The metrics, as they were asked for; none means all that were used.
    pub metrics: Vec<MetricSlug>,
    /// The first instant.
    pub start_at: Timestamp,
    /// The first instant after the range, which is after the first.
    pub end_at: Timestamp,
    /// What one row is.
    pub grain: Grain,
    /// The zone's IANA name; none means the account's.
    pub zone: Option<String>,
    /// Which events.
    pub filter: Filter,
    /// The properties that are columns of CSV.
    pub columns: Vec<PropertyKey>,
}

impl ReportQuery {
    /// The range.
    #[must_use]
    pub fn range(&self) -> Window {
        Window {
            start: self.start_at,
            end: self.end_at,
        }
    }

    /// What tells this question from others: the first 16 bytes of the SHA-256 over it, as hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // It is made of plain values, its maps in order, and always can be written.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(text).into();
        let mut digits = String::with_capacity(32);
        for byte in hash.iter().take(16) {
            digits += &format!("{byte:02x}");
        }
        digits
    }
}

/// A report as it is read: a question, and what it stands for.
#[derive(Clone, Debug)]
pub struct Report {
    /// The question, which names its zone.
    pub query: ReportQuery,
    /// The metrics that it may have rows of, in the order of their names.
    pub metrics: Vec<MetricSlug>,
    /// The zone.
    pub zone: TimeZone,
    /// Only what was recorded before this instant.
    pub recorded_before: Timestamp,
}

/// Where a report goes on: within a metric, behind an event or from a bucket on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The metric.
    pub metric: MetricSlug,
    /// Behind this event; of a bucket, its first instant.
    pub place: Place,
}

impl Position {
    /// The first of a metric in a range.
    #[must_use]
    pub fn first(metric: MetricSlug, range: Window) -> Self {
        Self {
            metric,
            place: Place {
                event_at: range.start,
                sequence: i64::MIN,
            },
        }
    }
}

/// What a page token of a report holds: where it goes on, and the instant that all of its pages are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Only what was recorded before this instant.
    pub recorded_before: Timestamp,
    /// Where it goes on.
    pub position: Position,
}

/// As a page token carries it.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { metric, place } = &self.position;
        write!(f, "{}/{metric}/{place}", self.recorded_before.as_microsecond())
    }
}

impl FromStr for Cursor {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(NotAPlace);
        let recorded_before = part()?.parse().map_err(|_| NotAPlace)?;
        let recorded_before = Timestamp::from_microsecond(recorded_before).map_err(|_| NotAPlace)?;
        let metric = MetricSlug::parse(part()?).map_err(|_| NotAPlace)?;
        let place = part()?.parse()?;
        Ok(Self {
            recorded_before,
            position: Position { metric, place },
        })
    }
}

/// Up to `most` of the windows that tile a range, from the instant on at which one of them begins. As with statistics the first
/// and the last are cut off where the range begins or ends within an hour, day or month.
#[must_use]
pub fn windows_from(
    from: Timestamp,
    end: Timestamp,
    period: Period,
    zone: &TimeZone,
    most: usize,
) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut start = from;
    while start < end && windows.len() < most {
        let whole = window_containing(period, start, zone, Anchor::FIRST_OF_MONTH);
        let window = Window {
            start,
            end: whole.end.min(end),
        };
        windows.push(window);
        start = window.end;
    }
    windows
}

/// One event as a row.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// The metric.
    pub metric: MetricSlug,
    /// Its place, with the time at which it counts.
    pub place: Place,
    /// Who said so.
    pub source: Source,
    /// The event's id within its source.
    pub event_id: EventId,
    /// How much.
    pub amount: Units,
    /// Further facts.
    pub properties: BTreeMap<String, String>,
    /// How it came.
    pub origin: Origin,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
}

/// One metric in one stretch of time as a row.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketRow {
    /// The metric.
    pub metric: MetricSlug,
    /// How its amounts become one figure.
    pub aggregation: Aggregation,
    /// The stretch of time.
    pub window: Window,
    /// The sum of amounts.
    pub amount: Units,
    /// The number of events.
    pub events: u64,
    /// The figure.
    pub value: Units,
    /// Whether the figure is an estimate.
    pub is_estimated: bool,
}

impl BucketRow {
    /// A row of these figures; none where a sum or a figure is more than can be counted. The sum of amounts of a metric that is
    /// no sum ends at 2^53 − 1.
    #[must_use]
    pub fn of(
        metric: MetricSlug,
        aggregation: Aggregation,
        window: Window,
        figures: &Figures,
    ) -> Option<Self> {
        let figure = figures.figure(aggregation);
        let counted = |number: u128| Units::new(u64::try_from(number).ok()?).ok();
        let amount = match aggregation {
            Aggregation::Sum | Aggregation::Count => counted(figures.amount)?,
            Aggregation::Max | Aggregation::Unique | Aggregation::Latest => {
                counted(figures.amount).unwrap_or(Units::MAX)
            }
        };
        Some(Self {
            metric,
            aggregation,
            window,
            amount,
            events: figures.events,
            value: counted(figure.value)?,
            is_estimated: figure.is_estimated,
        })
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// An event.
    Event(EventRow),
    /// A metric in a stretch of time.
    Bucket(BucketRow),
}

/// What rows of one metric come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTotal {
    /// The sum of amounts, 2^64 − 1 at the most; what was given back of a LEVEL is not among them.
    pub amount: u64,
    /// The number of events.
    pub events: u64,
}

/// What rows come to, by metric.
pub type RowTotals = BTreeMap<MetricSlug, RowTotal>;

impl Row {
    /// Its metric.
    #[must_use]
    pub fn metric(&self) -> &MetricSlug {
        match self {
            Self::Event(row) => &row.metric,
            Self::Bucket(row) => &row.metric,
        }
    }

    /// Adds it to what rows come to.
    pub fn add_to(&self, totals: &mut RowTotals) {
        let total = totals.entry(self.metric().clone()).or_default();
        match self {
            Self::Event(row) => {
                if row.origin != Origin::Return {
                    total.amount = total.amount.saturating_add(row.amount.get());
                }
                total.events += 1;
            }
            Self::Bucket(row) => {
                total.amount = total.amount.saturating_add(row.amount.get());
                total.events += row.events;
            }
        }
    }
}

/// The line with the names of the columns.
pub fn write_header(csv: &mut Csv, query: &ReportQuery) {
    const OF_EVENTS: [&str; 8] = [
        "metric",
        "event_time",
        "event_id",
        "source",
        "amount",
        "origin",
        "record_time",
        "properties",
    ];
    const OF_BUCKETS: [&str; 8] = [
        "metric",
        "aggregation",
        "start_time",
        "end_time",
        "amount",
        "events",
        "value",
        "estimated",
    ];
    let names = match query.grain {
        Grain::Event => OF_EVENTS,
        Grain::Bucket(_) => OF_BUCKETS,
    };
    for name in names {
        csv.text(name);
    }
    for column in &query.columns {
        csv.text(&format!("property.{column}"));
    }
    csv.end_line();
}

/// The line of a row.
pub fn write_row(csv: &mut Csv, report: &Report, row: &Row) {
    let time = |at: Timestamp| at.display_with_offset(report.zone.to_offset(at));
    match row {
        Row::Event(row) => {
            csv.text(row.metric.as_str());
            csv.plain(time(row.place.event_at));
            csv.text(row.event_id.as_str());
            csv.text(row.source.as_str());
            csv.plain(row.amount);
            csv.plain(row.origin.as_str());
            csv.plain(time(row.recorded_at));
            // Texts by texts always can be written.
            csv.text(&serde_json::to_string(&row.properties).unwrap_or_default());
            for column in &report.query.columns {
                csv.text(row.properties.get(column.as_str()).map_or("", String::as_str));
            }
        }
        Row::Bucket(row) => {
            csv.text(row.metric.as_str());
            csv.plain(row.aggregation.as_str());
            csv.plain(time(row.window.start));
            csv.plain(time(row.window.end));
            csv.plain(row.amount);
            csv.plain(row.events);
            csv.plain(row.value);
            csv.plain(row.is_estimated);
        }
    }
    csv.end_line();
}

#[cfg(test)]
mod tests;
