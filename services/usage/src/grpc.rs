//! The gRPC side: reads a request, calls the service, writes the answer.

mod reports;

use std::pin::Pin;

use futures::{FutureExt as _, Stream, StreamExt as _, future};
use octroi_core::{Units, Violations};
use octroi_kit::{
    auth::{self, Caller, Principal, Role},
    convert::to_proto_time,
    grpc,
    page::PageTokens,
    status::to_status,
};
use octroi_proto::usage::v1::{self as proto, usage_service_server::UsageService};
use tonic::{Request, Response, Status, Streaming};

use self::reports::Pieces;
use crate::{
    convert,
    domain::{
        anomaly::Place,
        event::{Event, Origin},
    },
    error::Error,
    service::{Batch, EventView, Service},
};

/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 10_000;
/// The most batches of one call.
const BATCHES_MAX: usize = 1_000;

/// Batches of one stream that are recorded at the same time.
const STREAM_BATCHES_AT_ONCE: usize = 32;

/// Serves the contract. Cloning shares it.
#[derive(Clone)]
pub struct Handler {
    service: Service,
    pages: PageTokens,
}

impl Handler {
    /// A handler over the service.
    pub fn new(service: Service, pages: PageTokens) -> Self {
        Self { service, pages }
    }

    /// Records a batch of events, each with a result of its own.
    async fn track_batch(
        &self,
        request: proto::TrackUsageBatchRequest,
        caller: &Caller,
    ) -> Result<proto::TrackUsageBatchResponse, Error> {
        if request.events.is_empty() || request.events.len() > BATCH_EVENTS_MAX {
            let mut violations = Violations::default();
            violations.add("events", format!("must hold 1 to {BATCH_EVENTS_MAX} events"));
            return Err(violations.into());
        }
        let content_hash = convert::from_proto_content_hash(&request.content_hash)?;
        let events = request.events.into_iter();
        let batch = Batch {
            events: events
                .map(|event| read_event(event, caller, request.backfill))
                .collect(),
            all_or_nothing: request.all_or_nothing,
            content_hash,
        };
        let results = self.service.track_usage_batch(batch).await?;
        let results = results
            .into_iter()
            .enumerate()
            .map(|(index, result)| result.map_err(|error| error.within(&format!("events[{index}]"))))
            .map(|result| convert::to_proto_result(&result))
            .collect();
        Ok(proto::TrackUsageBatchResponse { results })
    }

    async fn track_of_stream(
        &self,
        sent: proto::TrackUsageStreamRequest,
        caller: &Caller,
        principal: Option<&Principal>,
    ) -> proto::TrackUsageStreamResponse {
        let batch = sent.batch.unwrap_or_default();
        let result = if is_of_another(principal, &batch.events) {
            convert::to_proto_batch_refusal(&auth::principal_mismatch())
        } else {
            let tracked = self.track_batch(batch, caller).await;
            convert::to_proto_batches_result(tracked.map_err(|error| error.within("batch")))
        };
        proto::TrackUsageStreamResponse {
            correlation_id: sent.correlation_id,
            result: Some(result),
        }
    }
}

fn is_of_another(principal: Option<&Principal>, events: &[proto::UsageEvent]) -> bool {
    let others = |principal: &Principal| {
        let account = principal.account.as_str();
        events.iter().any(|event| event.account_id != account)
    };
    principal.is_some_and(others)
}

fn refused(error: impl Into<Error>) -> Status {
    to_status(&error.into())
}

/// Reads one event and checks who may say what it says. Fields are named as they stand in the event.
fn read_event(event: proto::UsageEvent, caller: &Caller, backfill: bool) -> Result<Event, Error> {
    let event = convert::from_proto_event(event, &caller.name, caller.role == Role::Quota, backfill)?;
    let of_quota = event.origin != Origin::Direct || !event.charges.is_empty();
    if of_quota && caller.role != Role::Quota {
        return Err(Error::DecisionForbidden);
    }
    Ok(event)
}

/// Cuts the row that was read beyond the page to know whether there is a next one; the last one left is where
/// that goes on.
fn cut<T>(items: &mut Vec<T>, rows: i64) -> Option<&T> {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let more = items.len() > rows;
    items.truncate(rows);
    if more { items.last() } else { None }
}

