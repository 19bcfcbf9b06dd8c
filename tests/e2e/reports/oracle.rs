//! What a report must say, by the story's own arithmetic and its own reading of CSV.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use octroi_kit::convert::to_proto_time;
use octroi_proto::usage::v1::{
    GenerateUsageReportRequest, ReportGranularity, ReportQuery, TrackUsageBatchRequest, UsageEvent,
    UsageReport, report_row::Row, track_usage_result::Outcome,
};
use octroi_tests::harness::fleet::Clients;

use crate::asks::event;

pub(super) const METRICS: [&str; 2] = ["exports.run", "llm.tokens_in"];

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) metric: &'static str,
    pub(super) event_id: String,
    pub(super) at: Timestamp,
    pub(super) amount: u64,
    pub(super) properties: Vec<(&'static str, &'static str)>,
}

impl Used {
    pub(super) fn region(&self) -> &'static str {
        self.property("region")
    }

    fn property(&self, name: &str) -> &'static str {
        let found = self.properties.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    }

    fn all_properties(&self) -> HashMap<String, String> {
        let properties = self.properties.iter();
        properties
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }
}

/// Events of 30 days, no two at one instant, in no order of time, some of them with what CSV must quote and a spreadsheet must not
/// take for a formula.
pub(super) fn some_events(until: Timestamp, count: i64) -> Vec<Used> {
    let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
    let used = |number: i64| {
        let back_s = number * 7_919 % (30 * 86_400);
        let region = if number % 7 == 0 { "us" } else { "eu" };
        let mut properties = vec![("region", region)];
        match number % 5 {
            0 => properties.push(("note", "=1+1")),
            1 => properties.push(("note", "say \"hi\", twice\r\nor so")),
            _ => {}
        }
        Used {
            metric: if number % 3 == 0 { METRICS[0] } else { METRICS[1] },
            event_id: if number % 11 == 0 {
                format!("-{number}")
            } else {
                format!("e-{number}")
            },
            at: until - back_s.seconds(),
            amount: 1 + (number * 31 % 97).unsigned_abs(),
            properties,
        }
    };
    (1..=count).map(used).collect()
}

/// Records all of them.
pub(super) async fn record(app: &Clients, account: &str, all: &[Used]) -> Result<()> {
    for some in all.chunks(5_000) {
        let events = some.iter().map(|used| UsageEvent {
            event_time: Some(to_proto_time(used.at)),
            properties: used.all_properties(),
            amount: used.amount.cast_signed(),
            ..event(account, &used.event_id, used.metric, 1)
        });
        let request = TrackUsageBatchRequest {
            events: events.collect(),
            ..TrackUsageBatchRequest::default()
        };
        let answer = app.usage.clone().track_usage_batch(request).await?.into_inner();
        for result in answer.results {
            ensure!(matches!(result.outcome, Some(Outcome::Recorded(_))), "{result:?}");
        }
    }
    Ok(())
}

/// Those of a range, in the order of a report.
pub(super) fn expected(
    all: &[Used],
    (start, end): (Timestamp, Timestamp),
    keep: impl Fn(&Used) -> bool,
) -> Vec<&Used> {
    let mut found: Vec<&Used> = all
        .iter()
        .filter(|used| (start..end).contains(&used.at) && keep(used))
        .collect();
    found.sort_by_key(|used| (used.metric, used.at));
    found
}

pub(super) fn query((start, end): (Timestamp, Timestamp), granularity: ReportGranularity) -> ReportQuery {
    ReportQuery {
        start_time: Some(to_proto_time(start)),
        end_time: Some(to_proto_time(end)),
        granularity: granularity.into(),
        ..ReportQuery::default()
    }
}

