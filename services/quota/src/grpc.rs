//! The gRPC side: reads a request, calls the service, writes the answer.

use std::{pin::Pin, time::Duration};

use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use octroi_core::{AccountId, Violations};
use octroi_kit::{
    auth::{self, Caller, Principal, principal_mismatch},
    convert::to_proto_time,
    grpc,
    status::to_status,
};
use octroi_proto::quota::v1::{
    self as proto, check_quota_result::Outcome, quota_service_server::QuotaService,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{convert, domain::hold::Hold, error::Error, escrow::Quick, hold_id::HoldIds, service::Service};

/// The most checks of a batch.
const BATCH_CHECKS_MAX: usize = 1_000;
/// Checks of one batch that run at the same time.
const BATCH_CHECKS_AT_ONCE: usize = 64;

/// How often a check waits for what others carve, and how long each time, before it carves itself.
const CARVES_MAX: usize = 16;
const CARVE_WAIT: Duration = Duration::from_millis(250);

/// Requests of one stream that are decided at the same time.
const STREAM_CHECKS_AT_ONCE: usize = 256;

/// Serves the contract. Cloning shares it.
#[derive(Clone)]
pub struct Handler {
    service: Service,
    holds: HoldIds,
    outcomes: Outcomes,
}

/// How checks were decided, counted.
#[derive(Clone)]
struct Outcomes {
    allowed: metrics::Counter,
    denied: metrics::Counter,
}

impl Outcomes {
    /// The series are looked up once, because decisions are many.
    fn new() -> Self {
        let counter =
            |outcome: &'static str| metrics::counter!("octroi_quota_decisions_total", "outcome" => outcome);
        Self {
            allowed: counter("allowed"),
            denied: counter("denied"),
        }
    }

    fn count(&self, allowed: bool) {
        if allowed {
            self.allowed.increment(1)
        } else {
            self.denied.increment(1)
        }
    }
}

impl Handler {
    /// A handler over the service.
    pub fn new(service: Service, holds: HoldIds) -> Self {
        Self {
            service,
            holds,
            outcomes: Outcomes::new(),
        }
    }

    /// The hold that a call names, where it is one of its account.
    fn hold(&self, account: &str, hold_id: &str) -> Result<(AccountId, Hold), Status> {
        let (account, hold) = convert::from_proto_hold(account, hold_id, &self.holds).map_err(refused)?;
        let hold = hold.ok_or(Error::HoldNotFound).map_err(refused)?;
        Ok((account, hold))
    }

    /// Answers one request of a stream, whose refusal is an answer of its own. What memory answers is there at once.
    fn answer(
        &self,
        asked: proto::CheckQuotaStreamRequest,
        caller: &Caller,
        principal: Option<&Principal>,
    ) -> impl Future<Output = proto::CheckQuotaStreamResponse> + use<> {
        let correlation_id = asked.correlation_id;
        let request = asked.request.unwrap_or_default();
        let respond = move |result| proto::CheckQuotaStreamResponse {
            correlation_id,
            result: Some(result),
        };
        if principal.is_some_and(|one| one.account.as_str() != request.account_id) {
            let refused = convert::to_proto_status_error(&principal_mismatch());
            let outcome = Some(Outcome::Error(refused));
            return future::ready(respond(proto::CheckQuotaResult { outcome })).left_future();
        }
        match self.decide_from_memory(&request, &caller.name) {
            Quick::Made(decision) => future::ready(respond(to_result(Ok(decision)))).left_future(),
            other => {
                let (handler, caller) = (self.clone(), caller.clone());
                let decided =
                    async move { to_result(handler.decide_after(other, &request, &caller.name).await) };
                decided.map(respond).boxed().right_future()
            }
        }
    }

    async fn decide(
        &self,
        request: &proto::CheckQuotaRequest,
        caller: &str,
    ) -> Result<proto::CheckQuotaResponse, Error> {
        match self.decide_from_memory(request, caller) {
            Quick::Made(answer) => Ok(answer),
            // In a box, because what waits for databases is many thousand bytes, which would be moved with every check.
            other => self.decide_after(other, request, caller).boxed().await,
        }
    }

    /// Decides a request that memory did not answer: once somebody else has carved what it needs, or without memory.
    async fn decide_after(
        &self,
        mut memory: Quick<proto::CheckQuotaResponse>,
        request: &proto::CheckQuotaRequest,
        caller: &str,
    ) -> Result<proto::CheckQuotaResponse, Error> {
        let mut waits = 0;
        loop {
            match memory {
                Quick::Made(answer) => return Ok(answer),
                Quick::Carving(ended) if waits < CARVES_MAX => {
                    waits += 1;
                    if tokio::time::timeout(CARVE_WAIT, ended).await.is_err() {
                        break;
                    }
                }
                Quick::Carving(_) | Quick::Elsewhere => break,
            }
            memory = self.decide_from_memory(request, caller);
        }
        let check = convert::from_proto_check(request)?;
        let decision = self.service.check_quota(check, caller).await?;
        self.outcomes.count(decision.allowed);
        Ok(convert::to_proto_decision(decision))
    }

    /// The answer, where all that it needs is in memory.
    fn decide_from_memory(
        &self,
        request: &proto::CheckQuotaRequest,
        caller: &str,
    ) -> Quick<proto::CheckQuotaResponse> {
        let Some(check) = convert::from_proto_quick_check(request) else {
            return Quick::Elsewhere;
        };
        self.service.check_in_memory(&check, caller).map(|decision| {
            self.outcomes.count(decision.allowed);
            convert::to_proto_decision(decision)
        })
    }

    /// Decides a batch: what memory answers at once, and the rest beside each other.
    async fn decide_all(
        &self,
        requests: Vec<proto::CheckQuotaRequest>,
        caller: &Caller,
    ) -> Vec<proto::CheckQuotaResult> {
        let mut answers: Vec<Option<proto::CheckQuotaResult>> = Vec::with_capacity(requests.len());
        let mut others = Vec::new();
        for request in requests {
            match self.decide_from_memory(&request, &caller.name) {
                Quick::Made(answer) => answers.push(Some(to_result(Ok(answer)))),
                other => {
                    answers.push(None);
                    others.push((request, other));
                }
            }
        }
        let decided: Vec<proto::CheckQuotaResult> = stream::iter(others)
            .map(async |(request, memory)| to_result(self.decide_after(memory, &request, &caller.name).await))
            .buffered(BATCH_CHECKS_AT_ONCE)
            .collect()
            .await;
        let mut decided = decided.into_iter();
        let in_order = answers.into_iter().map(|one| one.or_else(|| decided.next()));
        in_order.flatten().collect()
    }
}

fn to_result(decided: Result<proto::CheckQuotaResponse, Error>) -> proto::CheckQuotaResult {
    let outcome = match decided {
        Ok(decision) => Outcome::Decision(decision),
        Err(error) => Outcome::Error(convert::to_proto_item_error(&error)),
    };
    proto::CheckQuotaResult {
        outcome: Some(outcome),
    }
}

fn refused(error: impl Into<Error>) -> Status {
    to_status(&error.into())
}

#[tonic::async_trait]
impl QuotaService for Handler {
    async fn check_quota(
        &self,
        request: Request<proto::CheckQuotaRequest>,
    ) -> Result<Response<proto::CheckQuotaResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let answer = self
            .decide(request.get_ref(), &caller.name)
            .await
            .map_err(refused)?;
        Ok(Response::new(answer))
    }

    async fn check_quota_batch(
        &self,
        request: Request<proto::CheckQuotaBatchRequest>,
    ) -> Result<Response<proto::CheckQuotaBatchResponse>, Status> {
        let caller = auth::caller(&request)?;
        let principal = auth::principal(&request);
        let requests = request.into_inner().requests;
        if requests.is_empty() || requests.len() > BATCH_CHECKS_MAX {
            let mut violations = Violations::default();
            violations.add("requests", format!("must hold 1 to {BATCH_CHECKS_MAX} checks"));
            return Err(refused(violations));
        }
        if let Some(principal) = principal
            && requests
                .iter()
                .any(|request| request.account_id != principal.account.as_str())
        {
            return Err(principal_mismatch());
        }
        let results = self.decide_all(requests, &caller).await;
        Ok(Response::new(proto::CheckQuotaBatchResponse { results }))
    }

    type CheckQuotaStreamStream =
        Pin<Box<dyn Stream<Item = Result<proto::CheckQuotaStreamResponse, Status>> + Send>>;

    async fn check_quota_stream(
        &self,
        request: Request<Streaming<proto::CheckQuotaStreamRequest>>,
    ) -> Result<Response<Self::CheckQuotaStreamStream>, Status> {
        let caller = auth::caller(&request)?;
        let principal = auth::principal(&request);
        let handler = self.clone();
        let answers = request.into_inner().map(move |asked| match asked {
            Ok(asked) => {
                let answer = handler.answer(asked, &caller, principal.as_deref());
                answer.map(Ok).left_future()
            }
            Err(status) => future::ready(Err(grpc::unread(status))).right_future(),
        });
        Ok(Response::new(Box::pin(
            answers.buffer_unordered(STREAM_CHECKS_AT_ONCE),
        )))
    }

    async fn reserve_quota(
        &self,
        request: Request<proto::ReserveQuotaRequest>,
    ) -> Result<Response<proto::ReserveQuotaResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (check, key, ttl_s) =
            convert::from_proto_reserve(request.get_ref(), &caller.name).map_err(refused)?;
        let account = check.account.clone();
        let reservation = self
            .service
            .reserve_quota(check, key, ttl_s)
            .await
            .map_err(refused)?;
        Ok(Response::new(convert::to_proto_reservation(
            &account,
            &reservation,
            &self.holds,
        )))
    }

    async fn commit_hold(
        &self,
        request: Request<proto::CommitHoldRequest>,
    ) -> Result<Response<proto::CommitHoldResponse>, Status> {
        let asked = request.get_ref();
        auth::check_principal(&request, &asked.account_id)?;
        let (account, hold) = self.hold(&asked.account_id, &asked.hold_id)?;
        let used = convert::from_proto_commit(asked, &hold).map_err(refused)?;
        let commit = self
            .service
            .commit_hold(&account, &hold, &used)
            .await
            .map_err(refused)?;
        Ok(Response::new(convert::to_proto_commit(&commit)))
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        let asked = request.get_ref();
        auth::check_principal(&request, &asked.account_id)?;
        let (account, hold) = self.hold(&asked.account_id, &asked.hold_id)?;
        let repeated_request = self
            .service
            .release_hold(&account, &hold)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::ReleaseHoldResponse { repeated_request }))
    }

    async fn renew_hold(
        &self,
        request: Request<proto::RenewHoldRequest>,
    ) -> Result<Response<proto::RenewHoldResponse>, Status> {
        let asked = request.get_ref();
        auth::check_principal(&request, &asked.account_id)?;
        let ttl_s = convert::from_proto_renewal(asked).map_err(refused)?;
        let (account, hold) = self.hold(&asked.account_id, &asked.hold_id)?;
        let expires_at = self
            .service
            .renew_hold(&account, &hold, ttl_s)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::RenewHoldResponse {
            expire_time: Some(to_proto_time(expires_at)),
        }))
    }

    async fn return_quota(
        &self,
        request: Request<proto::ReturnQuotaRequest>,
    ) -> Result<Response<proto::ReturnQuotaResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (check, key) = convert::from_proto_return(request.get_ref(), &caller.name).map_err(refused)?;
        let repeated_request = self.service.return_quota(check, key).await.map_err(refused)?;
        Ok(Response::new(proto::ReturnQuotaResponse { repeated_request }))
    }

    async fn record_usage(
        &self,
        request: Request<proto::RecordUsageRequest>,
    ) -> Result<Response<proto::RecordUsageResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (check, key) = convert::from_proto_record(request.get_ref(), &caller.name).map_err(refused)?;
        let repeated_request = self.service.record_usage(check, key).await.map_err(refused)?;
        Ok(Response::new(proto::RecordUsageResponse { repeated_request }))
    }

    async fn list_limits(
        &self,
        request: Request<proto::ListLimitsRequest>,
    ) -> Result<Response<proto::ListLimitsResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let account = convert::from_proto_account(&request.get_ref().account_id).map_err(refused)?;
        let limits = self.service.list_limits(&account).await.map_err(refused)?;
        Ok(Response::new(proto::ListLimitsResponse {
            limits: (limits.limits.iter())
                .map(|limit| convert::to_proto_limit_source(limit))
                .collect(),
        }))
    }

    async fn set_limit_override(
        &self,
        request: Request<proto::SetLimitOverrideRequest>,
    ) -> Result<Response<proto::SetLimitOverrideResponse>, Status> {
        let (account, metric, period, replaced) =
            convert::from_proto_set_override(request.get_ref()).map_err(refused)?;
        let limit = self
            .service
            .set_limit_override(&account, &metric, period, replaced)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::SetLimitOverrideResponse {
            limit: Some(convert::to_proto_limit_source(&limit)),
        }))
    }

    async fn clear_limit_override(
        &self,
        request: Request<proto::ClearLimitOverrideRequest>,
    ) -> Result<Response<proto::ClearLimitOverrideResponse>, Status> {
        let (account, metric, period) =
            convert::from_proto_clear_override(request.get_ref()).map_err(refused)?;
        let cleared = self
            .service
            .clear_limit_override(&account, &metric, period)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::ClearLimitOverrideResponse { cleared }))
    }

    async fn explain_decision(
        &self,
        request: Request<proto::ExplainDecisionRequest>,
    ) -> Result<Response<proto::ExplainDecisionResponse>, Status> {
        let (caller, principal) = (auth::caller(&request)?, auth::principal(&request));
        let asked = request.get_ref();
        if !asked.account_id.is_empty() {
            auth::check_principal(&request, &asked.account_id)?;
        }
        let only = principal.as_ref().map(|principal| &principal.account);
        let named = convert::from_proto_explain(asked, &caller.name, only).map_err(refused)?;
        let explanation = self.service.explain_decision(&named).await.map_err(refused)?;
        Ok(Response::new(proto::ExplainDecisionResponse {
            explanation: Some(convert::to_proto_explanation(&explanation)),
        }))
    }

    async fn get_current_usage(
        &self,
        request: Request<proto::GetCurrentUsageRequest>,
    ) -> Result<Response<proto::GetCurrentUsageResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let (account, metrics) = convert::from_proto_current_usage(request.get_ref()).map_err(refused)?;
        let usage = self
            .service
            .get_current_usage(&account, &metrics)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::GetCurrentUsageResponse {
            limits: usage.limits.iter().map(convert::to_proto_limit_status).collect(),
            as_of_time: Some(to_proto_time(usage.as_of)),
        }))
    }

    async fn get_entitlements(
        &self,
        request: Request<proto::GetEntitlementsRequest>,
    ) -> Result<Response<proto::GetEntitlementsResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let account = convert::from_proto_account(&request.get_ref().account_id).map_err(refused)?;
        let limits = self.service.get_entitlements(&account).await.map_err(refused)?;
        Ok(Response::new(convert::to_proto_entitlements_response(&limits)))
    }

    async fn apply_entitlements(
        &self,
        request: Request<proto::ApplyEntitlementsRequest>,
    ) -> Result<Response<proto::ApplyEntitlementsResponse>, Status> {
        let (account, given) = convert::from_proto_apply(request.get_ref()).map_err(refused)?;
        let version = self
            .service
            .apply_entitlements(account, given)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::ApplyEntitlementsResponse { version }))
    }

    async fn apply_catalog(
        &self,
        request: Request<proto::ApplyCatalogRequest>,
    ) -> Result<Response<proto::ApplyCatalogResponse>, Status> {
        let catalog = convert::from_proto_catalog(request.get_ref()).map_err(refused)?;
        let version = self.service.apply_catalog(catalog).await.map_err(refused)?;
        Ok(Response::new(proto::ApplyCatalogResponse { version }))
    }
}