#[tonic::async_trait]
impl UsageService for Handler {
    async fn track_usage(
        &self,
        request: Request<proto::TrackUsageRequest>,
    ) -> Result<Response<proto::TrackUsageResponse>, Status> {
        let caller = auth::caller(&request)?;
        let principal = auth::principal(&request);
        let request = request.into_inner();
        let event = request.event.ok_or_else(|| {
            let mut violations = Violations::default();
            violations.add("event", "must be given");
            refused(violations)
        })?;
        if principal.is_some_and(|principal| principal.account.as_str() != event.account_id) {
            return Err(auth::principal_mismatch());
        }
        let refused = |error: Error| refused(error.within("event"));
        let event = read_event(event, &caller, request.backfill).map_err(refused)?;
        let recorded = self.service.track_usage(event).await.map_err(refused)?;
        Ok(Response::new(convert::to_proto_recorded(&recorded)))
    }

    async fn track_usage_batch(
        &self,
        request: Request<proto::TrackUsageBatchRequest>,
    ) -> Result<Response<proto::TrackUsageBatchResponse>, Status> {
        let caller = auth::caller(&request)?;
        let principal = auth::principal(&request);
        let request = request.into_inner();
        if is_of_another(principal.as_deref(), &request.events) {
            return Err(auth::principal_mismatch());
        }
        Ok(Response::new(
            self.track_batch(request, &caller).await.map_err(refused)?,
        ))
    }

    type TrackUsageStreamStream =
        Pin<Box<dyn Stream<Item = Result<proto::TrackUsageStreamResponse, Status>> + Send>>;

    async fn track_usage_stream(
        &self,
        request: Request<Streaming<proto::TrackUsageStreamRequest>>,
    ) -> Result<Response<Self::TrackUsageStreamStream>, Status> {
        let caller = auth::caller(&request)?;
        let principal = auth::principal(&request);
        let handler = self.clone();
        let answers = request.into_inner().map(move |sent| match sent {
            Ok(sent) => {
                let (handler, caller, principal) = (handler.clone(), caller.clone(), principal.clone());
                async move { Ok(handler.track_of_stream(sent, &caller, principal.as_deref()).await) }
                    .left_future()
            }
            Err(status) => future::ready(Err(grpc::unread(status))).right_future(),
        });
        Ok(Response::new(Box::pin(
            answers.buffer_unordered(STREAM_BATCHES_AT_ONCE),
        )))
    }

    async fn track_usage_batches(
        &self,
        request: Request<proto::TrackUsageBatchesRequest>,
    ) -> Result<Response<proto::TrackUsageBatchesResponse>, Status> {
        let caller = auth::caller(&request)?;
        let batches = request.into_inner().batches;
        let events: usize = batches.iter().map(|batch| batch.events.len()).sum();
        if batches.is_empty() || batches.len() > BATCHES_MAX || events > BATCH_EVENTS_MAX {
            let mut violations = Violations::default();
            let rule = format!("must be 1 to {BATCHES_MAX}, of at most {BATCH_EVENTS_MAX} events");
            violations.add("batches", rule);
            return Err(refused(violations));
        }
        let batches = batches.into_iter().enumerate();
        let recorded = batches.map(async |(index, batch)| {
            let within = |error: Error| error.within(&format!("batches[{index}]"));
            self.track_batch(batch, &caller).await.map_err(within)
        });
        let results = future::join_all(recorded).await.into_iter();
        Ok(Response::new(proto::TrackUsageBatchesResponse {
            results: results.map(convert::to_proto_batches_result).collect(),
        }))
    }

