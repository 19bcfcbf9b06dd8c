//! The contract's calls: read, do, answer.

use octroi_core::Clock;
use octroi_kit::{auth::check_principal, status::to_status};
use octroi_proto::notification::v1::{
    ListEmailsRequest, ListEmailsResponse, ListNoticesRequest, ListNoticesResponse, MarkNoticesReadRequest,
    MarkNoticesReadResponse, notification_service_server::NotificationService,
};
use tonic::{Request, Response, Status};

use crate::{
    convert::{
        from_proto_list_emails, from_proto_list_notices, from_proto_mark_notices_read, to_proto_email_page,
        to_proto_notice_page,
    },
    service::Service,
};

/// Serves the contract.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    service: Service,
    clock: Clock,
}

impl Handler {
    /// The handler of a service.
    #[must_use]
    pub(crate) fn new(service: Service, clock: Clock) -> Self {
        Self { service, clock }
    }
}

#[tonic::async_trait]
impl NotificationService for Handler {
    async fn list_notices(
        &self,
        request: Request<ListNoticesRequest>,
    ) -> Result<Response<ListNoticesResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let request = from_proto_list_notices(request.into_inner()).map_err(|error| to_status(&error))?;
        let page = self
            .service
            .list_notices(request)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(to_proto_notice_page(page)))
    }

    async fn mark_notices_read(
        &self,
        request: Request<MarkNoticesReadRequest>,
    ) -> Result<Response<MarkNoticesReadResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let request = from_proto_mark_notices_read(request.get_ref()).map_err(|error| to_status(&error))?;
        let now = self.clock.now();
        let marked_count = self
            .service
            .mark_notices_read(request, now)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(MarkNoticesReadResponse { marked_count }))
    }

    async fn list_emails(
        &self,
        request: Request<ListEmailsRequest>,
    ) -> Result<Response<ListEmailsResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let request = from_proto_list_emails(request.into_inner()).map_err(|error| to_status(&error))?;
        let page = self
            .service
            .list_emails(request)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(to_proto_email_page(page)))
    }
}
