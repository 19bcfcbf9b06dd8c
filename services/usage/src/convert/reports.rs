//! Reports and the jobs that write them, between the wire and the domain.

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{AccountId, MetricSlug, Period, PropertyKey, RequestId, Source, Violations};
use octroi_kit::{
    convert::{to_proto_aggregation, to_proto_time},
    db::as_stored,
    page::{InvalidPageToken, PageTokens, page_size},
};
use octroi_proto::usage::v1 as proto;

use super::{METRICS_MAX, PROPERTIES_MAX, check_properties, required_time};
use crate::{
    domain::{
        event::Origin,
        report::{BucketRow, Cursor, EventRow, Filter, Grain, Report, ReportQuery, Row},
        report_job::{JobPlace, ReportJob, ReportJobId, ReportJobState},
    },
    error::Error,
    service::ReportPage,
};

/// The list that page tokens of jobs belong to.
pub const REPORT_JOBS_LIST: &str = "usage report jobs";

/// The list that page tokens of a report belong to: another question is another list.
pub fn report_list(query: &ReportQuery) -> String {
    format!("usage report {}", query.fingerprint())
}

fn from_proto_grain(granularity: i32, violations: &mut Violations) -> Option<Grain> {
    use proto::ReportGranularity as Granularity;
    match Granularity::try_from(granularity) {
        Ok(Granularity::Event) => Some(Grain::Event),
        Ok(Granularity::Hour) => Some(Grain::Bucket(Period::Hour)),
        Ok(Granularity::Day) => Some(Grain::Bucket(Period::Day)),
        Ok(Granularity::Month) => Some(Grain::Bucket(Period::Month)),
        Ok(Granularity::Unspecified) | Err(_) => {
            violations.add("query.granularity", "must be EVENT, HOUR, DAY or MONTH");
            None
        }
    }
}

fn to_proto_grain(grain: Grain) -> proto::ReportGranularity {
    use proto::ReportGranularity as Granularity;
    match grain {
        Grain::Event => Granularity::Event,
        Grain::Bucket(Period::Hour) => Granularity::Hour,
        Grain::Bucket(Period::Day) => Granularity::Day,
        Grain::Bucket(Period::Month) => Granularity::Month,
        // No question has it.
        Grain::Bucket(Period::Lifetime) => Granularity::Unspecified,
    }
}

/// Names of one kind, each at most once.
fn from_proto_names<T: PartialEq, E: std::fmt::Display>(
    field: &str,
    names: &[String],
    most: usize,
    parse: impl Fn(&str) -> Result<T, E>,
    violations: &mut Violations,
) -> Vec<T> {
    if names.len() > most {
        violations.add(field, format!("must name at most {most}"));
    }
    let mut read = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(name) = violations.take(field.as_str(), parse(name)) else {
            continue;
        };
        if read.contains(&name) {
            violations.add(field, "must not be named twice");
        }
        read.push(name);
    }
    read
}

/// Reads what a report is asked of.
///
/// # Errors
/// Every violation found.
pub fn from_proto_report_query(
    account_id: &str,
    query: Option<&proto::ReportQuery>,
) -> Result<ReportQuery, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(account_id));
    let none = proto::ReportQuery::default();
    let query = query.unwrap_or(&none);
    let metrics = from_proto_names(
        "query.metrics",
        &query.metrics,
        METRICS_MAX,
        MetricSlug::parse,
        &mut violations,
    );
    let start = required_time("query.start_time", query.start_time.as_ref(), &mut violations);
    let end = required_time("query.end_time", query.end_time.as_ref(), &mut violations);
    // The ledger has whole microseconds, and so have pages.
    let range = start
        .zip(end)
        .map(|(start, end)| (as_stored(start), as_stored(end)));
    if range.is_some_and(|(start, end)| end <= start) {
        violations.add("query.end_time", "must be after query.start_time");
    }
    let grain = from_proto_grain(query.granularity, &mut violations);
    let zone = (!query.zone.is_empty())
        .then(|| {
            let zone = TimeZone::get(&query.zone).map_err(|_| "must be an IANA zone");
            violations.take("query.zone", zone)
        })
        .flatten();
    let source = (!query.source.is_empty())
        .then(|| violations.take("query.source", Source::parse(&query.source)))
        .flatten();
    check_properties("query.properties", &query.properties, &mut violations);
    let columns = from_proto_names(
        "query.property_columns",
        &query.property_columns,
        PROPERTIES_MAX,
        PropertyKey::parse,
        &mut violations,
    );
    if !columns.is_empty() && grain.is_some_and(|grain| grain != Grain::Event) {
        violations.add("query.property_columns", "must be empty unless a row is an event");
    }
    let read = account.zip(range).zip(grain);
    violations.clone().finish()?;
    let ((account, (start_at, end_at)), grain) = read.ok_or(violations)?;
    Ok(ReportQuery {
        account,
        metrics,
        start_at,
        end_at,
        grain,
        // Its name as the database of zones writes it.
        zone: zone.map(|zone| zone.iana_name().unwrap_or("UTC").to_owned()),
        filter: Filter {
            source,
            properties: query.properties.clone().into_iter().collect(),
        },
        columns,
    })
}

