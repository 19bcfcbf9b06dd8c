//! The gRPC side: converts, calls the service, converts.

use octroi_kit::{
    auth::{caller, check_principal, principal},
    status::to_status,
};
use octroi_proto::billing::v1::{self as proto, billing_service_server::BillingService};
use tonic::{Request, Response, Status};

use crate::{
    convert::{
        from_proto_account, from_proto_create_customer, from_proto_create_subscription, to_proto_customer,
        to_proto_plans, to_proto_subscription,
    },
    service::Service,
};
use octroi_core::Clock;

/// Serves the contract.
#[derive(Clone, Debug)]
pub struct Grpc {
    service: Service,
    clock: Clock,
}

impl Grpc {
    /// Serves `service`, by the time of `clock`.
    #[must_use]
    pub fn new(service: Service, clock: Clock) -> Self {
        Self { service, clock }
    }
}

#[tonic::async_trait]
impl BillingService for Grpc {
    async fn apply_catalog(
        &self,
        request: Request<proto::ApplyCatalogRequest>,
    ) -> Result<Response<proto::ApplyCatalogResponse>, Status> {
        let document = request.into_inner().document;
        let applied = self
            .service
            .apply_catalog(document, self.clock.now())
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::ApplyCatalogResponse {
            version: applied.version,
            changes: applied.changes,
        }))
    }

    async fn check_catalog(
        &self,
        request: Request<proto::CheckCatalogRequest>,
    ) -> Result<Response<proto::CheckCatalogResponse>, Status> {
        let document = request.into_inner().document;
        let checked = self
            .service
            .check_catalog(&document)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::CheckCatalogResponse {
            changes: checked.changes,
            warnings: checked.warnings,
        }))
    }

    async fn list_plans(
        &self,
        request: Request<proto::ListPlansRequest>,
    ) -> Result<Response<proto::ListPlansResponse>, Status> {
        // What is not offered to customers is not shown to them either.
        let include_private = request.get_ref().include_private && principal(&request).is_none();
        let offered = self
            .service
            .list_plans(include_private)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(
            offered.as_ref().map(to_proto_plans).unwrap_or_default(),
        ))
    }

    async fn create_customer(
        &self,
        request: Request<proto::CreateCustomerRequest>,
    ) -> Result<Response<proto::CreateCustomerResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let caller = caller(&request)?;
        let command =
            from_proto_create_customer(request.get_ref(), &caller.name).map_err(|error| to_status(&error))?;
        let customer = self
            .service
            .create_customer(command, self.clock.now())
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(to_proto_customer(customer)))
    }

    async fn create_subscription(
        &self,
        request: Request<proto::CreateSubscriptionRequest>,
    ) -> Result<Response<proto::CreateSubscriptionResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let caller = caller(&request)?;
        let public_only = principal(&request).is_some();
        let command = from_proto_create_subscription(request.get_ref(), &caller.name, public_only)
            .map_err(|error| to_status(&error))?;
        let subscription = self
            .service
            .create_subscription(command, self.clock.now())
            .await
            .map_err(|error| to_status(&error))?;
        let subscription = Some(to_proto_subscription(&subscription));
        Ok(Response::new(proto::CreateSubscriptionResponse { subscription }))
    }

    async fn get_subscription(
        &self,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        let account_id = &request.get_ref().account_id;
        check_principal(&request, account_id)?;
        let account = from_proto_account(account_id).map_err(|error| to_status(&error))?;
        let subscription = self
            .service
            .get_subscription(account, self.clock.now())
            .await
            .map_err(|error| to_status(&error))?;
        let subscription = Some(to_proto_subscription(&subscription));
        Ok(Response::new(proto::GetSubscriptionResponse { subscription }))
    }
}
