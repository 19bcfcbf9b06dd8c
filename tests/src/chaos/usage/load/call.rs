//! One call, and what each of its events was told.

use std::time::Duration;

use jiff::Timestamp;
use octroi_kit::{convert::to_proto_time, link::Link, status::reason_of};
use octroi_proto::usage::v1::{
    ItemError, TrackUsageBatchRequest, TrackUsageBatchResponse, TrackUsageRequest, TrackUsageResponse,
    UsageEvent, track_usage_result::Outcome, usage_service_client::UsageServiceClient,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    super::{
        oracle::{Event, Told, event_id},
        plan::Way,
    },
    Load, lock,
};

/// How long a sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Codes of what is refused however often it is sent.
const FOR_GOOD: [Code; 6] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::FailedPrecondition,
    Code::OutOfRange,
];

impl Load {
    /// Makes a call. `Err` says why nothing was answered.
    pub(super) async fn call(
        &self,
        way: Way,
        events: &[usize],
        replica: usize,
        cancelled_after: Option<Duration>,
    ) -> Result<Vec<Told>, String> {
        let calling = async {
            match way {
                Way::Unary => self.unary(events, replica).await,
                Way::Batch | Way::Stream => self.batch(events, replica).await,
                Way::Rest => self.rest(events).await,
            }
        };
        let patience = cancelled_after.unwrap_or(PATIENCE);
        let answer = tokio::time::timeout(patience, calling).await;
        answer.unwrap_or_else(|_| Err(gave_up(cancelled_after)))
    }

    async fn unary(&self, events: &[usize], replica: usize) -> Result<Vec<Told>, String> {
        let mut told = Vec::with_capacity(events.len());
        for event in self.usage_events(events) {
            told.push(self.track(event, replica).await?);
        }
        Ok(told)
    }

    /// Sends an event with one unit more than it had.
    pub(super) async fn call_forged(&self, event: usize, replica: usize) -> Result<Told, String> {
        let forged = self.usage_events(&[event]).pop().ok_or("no such event")?;
        let forged = UsageEvent {
            amount: forged.amount + 1,
            ..forged
        };
        let answer = tokio::time::timeout(PATIENCE, self.track(forged, replica)).await;
        answer.unwrap_or_else(|_| Err(gave_up(None)))
    }

    async fn track(&self, event: UsageEvent, replica: usize) -> Result<Told, String> {
        let request = TrackUsageRequest {
            event: Some(event),
            backfill: false,
        };
        let mut usage = self.recorder(replica)?;
        match usage.track_usage(request).await {
            Ok(answer) => Ok(recorded(answer.get_ref())),
            Err(status) => refused(&status),
        }
    }

    async fn batch(&self, events: &[usize], replica: usize) -> Result<Vec<Told>, String> {
        let mut usage = self.recorder(replica)?;
        match usage.track_usage_batch(self.request(events)).await {
            Ok(answer) => Ok(results(answer.into_inner())),
            Err(status) => refused(&status).map(|told| vec![told; events.len()]),
        }
    }

    /// The events as a batch.
    pub(super) fn request(&self, events: &[usize]) -> TrackUsageBatchRequest {
        TrackUsageBatchRequest {
            events: self.usage_events(events),
            ..TrackUsageBatchRequest::default()
        }
    }

    async fn rest(&self, events: &[usize]) -> Result<Vec<Told>, String> {
        let (account, body) = {
            let log = lock(&self.log);
            let known = |place: &usize| log.events.get(*place).map(|event| (*place, event));
            let known: Vec<(usize, &Event)> = events.iter().filter_map(known).collect();
            let account = known.first().map_or(0, |(_, event)| event.account);
            let events: Vec<Value> = (known.into_iter())
                .map(|(place, event)| self.to_json_event(place, event))
                .collect();
            (account, json!({ "events": events }))
        };
        let program = self.target.programs.get(account).ok_or("no program")?;
        let answer = program.rest.post("/api/usage/events", &body).await;
        let answer = answer.map_err(|error| format!("REST: {}", error.root_cause()))?;
        match answer.status {
            200 => {
                let answer = answer.json().map_err(|error| format!("REST: {error:#}"))?;
                let results = answer["results"].as_array().ok_or("REST: no results")?;
                Ok(results.iter().map(told_by_json).collect())
            }
            400 | 403 | 404 | 409 | 413 | 415 | 422 => {
                Ok(vec![Told::Refused(answer.text.clone()); events.len()])
            }
            status => Err(format!("REST: {status}")),
        }
    }

