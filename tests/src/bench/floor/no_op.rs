//! Reads a check, decides nothing, and answers as if it had.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use octroi_proto::{
    common::v1::{LimitMode, Period, UnreachablePolicy},
    quota::v1::{
        CheckQuotaBatchRequest, CheckQuotaBatchResponse, CheckQuotaRequest, CheckQuotaResponse,
        CheckQuotaResult, CheckQuotaStreamRequest, CheckQuotaStreamResponse, LimitStatus,
        check_quota_result::Outcome,
    },
};
use prost_types::Timestamp;
use tokio_stream::StreamExt as _;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::bench::{
    quota::{Batches, Checks, Stream},
    traffic::Traffic as _,
};

/// What is generated from the contract does no more than this for the three methods that are measured, and
/// wants all others too.
#[derive(Clone, Debug)]
pub(in crate::bench) struct NoOp {
    answer: Arc<CheckQuotaResponse>,
}

impl Default for NoOp {
    fn default() -> Self {
        let answer = CheckQuotaResponse {
            allowed: true,
            decision_id: "5f2b8c1e9a4d7036b1e8f5c2d9a60347".to_owned(),
            limits: vec![
                limit(Period::Hour, 10_000, 1_774_000_800, 3_600),
                limit(Period::Day, 100_000, 1_773_964_800, 86_400),
                limit(Period::Month, 1_000_000, 1_772_323_200, 2_678_400),
            ],
            ..CheckQuotaResponse::default()
        };
        Self {
            answer: Arc::new(answer),
        }
    }
}

/// Where an account stands that has used a bit of a limit.
fn limit(period: Period, limit: u64, start_s: i64, length_s: i64) -> LimitStatus {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    LimitStatus {
        metric: "api.requests".to_owned(),
        period: period.into(),
        limit,
        used: 1_234,
        remaining: limit - 1_234,
        window_start_time: at(start_s),
        window_end_time: at(start_s + length_s),
        mode: LimitMode::Hard.into(),
        stage_factor_percent: 100,
        unreachable_policy: UnreachablePolicy::Deny.into(),
        ..LimitStatus::default()
    }
}

impl NoOp {
    /// A method on tonic answers with a message of its own, so making one belongs to the floor. A server that
    /// could hand out bytes would save another twentieth.
    fn decide(&self, _request: &CheckQuotaRequest) -> CheckQuotaResponse {
        (*self.answer).clone()
    }

    fn result(&self, request: &CheckQuotaRequest) -> CheckQuotaResult {
        CheckQuotaResult {
            outcome: Some(Outcome::Decision(self.decide(request))),
        }
    }

    async fn check_quota(
        self,
        request: Request<CheckQuotaRequest>,
    ) -> Result<Response<CheckQuotaResponse>, Status> {
        Ok(Response::new(self.decide(request.get_ref())))
    }

    async fn check_quota_batch(
        self,
        request: Request<CheckQuotaBatchRequest>,
    ) -> Result<Response<CheckQuotaBatchResponse>, Status> {
        let requests = request.get_ref().requests.iter();
        let results = requests.map(|request| self.result(request)).collect();
        Ok(Response::new(CheckQuotaBatchResponse { results }))
    }

    async fn check_quota_stream(
        self,
        request: Request<Streaming<CheckQuotaStreamRequest>>,
    ) -> Result<Response<impl tokio_stream::Stream<Item = Result<CheckQuotaStreamResponse, Status>>>, Status>
    {
        let answers = request.into_inner().map(move |request| {
            let CheckQuotaStreamRequest {
                correlation_id,
                request,
            } = request?;
            Ok(CheckQuotaStreamResponse {
                correlation_id,
                result: Some(self.result(&request.unwrap_or_default())),
            })
        });
        Ok(Response::new(answers))
    }
}

impl NamedService for NoOp {
    const NAME: &'static str = "octroi.quota.v1.QuotaService";
}

impl Service<http::Request<Body>> for NoOp {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let no_op = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                Checks::PATH => {
                    let method = service_fn(move |request| no_op.clone().check_quota(request));
                    Grpc::new(ProstCodec::default()).unary(method, request).await
                }
                Batches::PATH => {
                    let method = service_fn(move |request| no_op.clone().check_quota_batch(request));
                    Grpc::new(ProstCodec::default()).unary(method, request).await
                }
                Stream::PATH => {
                    let method = service_fn(move |request| no_op.clone().check_quota_stream(request));
                    Grpc::new(ProstCodec::default()).streaming(method, request).await
                }
                _ => Status::unimplemented("the floor has no such method").into_http(),
            })
        })
    }
}
