//! What became of events and batches, as the contract says it.

use octroi_core::ServiceError as _;
use octroi_kit::status::reason_of;
use octroi_proto::usage::v1 as proto;
use tonic::Status;

use super::{slices::slice_bytes, to_proto_recorded};
use crate::{error::Error, service::Recorded};

/// A refusal of one of many.
pub(super) fn to_proto_item_error(error: &Error) -> proto::ItemError {
    let violations = error.violations().into_iter();
    proto::ItemError {
        code: error.kind().grpc_code(),
        reason: error.reason().to_owned(),
        message: error.to_string(),
        field: violations
            .map(|violation| violation.field)
            .next()
            .unwrap_or_default(),
    }
}

/// A batch of a stream that is not looked at.
#[must_use]
pub fn to_proto_batch_refusal(status: &Status) -> proto::TrackUsageBatchesResult {
    use proto::track_usage_batches_result::Outcome;
    let error = proto::ItemError {
        code: status.code().into(),
        reason: reason_of(status).map_or_else(String::new, |reason| reason.name().to_owned()),
        message: status.message().to_owned(),
        field: String::new(),
    };
    proto::TrackUsageBatchesResult {
        outcome: Some(Outcome::Error(error)),
    }
}

/// What became of one batch of many.
#[must_use]
pub fn to_proto_batches_result(
    result: Result<proto::TrackUsageBatchResponse, Error>,
) -> proto::TrackUsageBatchesResult {
    use proto::track_usage_batches_result::Outcome;
    proto::TrackUsageBatchesResult {
        outcome: Some(match result {
            Ok(response) => Outcome::Response(response),
            Err(error) => Outcome::Error(to_proto_item_error(&error)),
        }),
    }
}

/// What became of one event of a batch.
pub fn to_proto_result(result: &Result<Recorded, Error>) -> proto::TrackUsageResult {
    use proto::track_usage_result::Outcome;
    let outcome = match result {
        Ok(recorded) => Outcome::Recorded(to_proto_recorded(recorded)),
        Err(error) => Outcome::Error(to_proto_item_error(error)),
    };
    let refused_slice_ids = match result {
        Err(Error::SlicesRefused { slices }) => slices.iter().map(slice_bytes).collect(),
        _ => Vec::new(),
    };
    proto::TrackUsageResult {
        outcome: Some(outcome),
        refused_slice_ids,
    }
}