/// Reads which page of which report is asked for, and how many rows it has.
///
/// # Errors
/// [`Error`] that names each field.
pub fn from_proto_report_page(
    request: &proto::GenerateUsageReportRequest,
    pages: &PageTokens,
) -> Result<(ReportQuery, Option<Cursor>, usize), Error> {
    let mut violations = Violations::default();
    let rows = page_size(request.page_size, &mut violations);
    let query = match from_proto_report_query(&request.account_id, request.query.as_ref()) {
        Ok(query) => query,
        Err(mut found) => {
            found.0.extend(violations.0);
            return Err(found.into());
        }
    };
    violations.finish()?;
    let cursor = pages.read(&report_list(&query), query.account.as_str(), &request.page_token)?;
    let cursor = cursor.map(|cursor| cursor.parse().map_err(|_| InvalidPageToken));
    Ok((query, cursor.transpose()?, usize::try_from(rows).unwrap_or(1)))
}

/// What a report is of, on the wire.
fn to_proto_query(query: &ReportQuery) -> proto::ReportQuery {
    proto::ReportQuery {
        metrics: query.metrics.iter().map(ToString::to_string).collect(),
        start_time: Some(to_proto_time(query.start_at)),
        end_time: Some(to_proto_time(query.end_at)),
        granularity: to_proto_grain(query.grain).into(),
        zone: query.zone.clone().unwrap_or_default(),
        source: query
            .filter
            .source
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        properties: query.filter.properties.clone().into_iter().collect(),
        property_columns: query.columns.iter().map(ToString::to_string).collect(),
    }
}

/// A page of a report, on the wire.
pub fn to_proto_report_page(page: ReportPage, next_page_token: String) -> proto::GenerateUsageReportResponse {
    let Report {
        query,
        recorded_before,
        ..
    } = page.report;
    proto::GenerateUsageReportResponse {
        report: Some(proto::UsageReport {
            account_id: query.account.to_string(),
            query: Some(to_proto_query(&query)),
            record_time_bound: Some(to_proto_time(recorded_before)),
            totals: page.totals.iter().map(to_proto_total).collect(),
        }),
        rows: page.rows.into_iter().map(to_proto_row).collect(),
        next_page_token,
    }
}

fn to_proto_total(row: &BucketRow) -> proto::ReportTotal {
    proto::ReportTotal {
        metric: row.metric.to_string(),
        aggregation: to_proto_aggregation(row.aggregation),
        amount: row.amount.get(),
        events: row.events,
        value: row.value.get(),
        estimated: row.is_estimated,
    }
}

fn to_proto_row(row: Row) -> proto::ReportRow {
    use proto::report_row::Row as Wire;
    let row = match row {
        Row::Event(row) => Wire::Event(to_proto_event_row(row)),
        Row::Bucket(row) => Wire::Bucket(proto::BucketRow {
            metric: row.metric.to_string(),
            aggregation: to_proto_aggregation(row.aggregation),
            start_time: Some(to_proto_time(row.window.start)),
            end_time: Some(to_proto_time(row.window.end)),
            amount: row.amount.get(),
            events: row.events,
            value: row.value.get(),
            estimated: row.is_estimated,
        }),
    };
    proto::ReportRow { row: Some(row) }
}

fn to_proto_event_row(row: EventRow) -> proto::EventRow {
    proto::EventRow {
        metric: row.metric.to_string(),
        event_time: Some(to_proto_time(row.place.event_at)),
        event_id: row.event_id.to_string(),
        source: row.source.to_string(),
        amount: row.amount.get(),
        properties: row.properties.into_iter().collect(),
        decided: row.origin == Origin::Decision,
        returned: row.origin == Origin::Return,
        record_time: Some(to_proto_time(row.recorded_at)),
    }
}

/// Reads the request id that makes a call repeatable.
///
/// # Errors
/// [`Violations`] where it is none.
pub fn from_proto_request_id(request_id: &str) -> Result<RequestId, Violations> {
    let mut violations = Violations::default();
    let read = violations.take("request_id", RequestId::parse(request_id));
    read.ok_or(violations)
}

/// Reads which job of which account is meant. A text that is no id of a job names none.
///
/// # Errors
/// [`Error`] that names the field, or [`Error::ReportNotFound`].
pub fn from_proto_job(account_id: &str, job_id: &str) -> Result<(AccountId, ReportJobId), Error> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(account_id));
    let account = account.ok_or(violations)?;
    Ok((account, job_id.parse().map_err(|_| Error::ReportNotFound)?))
}

