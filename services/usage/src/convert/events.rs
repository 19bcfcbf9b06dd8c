//! Which events are listed, between the wire and the domain.

use octroi_core::{AccountId, MetricSlug, Source, Violations, Window};
use octroi_kit::{
    convert::from_proto_time,
    page::{InvalidPageToken, PageTokens, page_size},
};
use octroi_proto::usage::v1 as proto;

use super::check_properties;
use crate::{
    domain::events::{EventsQuery, Place},
    error::Error,
};

/// The list that page tokens of events belong to.
pub const EVENTS_LIST: &str = "usage events by time";

/// Reads which events are asked for, and how many rows a page has.
///
/// # Errors
/// [`Error`] that names each field.
pub fn from_proto_events_query(
    request: &proto::ListUsageEventsRequest,
    pages: &PageTokens,
) -> Result<(EventsQuery, i64), Error> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let metric = (!request.metric.is_empty())
        .then(|| violations.take("metric", MetricSlug::parse(&request.metric)))
        .flatten();
    let source = (!request.source.is_empty())
        .then(|| violations.take("source", Source::parse(&request.source)))
        .flatten();
    let mut time = |field, time: Option<&prost_types::Timestamp>, default| {
        let read = time.map_or(Some(default), |time| {
            from_proto_time(field, time, &mut violations)
        });
        read.unwrap_or(default)
    };
    let range = Window {
        start: time("start_time", request.start_time.as_ref(), Window::LIFETIME.start),
        end: time("end_time", request.end_time.as_ref(), Window::LIFETIME.end),
    };
    if range.end <= range.start {
        violations.add("end_time", "must be after start_time");
    }
    check_properties("properties", &request.properties, &mut violations);
    let rows = page_size(request.page_size, &mut violations);
    violations.clone().finish()?;
    let account = account.ok_or(violations)?;
    let before = match pages.read(EVENTS_LIST, account.as_str(), &request.page_token)? {
        Some(cursor) => cursor.parse().map_err(|_| InvalidPageToken)?,
        None => Place::END,
    };
    let query = EventsQuery {
        account,
        metric,
        range,
        source,
        properties: request.properties.clone().into_iter().collect(),
        before,
    };
    Ok((query, rows))
}
