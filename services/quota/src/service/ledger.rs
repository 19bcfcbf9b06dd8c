//! What quota tells the ledger and asks of it: the events of one request, all of them or none.

use std::collections::HashMap;

use octroi_core::{ErrorKind, RequestId, ServiceError as _, Violations, event_time::EVENT_TIME_RULE};
use octroi_kit::{
    convert::to_proto_time,
    status::{Upstream, reason_of, refusal},
};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        GetUsageEventRequest, ItemError, Origin, TrackUsageBatchRequest, UsageEvent,
        track_usage_result::Outcome,
    },
};
use tonic::{Code, Status};

use super::{Service, check_quota::Consumption};
use crate::{counters::RequestKey, error::Error};

/// What the ledger said of the units that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recording {
    /// They are there now.
    Recorded,
    /// They were there before: the request is a repeat.
    Repeated,
}

impl Service {
    /// Records the request's events, all or none.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] where the ledger has the request with another content. Whether it was
    /// recorded is unknown for errors of which [`refuses_for_good`] says no.
    pub(super) async fn record_in_ledger(&self, consumption: &Consumption) -> Result<Recording, Error> {
        let events = events(consumption);
        if events.is_empty() {
            return Ok(Recording::Recorded);
        }
        let request = TrackUsageBatchRequest {
            events,
            backfill: consumption.check.backfill,
            all_or_nothing: true,
            content_hash: consumption.mark.content_hash.to_vec(),
        };
        let results = self.usage.clone().track_usage_batch(request).await;
        let results = results.map_err(|status| Upstream::new("usage", status))?;
        let mut repeated = false;
        let mut refused: Option<ItemError> = None;
        for result in results.into_inner().results {
            match result.outcome {
                Some(Outcome::Recorded(recorded)) => repeated |= recorded.duplicate,
                // The first that is to blame; the others were refused because of it.
                Some(Outcome::Error(error)) if refused.as_ref().is_none_or(is_consequence) => {
                    refused = Some(error);
                }
                Some(Outcome::Error(_)) => {}
                None => return Err(upstream(Status::internal("a result without outcome"))),
            }
        }
        match refused {
            Some(error) => Err(read_refusal(&error, &consumption.mark.key.request)),
            None if repeated => Ok(Recording::Repeated),
            None => Ok(Recording::Recorded),
        }
    }

    /// Whether the ledger has this request.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] where it has it with another content.
    pub(super) async fn find_recording(&self, consumption: &Consumption) -> Result<bool, Error> {
        let Some(first) = events(consumption).into_iter().next() else {
            return Ok(false);
        };
        let request = GetUsageEventRequest {
            account_id: first.account_id,
            source: first.source,
            event_id: first.event_id,
            content_hash: consumption.mark.content_hash.to_vec(),
        };
        match self.usage.clone().get_usage_event(request).await {
            Ok(found) if found.get_ref().same_content => Ok(true),
            Ok(_) => Err(Error::RequestIdReused {
                request_id: consumption.mark.key.request.clone(),
            }),
            Err(status) if reason_of(&status) == Some(ErrorReason::UsageEventNotFound) => Ok(false),
            Err(status) => Err(upstream(status)),
        }
    }
}

/// Whether an error of the ledger says that nothing was recorded, now or later.
pub(super) fn refuses_for_good(error: &Error) -> bool {
    if let Error::Upstream(upstream) = error
        && never_left(&upstream.status)
    {
        return true;
    }
    !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal
    )
}

/// Whether the call was not even begun, because nobody listened.
fn never_left(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        source = error.source();
    }
    false
}

fn upstream(status: Status) -> Error {
    Upstream::new("usage", status).into()
}

fn events(consumption: &Consumption) -> Vec<UsageEvent> {
    let Consumption { check, mark, receipt } = consumption;
    let events = check.events(&mark.key.request).into_iter();
    events
        .map(|(event_id, item)| UsageEvent {
            account_id: check.account.to_string(),
            event_id,
            source: source(&mark.key),
            metric: item.metric.to_string(),
            amount: item.amount.as_i64(),
            event_time: Some(to_proto_time(receipt.at)),
            properties: HashMap::new(),
            origin: Origin::Decision.into(),
        })
        .collect()
}

fn source(key: &RequestKey) -> String {
    format!("decision:{}", key.caller)
}

fn is_consequence(error: &ItemError) -> bool {
    ErrorReason::from_name(&error.reason) == Some(ErrorReason::BatchRefused)
}

/// An item's refusal as the caller of quota can act on it.
fn read_refusal(error: &ItemError, request_id: &RequestId) -> Error {
    let Some(reason) = ErrorReason::from_name(&error.reason) else {
        return upstream(Status::new(Code::from_i32(error.code), error.message.clone()));
    };
    match reason {
        ErrorReason::EventIdReused => Error::RequestIdReused {
            request_id: request_id.clone(),
        },
        ErrorReason::EventTimeOutOfRange => {
            let mut violations = Violations::default();
            violations.add("event_time", EVENT_TIME_RULE);
            violations.into()
        }
        _ => upstream(refusal(
            ErrorKind::from_grpc_code(error.code),
            reason,
            &error.message,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: Code, reason: &str) -> Error {
        let error = ItemError {
            code: code.into(),
            reason: reason.to_owned(),
            message: "no".to_owned(),
            field: String::new(),
        };
        read_refusal(&error, &RequestId::parse("r-1").expect("an id"))
    }

    #[test]
    fn what_the_ledger_refuses_keeps_its_reason() {
        for (code, theirs, ours, for_good) in [
            (Code::AlreadyExists, "EVENT_ID_REUSED", "REQUEST_ID_REUSED", true),
            (
                Code::InvalidArgument,
                "EVENT_TIME_OUT_OF_RANGE",
                "FIELD_INVALID",
                true,
            ),
            (Code::FailedPrecondition, "ACCOUNT_CLOSED", "ACCOUNT_CLOSED", true),
            (Code::NotFound, "METRIC_NOT_FOUND", "METRIC_NOT_FOUND", true),
            (Code::Unavailable, "OVERLOADED", "OVERLOADED", false),
            (Code::Unavailable, "of tomorrow", "DEPENDENCY_UNAVAILABLE", false),
        ] {
            let error = read(code, theirs);
            assert_eq!(
                (error.reason(), refuses_for_good(&error)),
                (ours, for_good),
                "{theirs}"
            );
        }
    }
}
