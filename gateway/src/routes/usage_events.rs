//! Usage events: recording them, and reading the ledger.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        ItemError, ListUsageEventsRequest, RecordedEvent, TrackUsageBatchRequest, TrackUsageRequest,
        TrackUsageResponse, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    amount::Amount,
    body::{self, given},
    cloud_event::{self, CloudEvent},
    convert::{Origin, cursor, part, time},
    edge::Edge,
    instant::Instant,
    problem::{Document, Names, Problem, renamed},
    query::Query,
};

/// The most events in one request.
const EVENTS_MAX: usize = 10_000;

/// The contract puts the event into a field; here it is the body.
const NAMES: Names = &[("event", "")];

/// How the parameters of the list are called in the contract and here.
const LIST_NAMES: Names = &[
    ("page_size", "limit"),
    ("page_token", "cursor"),
    ("start_time", "from"),
    ("end_time", "to"),
    ("properties", "property"),
];

/// One immutable fact about the key's account. It is identified by account, source and event id.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUsageEvent {
    /// The event's id within its source: 1 to 200 printable ASCII characters.
    event_id: String,
    /// Who says so; absent means this gateway.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<String>,
    /// The metric's slug.
    metric: String,
    amount: Amount,
    /// When it happened; absent means now.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    event_time: Option<Instant>,
    /// Up to 16 properties.
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

/// Up to 10,000 events; each has a result of its own.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, whose items are read one by one")]
pub(crate) struct NewUsageEvents {
    #[schema(min_items = 1, max_items = 10_000)]
    events: Vec<NewUsageEvent>,
}

/// One event or many.
#[derive(Debug, ToSchema)]
#[schema(as = UsageEventsBody)]
#[expect(dead_code, reason = "describes the body")]
#[serde(untagged)]
pub(crate) enum NewEvents {
    One(NewUsageEvent),
    Many(NewUsageEvents),
}

/// The event is in the ledger.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordedUsageEvent {
    event_id: String,
    /// It was there before, with the same content; nothing was added.
    duplicate: bool,
    /// When the ledger first recorded it.
    record_time: Timestamp,
}

/// What became of one event of many: exactly one of the two is there.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventResult {
    /// It is in the ledger.
    Recorded(RecordedUsageEvent),
    /// It was refused, and why.
    #[schema(value_type = Document)]
    Error(Box<Document>),
}

/// The results, in the order of the events.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventResults {
    results: Vec<EventResult>,
    /// How many are in the ledger, repeated ones included.
    recorded_count: usize,
    /// How many were refused.
    refused_count: usize,
}

/// One event or the results of many.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageEventsAnswer)]
#[serde(untagged)]
pub(crate) enum TrackAnswer {
    /// The one event.
    One(RecordedUsageEvent),
    /// A result an event.
    Many(EventResults),
}

impl NewUsageEvent {
    fn into_usage_event(self, caller: &Caller) -> UsageEvent {
        UsageEvent {
            account_id: caller.account_id(),
            event_id: self.event_id,
            source: self.source.unwrap_or_default(),
            metric: self.metric,
            amount: self.amount.get(),
            event_time: self.event_time.map(Instant::to_proto),
            properties: self.properties.into_iter().collect(),
            origin: 0,
            charges: Vec::new(),
        }
    }
}

/// How an event is written in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    CloudEvent,
}

impl Form {
    fn read(self, json: &[u8], caller: &Caller, place: &str) -> Result<UsageEvent, Problem> {
        match self {
            Self::Plain => Ok(body::parse::<NewUsageEvent>(json, place)?.into_usage_event(caller)),
            Self::CloudEvent => {
                let prefix = if place.is_empty() {
                    String::new()
                } else {
                    format!("{place}.")
                };
                body::parse::<CloudEvent>(json, place)?.into_usage_event(&caller.account, &prefix)
            }
        }
    }

    const fn names(self) -> Names {
        match self {
            Self::Plain => NAMES,
            Self::CloudEvent => cloud_event::NAMES,
        }
    }
}

/// The body, before its events are looked at.
enum Given<'a> {
    One,
    Many {
        events: Vec<&'a RawValue>,
        place: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Glance<'a> {
    #[serde(borrow, default)]
    events: Option<&'a RawValue>,
}

