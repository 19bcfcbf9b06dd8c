//! Sixteen consumers on eight replicas hear of the ledger, in any order and more than once.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use octroi_kit::{
    bus::{self, Backend, Bus, Message, Topology as Routes},
    config::Secret,
    dead_letter::DeadLetterTables,
};
use octroi_proto::{
    common::v1::{Period, Stage},
    event::{Event as _, QUEUES},
    events::v1::{RecordedUsage, UsageRecorded},
};
use octroi_tests::harness::fleet::{APPLICATION, Fleet, OPERATOR, eventually, now, roomy_hour};
use prost::Message as _;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ACCOUNT, METRIC, REPLICAS, made_of,
    replaced::{apply, hour_is},
    thresholds::knows,
};
use crate::asks::upsert_account;

/// Units of each commit that is told of.
const UNITS: u64 = 4;
/// How often each message is delivered.
const DELIVERIES: usize = 3;

/// The first has the service's name alone.
fn replica_name(number: usize) -> String {
    match number {
        1 => "quota".to_owned(),
        _ => format!("quota-{number}"),
    }
}

/// What the ledger would tell of so many units, each message some times, shuffled.
fn messages(units: u64, seed: u64) -> Vec<Message> {
    let at = prost_types::Timestamp {
        seconds: now().as_second(),
        nanos: 0,
    };
    let event = || RecordedUsage {
        account_id: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        amount: 1,
        event_time: Some(at),
        source: "story".to_owned(),
        event_id: Uuid::new_v4().to_string(),
        ..RecordedUsage::default()
    };
    let commit = || UsageRecorded {
        events: (0..UNITS).map(|_| event()).collect(),
        ..UsageRecorded::default()
    };
    let message = |commit: UsageRecorded| Message {
        id: Uuid::new_v4(),
        routing_key: UsageRecorded::ROUTING_KEY.to_owned(),
        payload: commit.encode_to_vec().into(),
        traceparent: None,
        occurred_at: now(),
    };
    let once: Vec<Message> = (0..units / UNITS).map(|_| message(commit())).collect();
    let mut all: Vec<Message> = std::iter::repeat_n(once, DELIVERIES).flatten().collect();
    all.shuffle(&mut StdRng::seed_from_u64(seed));
    all
}

pub(super) async fn sixteen_consumers_tell_each_share_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let billing = fleet.clients("billing")?;
    upsert_account(&app, ACCOUNT).await?;
    let namespace = fleet.bus().context("a split fleet has a bus")?;
    let config = bus::Config {
        backend: Backend::RabbitMq,
        url: Secret::new(namespace.url.as_str()),
        namespace: namespace.namespace.clone(),
        ..bus::Config::default()
    };
    let letters = DeadLetterTables::default();
    let bus = Bus::new(&config, Routes::new(QUEUES.iter().copied())?, Arc::new(letters))?;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (bus, stop) = (bus.clone(), stop.clone());
        async move { bus.run(stop).await }
    });

    let mut expected = BTreeSet::new();
    for (version, limit) in [(1, 400), (2, 800)] {
        apply(&app, &billing, version, Stage::Current, |limits| {
            for one in limits.iter_mut().filter(|one| one.metric == METRIC) {
                let is_hour = one.period() == Period::Hour;
                one.amount = if is_hour { limit } else { 1_000_000 };
            }
        })
        .await?;
        // The others hear of it a moment later, and what they follow until then is measured by the limit of before.
        for number in 1..=REPLICAS {
            let replica = fleet.clients_at(APPLICATION, &replica_name(number))?;
            eventually("the replica has the limit", async || {
                let (amount, ..) = made_of(&replica, METRIC, Period::Hour).await?;
                ensure!(amount == limit, "{amount} of {limit}");
                Ok(())
            })
            .await?;
        }
        // Half of the greater limit is used by then, so that none of its shares is passed yet.
        let told = messages(400, limit);
        for sent in told.chunks(50) {
            for outcome in bus.publish(sent.to_vec()).await {
                outcome?;
            }
        }
        expected.extend([80, 95, 100].map(|percent| (limit, percent)));
        knows(&operator, &expected).await?;
        hour_is(&app, limit, 400 * version, 0).await?;
    }
    stop.cancel();
    running.await?;
    ensure!(expected.len() == 6);
    Ok(())
}
