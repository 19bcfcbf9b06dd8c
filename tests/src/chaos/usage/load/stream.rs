//! `TrackUsageStream`: what was sent and not answered when it breaks is sent over the next.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use octroi_proto::usage::v1::{
    TrackUsageStreamRequest, TrackUsageStreamResponse, track_usage_batches_result::Outcome as OfBatch,
};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    super::{
        oracle::Told,
        plan::{Parcel, Way},
    },
    Load,
    call::{refused, results, told_by_error},
    pause,
};

/// How many batches of a stream are on their way.
const IN_FLIGHT: usize = 4;
/// How many batches a stream has, so that some are young.
const BATCHES: u32 = 25;
/// How long a sender waits for the next answer before it begins another stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// Batches that were not answered whole, by their number: the events that still need an answer.
type Open = BTreeMap<u64, Vec<usize>>;

impl Load {
    /// Sends over one stream after the other until every batch was answered.
    pub(super) async fn stream(self: Arc<Self>, number: usize) {
        let mut random = StdRng::seed_from_u64((self.seed << 40) ^ (1 << 39) ^ number as u64);
        let (mut open, mut replica) = (Open::new(), number);
        loop {
            let cancelled_after = self.cancellation(&mut random);
            let streaming = self.one_stream(&mut open, replica);
            let ended = match cancelled_after {
                Some(after) => tokio::time::timeout(after, streaming)
                    .await
                    .unwrap_or_else(|_| Err(Status::cancelled("the call was cancelled"))),
                None => streaming.await,
            };
            match ended {
                Ok(true) => return,
                Ok(false) => continue,
                // A stream says nothing of its batches where it ends; they are sent again.
                Err(status) => {
                    self.has_failed(&refused(&status).map_or_else(|why| why, |told| format!("{told:?}")))
                }
            }
            replica += 1;
            pause(&mut random).await;
        }
    }

    /// Sends what is open and then what comes next, some batches; answers whether nothing comes any more.
    async fn one_stream(&self, open: &mut Open, replica: usize) -> Result<bool, Status> {
        let mut usage = self.recorder(replica).map_err(Status::internal)?;
        let (to, from) = mpsc::channel(IN_FLIGHT);
        // What is open fits into the channel, so nobody has to read it yet.
        for (number, events) in &*open {
            self.give(&to, *number, events).await?;
        }
        let opening = usage.track_usage_stream(ReceiverStream::new(from));
        let mut answers = in_time(opening).await?.into_inner();
        let (mut is_over, mut given) = (false, 0);
        loop {
            while !is_over && given < BATCHES && open.len() < IN_FLIGHT {
                given += 1;
                let Some(Parcel { number, events, .. }) = self.next(Way::Stream).await else {
                    is_over = true;
                    break;
                };
                // Before anything that may be cancelled, so that it is not forgotten.
                open.insert(number, events.clone());
                self.give(&to, number, &events).await?;
            }
            if open.is_empty() {
                return Ok(is_over);
            }
            let answer = in_time(answers.message()).await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream ended"))?;
            self.answered(open, &to, answer).await?;
        }
    }

    async fn give(
        &self,
        to: &mpsc::Sender<TrackUsageStreamRequest>,
        correlation_id: u64,
        events: &[usize],
    ) -> Result<(), Status> {
        self.sends(events);
        let request = TrackUsageStreamRequest {
            correlation_id,
            batch: Some(self.request(events)),
        };
        let given = to.send(request).await;
        given.map_err(|_| Status::unavailable("the stream takes no more"))
    }

    /// Writes down what a batch was told; what of it was not answered is sent again.
    async fn answered(
        &self,
        open: &mut Open,
        to: &mpsc::Sender<TrackUsageStreamRequest>,
        answer: TrackUsageStreamResponse,
    ) -> Result<(), Status> {
        let number = answer.correlation_id;
        let Some(events) = open.remove(&number) else {
            return Err(Status::internal("an answer to a batch that was not sent"));
        };
        let told = match answer.result.and_then(|result| result.outcome) {
            Some(OfBatch::Response(response)) => Ok(results(response)),
            Some(OfBatch::Error(error)) => match told_by_error(&error) {
                Told::Nothing(why) => Err(why),
                told => Ok(vec![told; events.len()]),
            },
            None => Err("a result without outcome".to_owned()),
        };
        let again = self.told(events, told);
        if again.is_empty() {
            self.done.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        open.insert(number, again.clone());
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.give(to, number, &again).await
    }
}

async fn in_time<T>(waiting: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(PATIENCE, waiting).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("nobody waited any longer")))
}
