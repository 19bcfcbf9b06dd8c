//! The gRPC side: reads a request, calls the service, writes the answer.

use futures::{StreamExt as _, stream};
use octroi_core::Violations;
use octroi_kit::{
    auth::{self, principal_mismatch},
    convert::to_proto_time,
    status::to_status,
};
use octroi_proto::quota::v1::{
    self as proto, check_quota_result::Outcome, quota_service_server::QuotaService,
};
use tonic::{Request, Response, Status};

use crate::{convert, error::Error, service::Service};

/// The most checks of a batch.
const BATCH_CHECKS_MAX: usize = 1_000;
/// Checks of one batch that run at the same time.
const BATCH_CHECKS_AT_ONCE: usize = 64;

/// Serves the contract.
pub struct Handler {
    service: Service,
}

impl Handler {
    /// A handler over the service.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    async fn decide(
        &self,
        request: &proto::CheckQuotaRequest,
        caller: &str,
    ) -> Result<proto::CheckQuotaResponse, Error> {
        let check = convert::from_proto_check(request)?;
        let decision = self.service.check_quota(check, caller).await?;
        let outcome = if decision.allowed { "allowed" } else { "denied" };
        metrics::counter!("octroi_quota_decisions_total", "outcome" => outcome).increment(1);
        Ok(convert::to_proto_decision(&decision))
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
        let results = stream::iter(requests)
            .map(async |request| match self.decide(&request, &caller.name).await {
                Ok(decision) => Outcome::Decision(decision),
                Err(error) => Outcome::Error(convert::to_proto_item_error(&error)),
            })
            .buffered(BATCH_CHECKS_AT_ONCE)
            .map(|outcome| proto::CheckQuotaResult {
                outcome: Some(outcome),
            })
            .collect()
            .await;
        Ok(Response::new(proto::CheckQuotaBatchResponse { results }))
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
