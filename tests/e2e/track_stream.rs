//! Events that are recorded as they come, over one stream.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use futures::stream;
use octroi_proto::usage::v1::{
    TrackUsageBatchRequest, TrackUsageStreamRequest, UsageEvent,
    track_usage_batches_result::Outcome as OfBatch, track_usage_result::Outcome,
};
use octroi_tests::harness::fleet::{APPLICATION, Fleet};

use crate::{
    asks::{event, upsert_account},
    ledger::ledger,
    story::both_topologies,
};

both_topologies!(each_batch_of_a_stream_is_answered_once_it_is_recorded);

const ACCOUNT: &str = "acme";
const METRIC: &str = "llm.tokens_in";
const BATCHES: u64 = 60;
const EVENTS: u64 = 40;
/// A batch without events.
const EMPTY: u64 = 1_000;
/// A batch of which one event has no amount.
const HALF: u64 = 1_001;

fn used(number: u64) -> UsageEvent {
    event(ACCOUNT, &format!("e-{number}"), METRIC, 1)
}

fn batch(correlation_id: u64, events: Vec<UsageEvent>) -> TrackUsageStreamRequest {
    let batch = TrackUsageBatchRequest {
        events,
        ..TrackUsageBatchRequest::default()
    };
    TrackUsageStreamRequest {
        correlation_id,
        batch: Some(batch),
    }
}

async fn each_batch_of_a_stream_is_answered_once_it_is_recorded(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    // Each shares half of its events with the one before.
    let numbers = |place: u64| place * EVENTS / 2..place * EVENTS / 2 + EVENTS;
    let mut sent: Vec<TrackUsageStreamRequest> = (0..BATCHES)
        .map(|place| batch(place, numbers(place).map(used).collect()))
        .collect();
    sent.push(batch(EMPTY, Vec::new()));
    let without_amount = UsageEvent { amount: 0, ..used(1) };
    sent.push(batch(HALF, vec![used(0), without_amount]));

    let mut answers = app
        .usage
        .clone()
        .track_usage_stream(stream::iter(sent))
        .await?
        .into_inner();
    let mut answered = BTreeMap::new();
    let mut first = 0;
    while let Some(answer) = answers.message().await? {
        let outcome = answer
            .result
            .and_then(|result| result.outcome)
            .context("no outcome")?;
        let told = match outcome {
            OfBatch::Error(error) => vec![format!("{} {}", error.reason, error.field)],
            OfBatch::Response(response) => {
                let mut told = Vec::new();
                for result in response.results {
                    told.push(match result.outcome.context("no outcome")? {
                        Outcome::Recorded(recorded) => {
                            first += u64::from(!recorded.duplicate);
                            "recorded".to_owned()
                        }
                        Outcome::Error(error) => format!("{} {}", error.reason, error.field),
                    });
                }
                told
            }
        };
        let twice = answered.insert(answer.correlation_id, told);
        ensure!(twice.is_none(), "{} was answered twice", answer.correlation_id);
    }
    let expected: BTreeSet<u64> = (0..BATCHES).flat_map(numbers).collect();
    ensure!(answered.remove(&EMPTY).context("no answer")? == ["FIELD_INVALID batch.events"]);
    let half = answered.remove(&HALF).context("no answer")?;
    ensure!(half == ["recorded", "FIELD_INVALID events[1].amount"], "{half:?}");
    ensure!(answered.len() as u64 == BATCHES, "{} answers", answered.len());
    for (place, told) in answered {
        let recorded = told.len() as u64 == EVENTS && told.iter().all(|one| one == "recorded");
        if !recorded {
            bail!("{place}: {told:?}");
        }
    }
    ensure!(first == expected.len() as u64, "{first} were new");
    let found = ledger(fleet).await?;
    ensure!(found.len() == expected.len(), "{} are in the ledger", found.len());
    Ok(())
}