    fn to_json_event(&self, place: usize, event: &Event) -> Value {
        let mut json = json!({
            "event_id": event_id(place),
            "source": self.target.source,
            "metric": event.metric,
            "amount": event.amount,
            "event_time": instant(event).to_string(),
        });
        if let (Some(region), Some(fields)) = (event.region, json.as_object_mut()) {
            fields.insert("properties".to_owned(), json!({ "region": region }));
        }
        json
    }

    fn usage_events(&self, places: &[usize]) -> Vec<UsageEvent> {
        let log = lock(&self.log);
        let event = |place: &usize| {
            let event = log.events.get(*place)?;
            let region = event.region.into_iter();
            Some(UsageEvent {
                account_id: log.accounts.get(event.account)?.clone(),
                event_id: event_id(*place),
                source: self.target.source.clone(),
                metric: event.metric.to_owned(),
                amount: i64::try_from(event.amount).unwrap_or(i64::MAX),
                event_time: Some(to_proto_time(instant(event))),
                properties: region
                    .map(|region| ("region".to_owned(), region.to_owned()))
                    .collect(),
                ..UsageEvent::default()
            })
        };
        places.iter().filter_map(event).collect()
    }

    /// The client of a replica.
    pub(super) fn recorder(&self, replica: usize) -> Result<UsageServiceClient<Link>, String> {
        let recorders = &self.target.recorders;
        let clients = recorders
            .get(replica % recorders.len().max(1))
            .ok_or("no replica")?;
        Ok(clients.usage.clone())
    }
}

fn instant(event: &Event) -> Timestamp {
    Timestamp::from_millisecond(event.at_ms).unwrap_or_default()
}

fn gave_up(cancelled_after: Option<Duration>) -> String {
    match cancelled_after {
        Some(_) => "the call was cancelled".to_owned(),
        None => "nobody waited any longer".to_owned(),
    }
}

fn recorded(answer: &TrackUsageResponse) -> Told {
    if answer.duplicate {
        Told::Duplicate
    } else {
        Told::New
    }
}

/// What a call that failed says: a refusal, or why nothing was answered.
pub(super) fn refused(status: &Status) -> Result<Told, String> {
    let reason = reason_of(status).map_or("", |reason| reason.name());
    let said = format!("{:?} {reason}", status.code());
    if FOR_GOOD.contains(&status.code()) {
        Ok(Told::Refused(format!("{said}: {}", status.message())))
    } else {
        Err(said)
    }
}

/// What each event of a batch was told.
pub(super) fn results(answer: TrackUsageBatchResponse) -> Vec<Told> {
    let told = |outcome| match outcome {
        Some(Outcome::Recorded(answer)) => recorded(&answer),
        Some(Outcome::Error(error)) => told_by_error(&error),
        None => Told::Nothing("a result without outcome".to_owned()),
    };
    (answer.results.into_iter())
        .map(|result| told(result.outcome))
        .collect()
}

/// What the refusal of one event says.
pub(super) fn told_by_error(error: &ItemError) -> Told {
    if FOR_GOOD.contains(&Code::from_i32(error.code)) {
        Told::Refused(format!("{}: {}", error.reason, error.message))
    } else {
        Told::Nothing(format!("{:?} {}", Code::from_i32(error.code), error.reason))
    }
}

fn told_by_json(result: &Value) -> Told {
    if let Some(duplicate) = result["recorded"]["duplicate"].as_bool() {
        return if duplicate { Told::Duplicate } else { Told::New };
    }
    let error = &result["error"];
    let status = error["status"].as_u64().unwrap_or_default();
    if (400..500).contains(&status) && status != 429 {
        Told::Refused(error.to_string())
    } else {
        Told::Nothing(format!("REST: an event was told {status}"))
    }
}