    async fn get_usage_stats(
        &self,
        request: Request<proto::GetUsageStatsRequest>,
    ) -> Result<Response<proto::GetUsageStatsResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let query = convert::from_proto_stats_query(request.get_ref()).map_err(refused)?;
        let stats = self.service.get_usage_stats(query).await.map_err(refused)?;
        Ok(Response::new(convert::to_proto_stats(stats).map_err(refused)?))
    }

    async fn get_ledger_totals(
        &self,
        request: Request<proto::GetLedgerTotalsRequest>,
    ) -> Result<Response<proto::GetLedgerTotalsResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let query = convert::from_proto_totals_query(request.get_ref()).map_err(refused)?;
        if query.account.is_none() && caller.role != Role::Operator {
            let mut violations = Violations::default();
            violations.add(
                "account_id",
                "must be given: only an operator may ask for all accounts",
            );
            return Err(refused(violations));
        }
        let totals = self.service.get_ledger_totals(query).await.map_err(refused)?;
        Ok(Response::new(convert::to_proto_totals(totals)))
    }

    async fn get_usage_event(
        &self,
        request: Request<proto::GetUsageEventRequest>,
    ) -> Result<Response<proto::GetUsageEventResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let identity = convert::from_proto_identity(request.get_ref(), &caller.name).map_err(refused)?;
        let content_hash =
            convert::from_proto_content_hash(&request.get_ref().content_hash).map_err(refused)?;
        // Quota asks on its way to a decision, and for nothing but the event.
        let view = if caller.role == Role::Quota {
            EventView {
                found: self.service.get_usage_event(identity).await.map_err(refused)?,
                windows: Vec::new(),
                in_rollups: false,
            }
        } else {
            self.service.view_usage_event(identity).await.map_err(refused)?
        };
        let found = &view.found;
        let same_content = content_hash
            .is_some_and(|content_hash| found.recorded.has_content(found.payload_hash, &content_hash));
        Ok(Response::new(convert::to_proto_event_view(view, same_content)))
    }

    async fn amend_usage(
        &self,
        request: Request<proto::AmendUsageRequest>,
    ) -> Result<Response<proto::AmendUsageResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let call = convert::from_proto_amend(request.get_ref(), &caller.name).map_err(refused)?;
        let preview = call.preview;
        let results = self.service.correct_usage(call).await.map_err(refused)?;
        let results = convert::to_proto_correction_results(results, "amendments", preview);
        Ok(Response::new(proto::AmendUsageResponse { results }))
    }

    async fn void_usage(
        &self,
        request: Request<proto::VoidUsageRequest>,
    ) -> Result<Response<proto::VoidUsageResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let call = convert::from_proto_void(request.get_ref(), &caller.name).map_err(refused)?;
        let preview = call.preview;
        let results = self.service.correct_usage(call).await.map_err(refused)?;
        let results = convert::to_proto_correction_results(results, "voidings", preview);
        Ok(Response::new(proto::VoidUsageResponse { results }))
    }

    async fn get_watermark(
        &self,
        _request: Request<proto::GetWatermarkRequest>,
    ) -> Result<Response<proto::GetWatermarkResponse>, Status> {
        let watermark = self.service.get_watermark().await.map_err(refused)?;
        Ok(Response::new(proto::GetWatermarkResponse {
            watermark_time: Some(to_proto_time(watermark.at)),
            rollup_lag_events: watermark.lag_events,
        }))
    }

    async fn list_usage_events(
        &self,
        request: Request<proto::ListUsageEventsRequest>,
    ) -> Result<Response<proto::ListUsageEventsResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let request = request.get_ref();
        let (query, rows) = convert::from_proto_events_query(request, &self.pages).map_err(refused)?;
        let account = query.account.clone();
        let listed = self.service.list_usage_events(query, rows.saturating_add(1));
        let mut events = listed.await.map_err(refused)?;
        let next_page_token = cut(&mut events, rows)
            .map(|last| {
                let cursor = last.place.to_string();
                self.pages.make(convert::EVENTS_LIST, account.as_str(), &cursor)
            })
            .unwrap_or_default();
        let events = events.into_iter().map(convert::to_proto_recorded_event).collect();
        Ok(Response::new(proto::ListUsageEventsResponse {
            events,
            next_page_token,
        }))
    }

    async fn generate_usage_report(
        &self,
        request: Request<proto::GenerateUsageReportRequest>,
    ) -> Result<Response<proto::GenerateUsageReportResponse>, Status> {
        self.report_page(request).await
    }

    type StreamUsageReportStream = Pieces<proto::StreamUsageReportResponse>;

    async fn stream_usage_report(
        &self,
        request: Request<proto::StreamUsageReportRequest>,
    ) -> Result<Response<Self::StreamUsageReportStream>, Status> {
        self.report_stream(request).await
    }

    async fn create_usage_report(
        &self,
        request: Request<proto::CreateUsageReportRequest>,
    ) -> Result<Response<proto::CreateUsageReportResponse>, Status> {
        self.report_job(request).await
    }

    async fn get_usage_report_job(
        &self,
        request: Request<proto::GetUsageReportJobRequest>,
    ) -> Result<Response<proto::GetUsageReportJobResponse>, Status> {
        self.found_report_job(request).await
    }

    async fn list_usage_report_jobs(
        &self,
        request: Request<proto::ListUsageReportJobsRequest>,
    ) -> Result<Response<proto::ListUsageReportJobsResponse>, Status> {
        self.listed_report_jobs(request).await
    }

    async fn cancel_usage_report_job(
        &self,
        request: Request<proto::CancelUsageReportJobRequest>,
    ) -> Result<Response<proto::CancelUsageReportJobResponse>, Status> {
        self.cancelled_report_job(request).await
    }

    type DownloadUsageReportStream = Pieces<proto::DownloadUsageReportResponse>;

    async fn download_usage_report(
        &self,
        request: Request<proto::DownloadUsageReportRequest>,
    ) -> Result<Response<Self::DownloadUsageReportStream>, Status> {
        self.report_file(request).await
    }

    async fn list_anomalies(
        &self,
        request: Request<proto::ListAnomaliesRequest>,
    ) -> Result<Response<proto::ListAnomaliesResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (query, rows) =
            convert::from_proto_anomalies_query(request.get_ref(), &self.pages).map_err(refused)?;
        let account = query.account.clone();
        let listed = self.service.list_anomalies(query, rows.saturating_add(1));
        let (mut anomalies, looked_until) = listed.await.map_err(refused)?;
        let next_page_token = cut(&mut anomalies, rows)
            .map(|last| {
                let place = Place {
                    start_at: last.course.start_at,
                    id: last.id,
                };
                let cursor = place.to_string();
                self.pages
                    .make(convert::ANOMALIES_LIST, account.as_str(), &cursor)
            })
            .unwrap_or_default();
        Ok(Response::new(convert::to_proto_anomalies(
            &anomalies,
            next_page_token,
            looked_until,
        )))
    }

    async fn forecast_usage(
        &self,
        request: Request<proto::ForecastUsageRequest>,
    ) -> Result<Response<proto::ForecastUsageResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (account, targets) = convert::from_proto_forecast(request.get_ref()).map_err(refused)?;
        let made = self.service.forecast_usage(account, targets).await;
        Ok(Response::new(convert::to_proto_forecasts(made.map_err(refused)?)))
    }

    async fn seal_slices(
        &self,
        request: Request<proto::SealSlicesRequest>,
    ) -> Result<Response<proto::SealSlicesResponse>, Status> {
        let slices = convert::from_proto_seal(request.get_ref()).map_err(refused)?;
        let charged = self.service.seal_slices(slices).await.map_err(refused)?;
        Ok(Response::new(proto::SealSlicesResponse {
            charged_amounts: charged.into_iter().map(Units::get).collect(),
        }))
    }

    async fn apply_catalog(
        &self,
        request: Request<proto::ApplyCatalogRequest>,
    ) -> Result<Response<proto::ApplyCatalogResponse>, Status> {
        let (version, metrics) = convert::from_proto_catalog(request.get_ref()).map_err(refused)?;
        let version = self
            .service
            .apply_catalog(version, metrics)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::ApplyCatalogResponse { version }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_with_something_behind_it_says_where_to_go_on() {
        for (found, left, next) in [(0, 0, None), (2, 2, None), (3, 2, Some(2))] {
            let mut items: Vec<i32> = (1..=found).collect();
            assert_eq!(cut(&mut items, 2).copied(), next, "{found} found");
            assert_eq!(items.len(), left);
        }
    }
}
