//! The gRPC side of reports.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use octroi_kit::auth;
use octroi_proto::usage::v1 as proto;
use tonic::{Request, Response, Status};

use super::{Handler, cut, refused};
use crate::{convert, error::Error};

/// The pieces of a CSV.
pub type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn pieces<T>(
    csv: impl Stream<Item = Result<Vec<u8>, Error>> + Send + 'static,
    message: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Response<Pieces<T>> {
    Response::new(Box::pin(
        csv.map(move |piece| piece.map(&message).map_err(refused)),
    ))
}

impl Handler {
    pub(super) async fn report_page(
        &self,
        request: Request<proto::GenerateUsageReportRequest>,
    ) -> Result<Response<proto::GenerateUsageReportResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let asked = convert::from_proto_report_page(request.get_ref(), &self.pages);
        let (query, cursor, rows) = asked.map_err(refused)?;
        let (list, account) = (convert::report_list(&query), query.account.clone());
        let page = self.service.generate_usage_report(query, cursor, rows).await;
        let page = page.map_err(refused)?;
        let token = |next: &crate::domain::report::Cursor| {
            self.pages.make(&list, account.as_str(), &next.to_string())
        };
        let next_page_token = page.next.as_ref().map(token).unwrap_or_default();
        Ok(Response::new(convert::to_proto_report_page(
            page,
            next_page_token,
        )))
    }

    pub(super) async fn report_stream(
        &self,
        request: Request<proto::StreamUsageReportRequest>,
    ) -> Result<Response<Pieces<proto::StreamUsageReportResponse>>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let proto::StreamUsageReportRequest { account_id, query } = request.get_ref();
        let query = convert::from_proto_report_query(account_id, query.as_ref()).map_err(refused)?;
        let csv = self.service.stream_usage_report(query).await.map_err(refused)?;
        Ok(pieces(csv, |csv| proto::StreamUsageReportResponse { csv }))
    }

    pub(super) async fn report_job(
        &self,
        request: Request<proto::CreateUsageReportRequest>,
    ) -> Result<Response<proto::CreateUsageReportResponse>, Status> {
        let caller = auth::caller(&request)?;
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let request = request.get_ref();
        let query = convert::from_proto_report_query(&request.account_id, request.query.as_ref());
        let query = query.map_err(refused)?;
        let request_id = convert::from_proto_request_id(&request.request_id).map_err(refused)?;
        let job = self
            .service
            .create_usage_report(query, caller.name.clone(), request_id)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::CreateUsageReportResponse {
            job: Some(convert::to_proto_job(job, self.service.now())),
        }))
    }

    pub(super) async fn found_report_job(
        &self,
        request: Request<proto::GetUsageReportJobRequest>,
    ) -> Result<Response<proto::GetUsageReportJobResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let proto::GetUsageReportJobRequest { account_id, job_id } = request.get_ref();
        let (account, job_id) = convert::from_proto_job(account_id, job_id).map_err(refused)?;
        let job = self.service.get_usage_report_job(account, job_id).await;
        Ok(Response::new(proto::GetUsageReportJobResponse {
            job: Some(convert::to_proto_job(job.map_err(refused)?, self.service.now())),
        }))
    }

    pub(super) async fn listed_report_jobs(
        &self,
        request: Request<proto::ListUsageReportJobsRequest>,
    ) -> Result<Response<proto::ListUsageReportJobsResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let asked = convert::from_proto_jobs_page(request.get_ref(), &self.pages);
        let (account, after, rows) = asked.map_err(refused)?;
        let listed = self
            .service
            .list_usage_report_jobs(account.clone(), after, rows.saturating_add(1));
        let mut jobs = listed.await.map_err(refused)?;
        let next_page_token = cut(&mut jobs, rows)
            .map(|last| {
                let cursor = last.place().to_string();
                self.pages
                    .make(convert::REPORT_JOBS_LIST, account.as_str(), &cursor)
            })
            .unwrap_or_default();
        let now = self.service.now();
        Ok(Response::new(proto::ListUsageReportJobsResponse {
            jobs: jobs
                .into_iter()
                .map(|job| convert::to_proto_job(job, now))
                .collect(),
            next_page_token,
        }))
    }

    pub(super) async fn cancelled_report_job(
        &self,
        request: Request<proto::CancelUsageReportJobRequest>,
    ) -> Result<Response<proto::CancelUsageReportJobResponse>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let proto::CancelUsageReportJobRequest { account_id, job_id } = request.get_ref();
        let (account, job_id) = convert::from_proto_job(account_id, job_id).map_err(refused)?;
        let job = self.service.cancel_usage_report_job(account, job_id).await;
        Ok(Response::new(proto::CancelUsageReportJobResponse {
            job: Some(convert::to_proto_job(job.map_err(refused)?, self.service.now())),
        }))
    }

    pub(super) async fn report_file(
        &self,
        request: Request<proto::DownloadUsageReportRequest>,
    ) -> Result<Response<Pieces<proto::DownloadUsageReportResponse>>, Status> {
        auth::check_principal(&request, &request.get_ref().account_id)?;
        let proto::DownloadUsageReportRequest { account_id, job_id } = request.get_ref();
        let (account, job_id) = convert::from_proto_job(account_id, job_id).map_err(refused)?;
        let csv = self.service.download_usage_report(account, job_id).await;
        Ok(pieces(csv.map_err(refused)?, |csv| {
            proto::DownloadUsageReportResponse { csv }
        }))
    }
}
