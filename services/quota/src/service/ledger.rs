//! What quota tells the ledger and asks of it: the events of one request, all of them or none.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{
    AccountId, Charge, ErrorKind, MetricSlug, RequestId, ServiceError as _, SliceId, Units, Violations,
    source,
};
use octroi_kit::{
    convert::{from_proto_time, to_proto_time},
    status::{Upstream, reason_of},
};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        GetUsageEventRequest, ItemError, Origin, RecordedEvent, TrackUsageBatchRequest, UsageEvent,
        track_usage_result::Outcome,
    },
};
use tonic::Status;

use super::{Service, degraded::is_away, ledger_calls::to_status};
use crate::{answers::RequestKey, convert::to_proto_charge, domain::check::Check, error::Error};

/// What the ledger said of the units that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LedgerAnswer {
    /// They are there now.
    Recorded,
    /// They were there before: the request is a repeat.
    Repeated,
    /// The request was denied before, so they are not there and never will be.
    Denied,
    /// These slices do not pay, so they are not there.
    Unpaid(Vec<SliceId>),
}

/// One event of a request.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) event_id: String,
    /// Its place among the items that the caller named.
    pub(super) place: usize,
    pub(super) metric: MetricSlug,
    pub(super) amount: Units,
    pub(super) charges: Vec<Charge>,
}

/// What a request records.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) account: AccountId,
    /// Who says so, in the ledger.
    pub(super) source: String,
    /// What the caller calls it, for refusals.
    pub(super) id: RequestId,
    pub(super) at: Timestamp,
    pub(super) backfill: bool,
    pub(super) origin: Origin,
    /// SHA-256 over what must be the same when it comes again.
    pub(super) content_hash: [u8; 32],
    pub(super) lines: Vec<Line>,
}

impl Request {
    /// What a check records that counts at `at`.
    pub(super) fn decided(check: &Check, key: &RequestKey, at: Timestamp) -> Self {
        let lines = check.events(&key.request).into_iter();
        let place = |metric: &MetricSlug| check.items.iter().position(|item| item.metric == *metric);
        Self {
            account: check.account.clone(),
            source: format!("{}{}", source::DECISION, key.caller),
            id: key.request.clone(),
            at,
            backfill: check.backfill,
            origin: Origin::Decision,
            content_hash: check.content_hash(),
            lines: lines
                .map(|(event_id, item)| Line {
                    event_id,
                    place: place(&item.metric).unwrap_or_default(),
                    metric: item.metric.clone(),
                    amount: item.amount,
                    charges: Vec::new(),
                })
                .collect(),
        }
    }

    /// The same, paid by slices: each of them is of one metric.
    pub(super) fn charged<'a>(&self, paid: impl Iterator<Item = (&'a MetricSlug, &'a Vec<Charge>)>) -> Self {
        let mut charged = self.clone();
        for (metric, charges) in paid {
            if let Some(line) = charged.lines.iter_mut().find(|line| line.metric == *metric) {
                line.charges.clone_from(charges);
            }
        }
        charged
    }

    /// The events, or some of them, as the ledger is told.
    pub(super) fn batch(&self, events: Vec<UsageEvent>) -> TrackUsageBatchRequest {
        TrackUsageBatchRequest {
            events,
            backfill: self.backfill,
            all_or_nothing: true,
            content_hash: self.content_hash.to_vec(),
        }
    }

    pub(super) fn events(&self) -> Vec<UsageEvent> {
        let event = |line: &Line| UsageEvent {
            account_id: self.account.to_string(),
            event_id: line.event_id.clone(),
            source: self.source.clone(),
            metric: line.metric.to_string(),
            amount: line.amount.as_i64(),
            event_time: Some(to_proto_time(self.at)),
            properties: HashMap::new(),
            origin: self.origin.into(),
            charges: line.charges.iter().map(to_proto_charge).collect(),
        };
        self.lines.iter().map(event).collect()
    }
}

