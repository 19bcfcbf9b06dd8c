//! Callers of usage in its own process, each of which waits for its answer and calls again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use octroi_core::{AccountId, EventId, MetricSlug, Source, Units};
use octroi_usage::{
    Service,
    domain::event::{Event, Identity, Origin},
};
use tokio::task::JoinSet;

use super::{catalog::CALLS, rig::ACCOUNTS};
use crate::bench::{cpu::Meter, histogram::Histogram, load::Round};

/// How many call at the same time.
pub(super) const CALLERS: u32 = 4_096;
/// The beginning of the names of the accounts that they record for.
pub(super) const NAME: &str = "called";
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
/// Callers that share a histogram, so that they seldom wait for each other.
const SHARDS: usize = 16;

/// What the callers of a round have in common.
#[derive(Debug, Default)]
struct Shared {
    is_measured: AtomicBool,
    is_over: AtomicBool,
    /// Events that were recorded while it was measured.
    measured: AtomicU64,
    /// All events that were recorded.
    all: AtomicU64,
    latencies: [Mutex<Histogram>; SHARDS],
}

/// A round: what was measured, and how many events were recorded in all.
pub(super) async fn round(service: &Service, run: u64, postgres: &Meter) -> Result<(Round, u64)> {
    let shared = Arc::new(Shared::default());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (service, shared) = (service.clone(), Arc::clone(&shared));
        let caller = Caller::new(run, number)?;
        callers.spawn(async move { caller.call(&service, &shared, number as usize).await });
    }
    tokio::time::sleep(WARM_UP).await;
    let meters = [
        Meter::process(super::rig::USAGE, std::process::id()),
        postgres.clone(),
    ];
    let read = || meters.each_ref().map(Meter::read);
    let (before, since) = (read(), Instant::now());
    shared.is_measured.store(true, Ordering::Relaxed);
    tokio::time::sleep(MEASURED).await;
    shared.is_measured.store(false, Ordering::Relaxed);
    let (after, measured) = (read(), since.elapsed());
    shared.is_over.store(true, Ordering::Relaxed);
    while let Some(called) = callers.join_next().await {
        called?.context("a caller was refused")?;
    }
    let mut latencies = Histogram::default();
    for shard in &shared.latencies {
        latencies.merge(&shard.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let mut cpu = Vec::new();
    for ((meter, before), after) in meters.into_iter().zip(before).zip(after) {
        cpu.push((meter.name, after?.saturating_sub(before?)));
    }
    let done = shared.measured.load(Ordering::Relaxed);
    ensure!(done > 0, "nothing was recorded in {measured:?}");
    let round = Round::of_others(measured, done, latencies, cpu);
    Ok((round, shared.all.load(Ordering::Relaxed)))
}

/// Records one event, after which usage knows the catalog and the month: it is those who call again and again that are measured,
/// not that all of them find a process that has just started.
pub(super) async fn call_once(service: &Service) -> Result<()> {
    let caller = Caller::new(0, CALLERS)?;
    let recorded = service.track_usage(caller.event(0)?).await?;
    ensure!(!recorded.duplicate, "an event was there before");
    Ok(())
}

/// One of those who call.
struct Caller {
    account: AccountId,
    source: Source,
    metric: MetricSlug,
    /// The beginning of its events' ids.
    ids: String,
}

impl Caller {
    fn new(run: u64, number: u32) -> Result<Self> {
        Ok(Self {
            account: AccountId::parse(&format!("{NAME}-{}", number % ACCOUNTS))?,
            source: Source::parse("application")?,
            metric: MetricSlug::parse(CALLS)?,
            ids: format!("{run:08x}-{number:08x}"),
        })
    }

    fn event(&self, number: u64) -> Result<Event> {
        Ok(Event {
            identity: Identity {
                account: self.account.clone(),
                source: self.source.clone(),
                event_id: EventId::parse(&format!("{}-{number:015x}", self.ids))?,
            },
            metric: self.metric.clone(),
            amount: Units::positive(1)?,
            event_at: None,
            properties: BTreeMap::new(),
            origin: Origin::Direct,
            backfill: false,
            charges: Vec::new(),
        })
    }

    /// Calls until the round is over.
    async fn call(self, service: &Service, shared: &Shared, shard: usize) -> Result<()> {
        let mut number = 0;
        while !shared.is_over.load(Ordering::Relaxed) {
            let event = self.event(number)?;
            let since = Instant::now();
            let recorded = service.track_usage(event).await?;
            ensure!(!recorded.duplicate, "an event was there before");
            number += 1;
            shared.count(since.elapsed(), shard);
        }
        Ok(())
    }
}

impl Shared {
    /// An event was recorded.
    fn count(&self, latency: Duration, shard: usize) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if self.is_measured.load(Ordering::Relaxed) {
            self.measured.fetch_add(1, Ordering::Relaxed);
            let latencies = &self.latencies[shard % SHARDS];
            latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .record(latency);
        }
    }
}
