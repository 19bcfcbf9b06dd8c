//! Requests that are recorded at the same time share one call of the ledger, which has them in one commit.

use futures::FutureExt as _;
use octroi_core::ErrorKind;
use octroi_kit::{
    gather::{Bounds, Gather, Unanswered},
    link::Link,
    status::refusal,
};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        ItemError, TrackUsageBatchRequest, TrackUsageBatchResponse, TrackUsageBatchesRequest,
        track_usage_batches_result::Outcome, usage_service_client::UsageServiceClient,
    },
};
use tonic::{Code, Status};
use tracing::Instrument as _;

/// Calls that are on their way at the same time, and the requests of one: with as many metrics as a check may name each,
/// they are within the events of a call.
const BOUNDS: Bounds = Bounds {
    batches: 4,
    jobs: 500,
    waiting: 50_000,
};

/// A request, and the trace that it belongs to.
type Job = (TrackUsageBatchRequest, tracing::Span);

/// Calls of the ledger. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct LedgerCalls(Gather<Job, Result<TrackUsageBatchResponse, Status>>);

impl LedgerCalls {
    pub(super) fn start(usage: UsageServiceClient<Link>) -> Self {
        Self(Gather::start(BOUNDS, move |jobs| send(usage.clone(), jobs)))
    }

    /// Records the events of a request.
    ///
    /// # Errors
    /// What the ledger answered, or that it did not.
    pub(super) async fn record(
        &self,
        request: TrackUsageBatchRequest,
    ) -> Result<TrackUsageBatchResponse, Status> {
        let job = (request, tracing::Span::current());
        self.0.ask(job).await.map_err(|unanswered| match unanswered {
            Unanswered::Full => {
                let message = "too many requests wait to be recorded";
                refusal(ErrorKind::OverLimit, ErrorReason::Overloaded, message)
            }
            Unanswered::Lost => Status::internal("the call of the ledger ended without an answer"),
        })?
    }
}

async fn send(
    usage: UsageServiceClient<Link>,
    jobs: Vec<Job>,
) -> Vec<Result<TrackUsageBatchResponse, Status>> {
    let (mut batches, mut spans): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    // One call leaves for all, and it can belong to one trace only.
    let span = spans.pop().unwrap_or_else(tracing::Span::none);
    match batches.pop() {
        Some(only) if batches.is_empty() => vec![send_one(usage, only).instrument(span).await],
        last => {
            batches.extend(last);
            send_all(usage, batches).instrument(span).await
        }
    }
}

async fn send_one(
    mut usage: UsageServiceClient<Link>,
    batch: TrackUsageBatchRequest,
) -> Result<TrackUsageBatchResponse, Status> {
    usage
        .track_usage_batch(batch)
        .map(|answer| Ok(answer?.into_inner()))
        .await
}

async fn send_all(
    mut usage: UsageServiceClient<Link>,
    batches: Vec<TrackUsageBatchRequest>,
) -> Vec<Result<TrackUsageBatchResponse, Status>> {
    let count = batches.len();
    let answered = usage
        .track_usage_batches(TrackUsageBatchesRequest { batches })
        .await;
    match answered {
        Ok(answer) => {
            let mut results = answer.into_inner().results.into_iter();
            let next = || match results.next().and_then(|result| result.outcome) {
                Some(Outcome::Response(response)) => Ok(response),
                Some(Outcome::Error(error)) => Err(to_status(&error)),
                None => Err(Status::internal("a batch without an answer")),
            };
            std::iter::repeat_with(next).take(count).collect()
        }
        Err(status) => vec![Err(status); count],
    }
}

/// A refusal of one batch, as it would have come alone.
pub(super) fn to_status(error: &ItemError) -> Status {
    match ErrorReason::from_name(&error.reason) {
        Some(reason) => refusal(ErrorKind::from_grpc_code(error.code), reason, &error.message),
        None => Status::new(Code::from_i32(error.code), error.message.clone()),
    }
}