impl Service {
    /// Records the request's events, all or none.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] where the ledger has the request with another content. Whether it was
    /// recorded is unknown for errors of which [`surely_not_recorded`] says no.
    pub(super) async fn record(&self, request: &Request) -> Result<LedgerAnswer, Error> {
        self.send(request, request.events()).await
    }

    /// Writes down that the request was denied, so that no attempt of it is recorded any more, and answers whether
    /// one was recorded before.
    ///
    /// # Errors
    /// As [`Service::record`].
    pub(super) async fn record_denial(&self, request: &Request) -> Result<bool, Error> {
        // The first event stands for all: they are recorded together or not at all.
        let first = request.events().into_iter().take(1).map(|event| UsageEvent {
            origin: Origin::Denial.into(),
            charges: Vec::new(),
            ..event
        });
        Ok(self.send(request, first.collect()).await? == LedgerAnswer::Repeated)
    }

    async fn send(&self, request: &Request, events: Vec<UsageEvent>) -> Result<LedgerAnswer, Error> {
        if events.is_empty() {
            return Ok(LedgerAnswer::Recorded);
        }
        let results = self.ledger_calls.record(request.batch(events)).await;
        let results = results.map_err(|status| Error::from(Upstream::new("usage", status)));
        match &results {
            Err(error) if is_away(error) => self.reach.is_away(),
            // It may not even have been asked.
            Err(error) if error.kind() == ErrorKind::OverLimit => {}
            _ => self.reach.is_back(),
        }
        let results = results?;
        let mut repeated = false;
        let mut unpaid: Vec<SliceId> = Vec::new();
        let mut refused: Option<(usize, ItemError)> = None;
        for (number, result) in results.results.into_iter().enumerate() {
            unpaid.extend(
                result
                    .refused_slice_ids
                    .iter()
                    .filter_map(|id| SliceId::from_bytes(id)),
            );
            match result.outcome {
                Some(Outcome::Recorded(recorded)) => repeated |= recorded.duplicate,
                // The first that is to blame; the others were refused because of it.
                Some(Outcome::Error(error))
                    if refused
                        .as_ref()
                        .is_none_or(|(_, refused)| is_consequence(refused)) =>
                {
                    refused = Some((number, error));
                }
                Some(Outcome::Error(_)) => {}
                None => return Err(upstream(Status::internal("a result without outcome"))),
            }
        }
        match refused {
            Some((_, error)) if has_reason(&error, ErrorReason::SliceRefused) => {
                Ok(LedgerAnswer::Unpaid(unpaid))
            }
            Some((_, error)) if has_reason(&error, ErrorReason::RequestDenied) => Ok(LedgerAnswer::Denied),
            Some((number, error)) => {
                let place = request.lines.get(number).map_or(0, |line| line.place);
                Err(read_refusal(&error, &request.id, place))
            }
            None if repeated => Ok(LedgerAnswer::Repeated),
            None => Ok(LedgerAnswer::Recorded),
        }
    }

    /// Whether the ledger has this request.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] where it has it with another content.
    pub(super) async fn find_recording(&self, request: &Request) -> Result<bool, Error> {
        let Some(first) = request.lines.first() else {
            return Ok(false);
        };
        let asked = GetUsageEventRequest {
            account_id: request.account.to_string(),
            source: request.source.clone(),
            event_id: first.event_id.clone(),
            content_hash: request.content_hash.to_vec(),
        };
        match self.usage.clone().get_usage_event(asked).await {
            Ok(found) if found.get_ref().same_content => Ok(true),
            Ok(_) => Err(Error::RequestIdReused {
                request_id: request.id.clone(),
            }),
            Err(status) if reason_of(&status) == Some(ErrorReason::UsageEventNotFound) => Ok(false),
            Err(status) => Err(upstream(status)),
        }
    }
}

impl Service {
    /// What no slice paid for of an event that the ledger has.
    ///
    /// # Errors
    /// [`Error`] where the ledger cannot be asked.
    pub(super) async fn find_overrun(&self, request: &Request, line: &Line) -> Result<Units, Error> {
        let charged = self.get_event(request, line).await?.charged_amount;
        Ok(line
            .amount
            .saturating_sub(Units::new(charged).unwrap_or(Units::MAX)))
    }