fn given_events<'a>(content_type: &str, bytes: &'a [u8]) -> Result<Given<'a>, Problem> {
    if content_type == cloud_event::ONE {
        return Ok(Given::One);
    }
    let (events, place) = if content_type == cloud_event::BATCH {
        let events = serde_json::from_slice(bytes).map_err(|error| body::refused(&error, ""))?;
        (events, "")
    } else {
        match serde_json::from_slice::<Glance>(bytes) {
            Ok(glance) if glance.events.is_some() => {}
            Err(error) if !error.is_data() => return Err(body::refused(&error, "")),
            // What is no object with `events` is read as one event, whose refusal names what is wrong.
            _ => return Ok(Given::One),
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| {
            let rule = "must be an array of events, with nothing beside it";
            Problem::field(ErrorReason::FieldInvalid, "events", rule)
        })?;
        (envelope.events, "events")
    };
    if events.is_empty() || events.len() > EVENTS_MAX {
        let field = if place.is_empty() { "body" } else { place };
        let rule = format!("must be 1 to {EVENTS_MAX} events");
        return Err(Problem::field(ErrorReason::FieldInvalid, field, rule));
    }
    Ok(Given::Many { events, place })
}

fn to_json_recorded(event_id: String, answer: &TrackUsageResponse) -> Result<RecordedUsageEvent, Problem> {
    let record_time = time(answer.record_time.as_ref())?;
    Ok(RecordedUsageEvent {
        event_id,
        duplicate: answer.duplicate,
        record_time,
    })
}

/// The refusal of one event; its field is told as it stands in the whole body.
fn to_json_error(error: ItemError, form: Form, place: &str) -> Document {
    let reason = ErrorReason::from_name(&error.reason).unwrap_or(ErrorReason::Internal);
    if error.field.is_empty() {
        return Problem::new(reason, error.message).into_document();
    }
    // The service counts the events that it was given; what it calls `events[2].amount` is `amount` here.
    let own = error
        .field
        .split_once("].")
        .map_or(error.field.as_str(), |(_, own)| own);
    let own = own.strip_prefix("event.").unwrap_or(own);
    let field = format!("{place}.{}", renamed(&format!("event.{own}"), form.names()));
    // Where its sentence is the field and the rule, the rule is what comes after the field.
    let rule = error
        .message
        .strip_prefix(&error.field)
        .map_or(error.message.as_str(), str::trim_start);
    Problem::field(reason, field, rule).into_document()
}

async fn track_one(
    edge: &Edge,
    caller: &Caller,
    form: Form,
    bytes: &[u8],
) -> Result<RecordedUsageEvent, Problem> {
    let event = form.read(bytes, caller, "")?;
    let event_id = event.event_id.clone();
    let request = caller.request(TrackUsageRequest {
        event: Some(event),
        backfill: false,
    });
    let answer = edge
        .usage()
        .track_usage(request)
        .await
        .map_err(|status| Problem::of("usage", &status, form.names()))?;
    to_json_recorded(event_id, &answer.into_inner())
}

/// Reads every event; those that can be read are recorded in one call, the others have their refusal.
async fn track_many(
    edge: &Edge,
    caller: &Caller,
    form: Form,
    raw: &[&RawValue],
    place: &str,
) -> Result<EventResults, Problem> {
    let mut results: Vec<Option<EventResult>> = Vec::with_capacity(raw.len());
    let (mut events, mut places) = (Vec::with_capacity(raw.len()), Vec::with_capacity(raw.len()));
    for (index, one) in raw.iter().enumerate() {
        match form.read(one.get().as_bytes(), caller, &format!("{place}[{index}]")) {
            Ok(event) => {
                events.push(event);
                places.push(index);
                results.push(None);
            }
            Err(problem) => results.push(Some(EventResult::Error(Box::new(problem.into_document())))),
        }
    }
    let event_ids: Vec<String> = events.iter().map(|event| event.event_id.clone()).collect();
    let outcomes = record(edge, caller, events).await?;
    for ((index, event_id), outcome) in places.into_iter().zip(event_ids).zip(outcomes) {
        let result = match part(outcome.outcome, "an outcome")? {
            Outcome::Recorded(answer) => EventResult::Recorded(to_json_recorded(event_id, &answer)?),
            Outcome::Error(error) => {
                EventResult::Error(Box::new(to_json_error(error, form, &format!("{place}[{index}]"))))
            }
        };
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(result);
        }
    }
    let results: Vec<EventResult> = results.into_iter().flatten().collect();
    let recorded_count = results
        .iter()
        .filter(|result| matches!(result, EventResult::Recorded(_)))
        .count();
    Ok(EventResults {
        refused_count: results.len() - recorded_count,
        recorded_count,
        results,
    })
}