/// Reads which page of jobs is asked for, and how many it has.
///
/// # Errors
/// [`Error`] that names each field.
pub fn from_proto_jobs_page(
    request: &proto::ListUsageReportJobsRequest,
    pages: &PageTokens,
) -> Result<(AccountId, Option<JobPlace>, i64), Error> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let rows = page_size(request.page_size, &mut violations);
    violations.clone().finish()?;
    let account = account.ok_or(violations)?;
    let cursor = pages.read(REPORT_JOBS_LIST, account.as_str(), &request.page_token)?;
    let cursor = cursor.map(|cursor| cursor.parse().map_err(|_| InvalidPageToken));
    Ok((account, cursor.transpose()?, rows))
}

/// A job as it stands at `now`, on the wire.
pub fn to_proto_job(job: ReportJob, now: Timestamp) -> proto::ReportJob {
    let state = job.state_at(now);
    let totals = job.totals.into_iter().map(|(metric, total)| proto::ReportTotal {
        metric: metric.to_string(),
        amount: total.amount,
        events: total.events,
        ..proto::ReportTotal::default()
    });
    proto::ReportJob {
        job_id: job.job_id.to_string(),
        report: Some(proto::UsageReport {
            account_id: job.query.account.to_string(),
            query: Some(to_proto_query(&job.query)),
            record_time_bound: job.recorded_before.map(to_proto_time),
            totals: totals.collect(),
        }),
        state: to_proto_state(state).into(),
        written_rows: job.progress.rows_written,
        read_rows: job.progress.rows_read,
        expected_rows: job.rows_expected,
        file_bytes: job.progress.bytes,
        create_time: Some(to_proto_time(job.created_at)),
        end_time: job.ended_at.map(to_proto_time),
        expire_time: job.expires_at.map(to_proto_time),
        failure: job.failure.unwrap_or_default(),
    }
}

fn to_proto_state(state: ReportJobState) -> proto::ReportJobState {
    use proto::ReportJobState as Wire;
    match state {
        ReportJobState::Queued => Wire::Queued,
        ReportJobState::Running => Wire::Running,
        ReportJobState::Done => Wire::Done,
        ReportJobState::Failed => Wire::Failed,
        ReportJobState::Cancelled => Wire::Cancelled,
        ReportJobState::Expired => Wire::Expired,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn asked() -> proto::ReportQuery {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        proto::ReportQuery {
            start_time: at(1_772_323_200),
            end_time: at(1_774_999_999),
            granularity: proto::ReportGranularity::Event.into(),
            ..proto::ReportQuery::default()
        }
    }

    #[test]
    fn every_rule_of_a_question_names_its_field() {
        type Change = fn(&mut proto::ReportQuery);
        let changes: [(&str, Change); 10] = [
            ("query.metrics[0]", |query| query.metrics = vec!["API".into()]),
            ("query.metrics[1]", |query| query.metrics = vec!["a".into(); 2]),
            ("query.metrics", |query| {
                query.metrics = (0..17).map(|number| format!("m{number}")).collect();
            }),
            ("query.start_time", |query| query.start_time = None),
            ("query.end_time", |query| query.end_time = query.start_time),
            ("query.granularity", |query| query.granularity = 0),
            ("query.zone", |query| query.zone = "Mars/Olympus".into()),
            ("query.source", |query| query.source = "a b".into()),
            ("query.properties", |query| {
                query.properties = HashMap::from([("a b".into(), "c".into())]);
            }),
            ("query.property_columns", |query| {
                query.property_columns = vec!["region".into()];
                query.granularity = proto::ReportGranularity::Day.into();
            }),
        ];
        for (field, change) in changes {
            let mut query = asked();
            change(&mut query);
            let violations = from_proto_report_query("acme", Some(&query)).expect_err(field);
            assert_eq!(violations.first_field(), Some(field), "{violations}");
        }
        let violations = from_proto_report_query("a b", Some(&asked())).expect_err("no id");
        assert_eq!(violations.first_field(), Some("account_id"));
        assert!(from_proto_report_query("acme", None).is_err());
    }

    #[test]
    fn a_cursor_opens_only_the_question_that_it_is_of() {
        let pages = PageTokens::new(b"a secret");
        let query = from_proto_report_query("acme", Some(&asked())).expect("a question");
        let cursor = Cursor {
            recorded_before: query.end_at,
            position: crate::domain::report::Position::first(
                MetricSlug::parse("api.requests").expect("a slug"),
                query.range(),
            ),
        };
        let page_token = pages.make(&report_list(&query), "acme", &cursor.to_string());
        let request = |account_id: &str, query| proto::GenerateUsageReportRequest {
            account_id: account_id.to_owned(),
            query: Some(query),
            page_token: page_token.clone(),
            ..proto::GenerateUsageReportRequest::default()
        };
        let (_, found, rows) =
            from_proto_report_page(&request("acme", asked()), &pages).expect("the same question");
        assert_eq!((found, rows), (Some(cursor), 50));
        let narrower = proto::ReportQuery {
            source: "app".into(),
            ..asked()
        };
        for other in [request("globex", asked()), request("acme", narrower)] {
            let error = from_proto_report_page(&other, &pages).expect_err("another question");
            assert!(matches!(error, Error::PageToken(_)), "{error}");
        }
    }
}