    /// When a request that the ledger has was recorded to have happened.
    ///
    /// # Errors
    /// [`Error`] where the ledger cannot be asked.
    pub(super) async fn find_time(&self, request: &Request) -> Result<Timestamp, Error> {
        let Some(first) = request.lines.first() else {
            return Ok(request.at);
        };
        let recorded = self.get_event(request, first).await?;
        let time = recorded.event.and_then(|event| event.event_time);
        let mut violations = Violations::default();
        let at = time.and_then(|time| from_proto_time("event_time", &time, &mut violations));
        at.ok_or_else(|| upstream(Status::internal("an event without a time")))
    }

    async fn get_event(&self, request: &Request, line: &Line) -> Result<RecordedEvent, Error> {
        let asked = GetUsageEventRequest {
            account_id: request.account.to_string(),
            source: request.source.clone(),
            event_id: line.event_id.clone(),
            content_hash: Vec::new(),
        };
        let found = self.usage.clone().get_usage_event(asked).await;
        let found = found.map_err(upstream)?.into_inner();
        found
            .event
            .ok_or_else(|| upstream(Status::internal("an answer without the event")))
    }
}

/// Whether an error of the ledger says that nothing was recorded, now or later.
pub(super) fn surely_not_recorded(error: &Error) -> bool {
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

fn has_reason(error: &ItemError, reason: ErrorReason) -> bool {
    ErrorReason::from_name(&error.reason) == Some(reason)
}

fn is_consequence(error: &ItemError) -> bool {
    ErrorReason::from_name(&error.reason) == Some(ErrorReason::BatchRefused)
}

/// An item's refusal as the caller of quota can act on it.
fn read_refusal(error: &ItemError, request_id: &RequestId, place: usize) -> Error {
    let Some(reason) = ErrorReason::from_name(&error.reason) else {
        return upstream(to_status(error));
    };
    match reason {
        ErrorReason::EventIdReused => Error::RequestIdReused {
            request_id: request_id.clone(),
        },
        ErrorReason::LevelBelowZero => Error::LevelBelowZero { place: Some(place) },
        ErrorReason::AmountOutOfRange => Error::AmountOutOfRange { place },
        ErrorReason::EventTimeOutOfRange => Error::EventTimeOutOfRange,
        _ => upstream(to_status(error)),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn read(code: Code, reason: &str) -> Error {
        let error = ItemError {
            code: code.into(),
            reason: reason.to_owned(),
            message: "no".to_owned(),
            field: String::new(),
        };
        read_refusal(&error, &RequestId::parse("r-1").expect("an id"), 1)
    }

    #[test]
    fn what_the_ledger_refuses_keeps_its_reason() {
        for (code, theirs, ours, for_good) in [
            (Code::AlreadyExists, "EVENT_ID_REUSED", "REQUEST_ID_REUSED", true),
            (
                Code::InvalidArgument,
                "EVENT_TIME_OUT_OF_RANGE",
                "EVENT_TIME_OUT_OF_RANGE",
                true,
            ),
            (Code::FailedPrecondition, "ACCOUNT_CLOSED", "ACCOUNT_CLOSED", true),
            (Code::NotFound, "METRIC_NOT_FOUND", "METRIC_NOT_FOUND", true),
            (
                Code::FailedPrecondition,
                "LEVEL_BELOW_ZERO",
                "LEVEL_BELOW_ZERO",
                true,
            ),
            (
                Code::InvalidArgument,
                "AMOUNT_OUT_OF_RANGE",
                "AMOUNT_OUT_OF_RANGE",
                true,
            ),
            (Code::Unavailable, "OVERLOADED", "OVERLOADED", false),
            (Code::Unavailable, "of tomorrow", "DEPENDENCY_UNAVAILABLE", false),
        ] {
            let error = read(code, theirs);
            assert_eq!(
                (error.reason(), surely_not_recorded(&error)),
                (ours, for_good),
                "{theirs}"
            );
        }
    }
}