/// A report, page by page.
pub(super) async fn paged(
    app: &Clients,
    account: &str,
    query: &ReportQuery,
    page_size: i32,
) -> Result<(UsageReport, Vec<Row>)> {
    let mut request = GenerateUsageReportRequest {
        account_id: account.to_owned(),
        query: Some(query.clone()),
        page_size,
        ..GenerateUsageReportRequest::default()
    };
    let (mut first, mut rows) = (None, Vec::new());
    loop {
        let page = app
            .usage
            .clone()
            .generate_usage_report(request.clone())
            .await?
            .into_inner();
        let report = page.report.context("a page of nothing")?;
        ensure!(page.rows.len() <= page_size.unsigned_abs() as usize);
        for row in page.rows {
            rows.push(row.row.context("a row of nothing")?);
        }
        let first = first.get_or_insert(report.clone());
        ensure!(
            first.record_time_bound == report.record_time_bound,
            "pages of two instants: {first:?} {report:?}"
        );
        if page.next_page_token.is_empty() {
            return Ok((first.clone(), rows));
        }
        request.page_token = page.next_page_token;
    }
}

/// Rows of events are these, in this order.
pub(super) fn check_events(rows: &[Row], expected: &[&Used]) -> Result<()> {
    ensure!(
        rows.len() == expected.len(),
        "{} rows instead of {}",
        rows.len(),
        expected.len()
    );
    for (row, used) in rows.iter().zip(expected) {
        let Row::Event(row) = row else {
            bail!("no event: {row:?}");
        };
        let found = (row.metric.as_str(), row.event_id.as_str(), row.amount);
        ensure!(
            found == (used.metric, used.event_id.as_str(), used.amount)
                && row.event_time == Some(to_proto_time(used.at))
                && row.source == "application"
                && row.properties == used.all_properties()
                && !row.decided
                && !row.returned,
            "{row:?} instead of {used:?}"
        );
    }
    Ok(())
}

/// What lines of CSV hold, as RFC 4180 says.
pub(super) fn lines(text: &str) -> Result<Vec<Vec<String>>> {
    let (mut lines, mut cells, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut rest) = (false, text.chars().peekable());
    while let Some(one) = rest.next() {
        match one {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {
                ensure!(rest.next() == Some('\n'), "a line that ends in another way");
                cells.push(std::mem::take(&mut cell));
                lines.push(std::mem::take(&mut cells));
            }
            other => cell.push(other),
        }
    }
    ensure!(
        !quoted && cell.is_empty() && cells.is_empty(),
        "the last line is cut off"
    );
    Ok(lines)
}

/// CSV of events has these, in this order, its times in this zone.
pub(super) fn check_csv(text: &str, expected: &[&Used], zone: &str) -> Result<()> {
    let zone = TimeZone::get(zone)?;
    let lines = lines(text)?;
    let (names, rows) = lines.split_first().context("no line at all")?;
    let known = [
        "metric",
        "event_time",
        "event_id",
        "source",
        "amount",
        "origin",
        "record_time",
        "properties",
        "property.note",
    ];
    ensure!(names == &known, "{names:?}");
    ensure!(
        rows.len() == expected.len(),
        "{} lines instead of {}",
        rows.len(),
        expected.len()
    );
    for (line, used) in rows.iter().zip(expected) {
        let [
            metric,
            event_time,
            event_id,
            source,
            amount,
            origin,
            record_time,
            properties,
            note,
        ] = &line[..]
        else {
            bail!("a line of {} cells: {line:?}", line.len());
        };
        let said = |text: &str| {
            if text.starts_with(['=', '-']) {
                format!("'{text}")
            } else {
                text.to_owned()
            }
        };
        let written: HashMap<String, String> =
            serde_json::from_str(properties).with_context(|| properties.clone())?;
        let offset = zone.to_offset(used.at);
        ensure!(
            metric == used.metric
                && *event_time == used.at.display_with_offset(offset).to_string()
                && *event_id == said(&used.event_id)
                && source == "application"
                && *amount == used.amount.to_string()
                && origin == "direct"
                && record_time.parse::<Timestamp>().is_ok()
                && written == used.all_properties()
                && *note == said(used.property("note")),
            "{line:?} instead of {used:?}"
        );
    }
    Ok(())
}
