//! What the bus carries: the events of a commit in one message, beside one message an event, over RabbitMQ.
//!
//! Publisher and consumer are those of the services, without their databases: messages are published some at a time as the
//! relay of an outbox does, and whoever takes one reads its events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use octroi_kit::{
    bus::{Backend, Bus, Config, HandleError, Handler, Message, Queue, Topology},
    config::Secret,
    dead_letter::DeadLetterTables,
};
use octroi_proto::{
    event::Event as _,
    events::v1::{RecordedUsage, UsageRecorded},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic_prost::prost::Message as _;
use uuid::Uuid;

use super::{Bench, catalog::CALLS};
use crate::{
    bench::{
        cpu::Meter,
        histogram::Histogram,
        load::Round,
        report::Unit,
        rounds::{self, Figure, ROUNDS_MIN, Side},
        stores::{RABBITMQ, Stores},
    },
    harness::fleet::now,
};

const QUEUE: Queue = Queue::new("bench.events", &["usage.recorded"]);
/// As many at once as the relay publishes.
const AT_ONCE: usize = 64;
/// Events of one message, and how many such messages a round has.
const EVENTS: usize = 1_000;
const MESSAGES: usize = 256;
/// Messages of a round where each has one event.
const SINGLE_MESSAGES: usize = 4_096;
/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// The meter of publisher and consumer, which are this process.
const OURS: &str = "publisher and consumer";

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("bus")
        .enable_all()
        .build()?;
    let road = Road::open(&runtime, &bench.stores)?;
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("bus, one event a message", || {
                runtime.block_on(road.carry(SINGLE_MESSAGES, 1))
            }),
            Side::new("bus, 1,000 events a message", || {
                runtime.block_on(road.carry(MESSAGES, EVENTS))
            }),
        ],
    )?;
    let [single, many] = &all;
    let rate = single.figure(Round::decisions_per_s);
    report.add(&single.name, Unit::EventsPerSecond, &rate)?;
    let rate = many.figure_against(single, Round::decisions_per_s);
    let case = format!("{}: of one event a message", many.name);
    report.add(&case, Unit::EventsPerSecond, &rate)?;
    for series in &all {
        for meter in [OURS, RABBITMQ] {
            super::rows::add_cpu(report, series, meter)?;
        }
    }
    let bytes = message(EVENTS).payload.len();
    report.add(
        "bus, 1,000 events a message: kilobytes a message",
        Unit::Units,
        &Figure::of((bytes / 1_000) as f64),
    )?;
    runtime.block_on(road.close())
}

/// From a publisher over the broker to a consumer.
struct Road {
    bus: Bus,
    taken: Arc<Taken>,
    broker: Meter,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

/// What the consumer has read.
#[derive(Debug, Default)]
struct Taken {
    messages: AtomicU64,
    events: AtomicU64,
}

impl Road {
    fn open(runtime: &Runtime, stores: &Stores) -> Result<Self> {
        let corner = stores.servers().rabbitmq.namespace();
        let config = Config {
            backend: Backend::RabbitMq,
            url: Secret::new(corner.url),
            namespace: corner.namespace,
            ..Config::default()
        };
        let topology = Topology::new([(QUEUE.name, QUEUE.routing_keys)])?;
        let bus = Bus::new(&config, topology, Arc::new(DeadLetterTables::default()))?;
        let taken = Arc::new(Taken::default());
        bus.subscribe(QUEUE, handler(&taken))?;
        let stop = CancellationToken::new();
        let running = runtime.spawn({
            let (bus, stop) = (bus.clone(), stop.clone());
            async move { bus.run(stop).await }
        });
        runtime.block_on(async {
            let since = Instant::now();
            while !bus.is_ready() {
                ensure!(since.elapsed() < ROUND_MAX, "RabbitMQ cannot be reached");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        })?;
        Ok(Self {
            bus,
            taken,
            broker: stores.broker(),
            stop,
            running,
        })
    }

    /// Brings messages of so many events each to the consumer, from the first that is published until the last is read.
    async fn carry(&self, messages: usize, events: usize) -> Result<Round> {
        let mut waiting: Vec<Message> = (0..messages).map(|_| message(events)).collect();
        let [messages_before, events_before] = self.taken.so_far();
        let meters = [Meter::process(OURS, std::process::id()), self.broker.clone()];
        let read = || meters.each_ref().map(Meter::read);
        let (before, since) = (read(), Instant::now());
        while !waiting.is_empty() {
            ensure!(since.elapsed() < ROUND_MAX, "{} messages are left", waiting.len());
            let sent: Vec<Message> = waiting.drain(..AT_ONCE.min(waiting.len())).collect();
            let outcomes = self.bus.publish(sent.clone()).await;
            // What is not confirmed is published again, as from an outbox.
            waiting.extend(
                sent.into_iter()
                    .zip(outcomes)
                    .filter(|(_, outcome)| outcome.is_err())
                    .map(|(message, _)| message),
            );
        }
        let expected = messages_before + messages as u64;
        while self.taken.so_far()[0] < expected {
            ensure!(
                since.elapsed() < ROUND_MAX,
                "of {expected} messages {} were read",
                self.taken.so_far()[0]
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (measured, after) = (since.elapsed(), read());
        let carried = self.taken.so_far()[1] - events_before;
        let expected = (messages * events) as u64;
        ensure!(carried == expected, "{carried} events were read of {expected}");
        let mut cpu = Vec::new();
        for ((meter, before), after) in meters.into_iter().zip(before).zip(after) {
            cpu.push((meter.name, after?.saturating_sub(before?)));
        }
        Ok(Round::of_others(measured, carried, Histogram::default(), cpu))
    }

    async fn close(self) -> Result<()> {
        self.stop.cancel();
        self.running.await.context("the bus does not stop")
    }
}

impl Taken {
    fn so_far(&self) -> [u64; 2] {
        [&self.messages, &self.events].map(|count| count.load(Ordering::SeqCst))
    }
}

/// Reads the events of a message, as every consumer does.
fn handler(taken: &Arc<Taken>) -> Handler {
    let taken = Arc::clone(taken);
    Arc::new(move |message| {
        let taken = Arc::clone(&taken);
        Box::pin(async move {
            let event = UsageRecorded::decode(message.payload).map_err(HandleError::poison)?;
            taken
                .events
                .fetch_add(event.events.len() as u64, Ordering::SeqCst);
            taken.messages.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    })
}

/// A commit of so many events.
fn message(events: usize) -> Message {
    let now = now();
    let event = |number: usize| RecordedUsage {
        account_id: format!("bench-{number}"),
        metric: CALLS.to_owned(),
        amount: 1,
        event_time: Some(octroi_kit::convert::to_proto_time(now)),
        source: "application".to_owned(),
        event_id: format!("0000000000000abc-{number:016x}"),
        ..RecordedUsage::default()
    };
    let recorded = UsageRecorded {
        events: (0..events).map(event).collect(),
        ledger_transaction: 1,
        record_time: Some(octroi_kit::convert::to_proto_time(now)),
    };
    Message {
        id: Uuid::new_v4(),
        routing_key: UsageRecorded::ROUTING_KEY.to_owned(),
        payload: recorded.encode_to_vec().into(),
        traceparent: None,
        occurred_at: now,
    }
}