async fn record(
    edge: &Edge,
    caller: &Caller,
    events: Vec<UsageEvent>,
) -> Result<Vec<TrackUsageResult>, Problem> {
    let count = events.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    let request = caller.request(TrackUsageBatchRequest {
        events,
        ..TrackUsageBatchRequest::default()
    });
    let answer = edge
        .usage()
        .track_usage_batch(request)
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?;
    let results = answer.into_inner().results;
    if results.len() != count {
        return Err(Problem::fault(
            "usage answered with another number of results than it was asked for",
        ));
    }
    Ok(results)
}

/// Record what was used.
///
/// One event, or many under `events`; or CloudEvents 1.0, one or a batch. Of many, each has a result of its
/// own: those that break a rule are refused, the others are recorded. The same event again is a duplicate
/// and no error; the same id with another content is EVENT_ID_REUSED.
#[utoipa::path(
    post, path = "/api/usage/events", operation_id = "trackUsage", tag = "programs",
    request_body(content(
        (NewEvents = "application/json"),
        (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json")
    )),
    responses((status = 200, description = "Committed to the ledger.", body = TrackAnswer))
)]
pub(crate) async fn track_usage(
    State(edge): State<Edge>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let accepted = [body::JSON, cloud_event::ONE, cloud_event::BATCH];
    let content_type = body::content_type(request.headers(), &accepted)?;
    let form = if content_type == body::JSON {
        Form::Plain
    } else {
        Form::CloudEvent
    };
    let bytes = body::bytes(request, &()).await?;
    let answer = match given_events(content_type, &bytes)? {
        Given::One => TrackAnswer::One(track_one(&edge, &caller, form, &bytes).await?),
        Given::Many { events, place } => {
            TrackAnswer::Many(track_many(&edge, &caller, form, &events, place).await?)
        }
    };
    Ok(Json(answer).into_response())
}

/// One event as the ledger has it.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerEvent {
    event_id: String,
    source: String,
    metric: String,
    amount: i64,
    event_time: Timestamp,
    properties: BTreeMap<String, String>,
    origin: Origin,
    /// When the ledger recorded it.
    record_time: Timestamp,
}

/// A page of events, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerEvents {
    events: Vec<LedgerEvent>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
}

fn to_json_ledger_event(recorded: RecordedEvent) -> Result<LedgerEvent, Problem> {
    let event = part(recorded.event, "an event")?;
    Ok(LedgerEvent {
        event_id: event.event_id,
        source: event.source,
        metric: event.metric,
        amount: event.amount,
        event_time: time(event.event_time.as_ref())?,
        properties: event.properties.into_iter().collect(),
        origin: Origin::from_proto(event.origin),
        record_time: time(recorded.record_time.as_ref())?,
    })
}

/// The account's events, newest first by the time at which they count.
#[utoipa::path(
    get, path = "/api/account/usage/events", operation_id = "listUsageEvents", tag = "account",
    params(
        ("metric" = Option<String>, Query, description = "Only this metric."),
        ("from" = Option<Timestamp>, Query, description = "Only events from this instant on (RFC 3339)."),
        ("to" = Option<Timestamp>, Query, description = "Only events before this instant."),
        ("source" = Option<String>, Query, description = "Only what this source said."),
        ("property" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
         description = "Only events that have these properties, such as `property[region]=eu`."),
        ("limit" = Option<u32>, Query, minimum = 1, description = "How many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Where to go on, from the page before.")
    ),
    responses((status = 200, description = "A page.", body = LedgerEvents))
)]
pub(crate) async fn list_usage_events(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<LedgerEvents>, Problem> {
    let (page_size, page_token) = query.page();
    let request = ListUsageEventsRequest {
        account_id: caller.account_id(),
        metric: query.text("metric").unwrap_or_default(),
        page_size,
        page_token,
        start_time: query.instant("from"),
        end_time: query.instant("to"),
        source: query.text("source").unwrap_or_default(),
        properties: query.object("property"),
    };
    query.finish()?;
    let answer = edge
        .usage()
        .list_usage_events(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, LIST_NAMES))?
        .into_inner();
    let events = answer
        .events
        .into_iter()
        .map(to_json_ledger_event)
        .collect::<Result<_, _>>()?;
    Ok(Json(LedgerEvents {
        events,
        next_cursor: cursor(answer.next_page_token),
    }))
}
