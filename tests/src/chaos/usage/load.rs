//! Senders that write down what they send before they do, and send again what was not answered.

mod call;
mod stream;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;

use super::{
    oracle::{Fate, Forgery, Log, Told},
    plan::{Parcel, Plan, Way},
    site::Program,
};
use crate::harness::fleet::Clients;

/// The pause before a call is made again.
const PAUSE_MS: std::ops::Range<u64> = 10..60;
/// A call that is to be cancelled is, within this many microseconds.
const CANCELLED_WITHIN_US: u64 = 30_000;
/// Of the events that go alone, in percent: sent again with other content once they were acknowledged.
const FORGED: u32 = 5;
/// How often an answer to a forgery is asked for.
const FORGED_TRIES: u32 = 3;
/// How often the progress is looked at.
const POLL: Duration = Duration::from_millis(5);

impl Way {
    /// How many senders there are.
    fn senders(self) -> usize {
        match self {
            Self::Unary => 24,
            Self::Batch => 4,
            Self::Stream => 2,
            Self::Rest => 6,
        }
    }
}

/// Whom senders send to, and as what.
#[derive(Clone, Debug)]
pub struct Target {
    /// Clients of each replica.
    pub recorders: Vec<Clients>,
    /// Programs with a key, in the order of the accounts in the log.
    pub programs: Vec<Program>,
    /// The source of every event.
    pub source: String,
}

/// The senders of one run.
#[derive(Debug)]
pub struct Load {
    target: Target,
    seed: u64,
    /// Of the calls, in percent: cancelled by whoever made them.
    cancelled: u32,
    started: Instant,
    log: Mutex<Log>,
    waiting: BTreeMap<Way, Mutex<VecDeque<Parcel>>>,
    parcels: usize,
    done: AtomicUsize,
    failed: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    /// Senders that do not send yet.
    #[must_use]
    pub fn new(target: Target, accounts: Vec<String>, plan: Plan, seed: u64, cancelled: u32) -> Arc<Self> {
        let fates = vec![Fate::default(); plan.events.len()];
        let parcels = plan.parcels.values().map(Vec::len).sum();
        let waiting = plan.parcels.into_iter();
        Arc::new(Self {
            target,
            seed,
            cancelled,
            started: Instant::now(),
            log: Mutex::new(Log {
                accounts,
                events: plan.events,
                fates,
                ..Log::default()
            }),
            waiting: waiting
                .map(|(way, parcels)| (way, Mutex::new(parcels.into())))
                .collect(),
            parcels,
            done: AtomicUsize::new(0),
            failed: AtomicU64::new(0),
            failures: Mutex::default(),
        })
    }

    /// Lets all senders begin. They end when every event has an answer.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let mut senders = Vec::new();
        for way in Way::ALL {
            for number in 0..way.senders() {
                let load = Arc::clone(self);
                senders.push(match way {
                    Way::Stream => tokio::spawn(load.stream(number)),
                    way => tokio::spawn(load.send(way, number)),
                });
            }
        }
        senders
    }

    /// What was seen so far.
    #[must_use]
    pub fn log(&self) -> Log {
        lock(&self.log).clone()
    }

    /// How many events the plan has.
    #[must_use]
    pub fn events(&self) -> usize {
        lock(&self.log).events.len()
    }

    /// Writes down a message that nobody can handle, before it is sent.
    pub fn poisons(&self, poison: String) {
        lock(&self.log).poison.insert(poison);
    }

    /// Whether every call was answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed) == self.parcels
    }

    /// Waits until so many percent of the calls were answered.
    pub async fn reaches(&self, percent: usize) {
        while self.done.load(Ordering::Relaxed) * 100 < self.parcels * percent {
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many calls failed, and why.
    #[must_use]
    pub fn failures(&self) -> (u64, BTreeMap<String, u64>) {
        (self.failed.load(Ordering::Relaxed), lock(&self.failures).clone())
    }

    /// What one call chooses by, whatever others do.
    fn random(&self, parcel: &Parcel) -> StdRng {
        StdRng::seed_from_u64((self.seed << 40) ^ parcel.number)
    }

    /// The next call of a way, once it is due.
    async fn next(&self, way: Way) -> Option<Parcel> {
        let waiting = self.waiting.get(&way)?;
        loop {
            let left = {
                let mut waiting = lock(waiting);
                let left = waiting.front()?.due.saturating_sub(self.started.elapsed());
                if left.is_zero() {
                    return waiting.pop_front();
                }
                left
            };
            // Whoever is cancelled here has taken nothing.
            tokio::time::sleep(left).await;
        }
    }

    async fn send(self: Arc<Self>, way: Way, number: usize) {
        let mut replica = number;
        while let Some(parcel) = self.next(way).await {
            let mut random = self.random(&parcel);
            let mut open = parcel.events.clone();
            loop {
                let cancelled_after = self.cancellation(&mut random);
                self.sends(&open);
                let told = self.call(way, &open, replica, cancelled_after).await;
                open = self.told(open, told);
                if open.is_empty() {
                    break;
                }
                replica += 1;
                pause(&mut random).await;
            }
            if let [event] = parcel.events[..]
                && way == Way::Unary
                && random.random_ratio(FORGED, 100)
            {
                self.forge(event, replica, &mut random).await;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// When a call is cancelled, where it is.
    fn cancellation(&self, random: &mut StdRng) -> Option<Duration> {
        let after = Duration::from_micros(random.random_range(0..CANCELLED_WITHIN_US));
        random.random_ratio(self.cancelled, 100).then_some(after)
    }

    /// Writes down that events are sent, before they are.
    fn sends(&self, events: &[usize]) {
        let mut log = lock(&self.log);
        for event in events {
            if let Some(fate) = log.fates.get_mut(*event) {
                fate.sent += 1;
            }
        }
    }

    /// Writes down what events were told, and answers those that must be sent again.
    fn told(&self, events: Vec<usize>, told: Result<Vec<Told>, String>) -> Vec<usize> {
        let told = match told {
            Ok(told) if told.len() == events.len() => told,
            Ok(told) => {
                self.has_failed(&format!("{} results of {} events", told.len(), events.len()));
                return events;
            }
            Err(why) => {
                self.has_failed(&why);
                return events;
            }
        };
        let mut open = Vec::new();
        let mut log = lock(&self.log);
        for (event, told) in events.into_iter().zip(told) {
            let Some(fate) = log.fates.get_mut(event) else {
                continue;
            };
            match told {
                Told::New => fate.new += 1,
                Told::Duplicate => fate.duplicate += 1,
                Told::Refused(why) => fate.refused = Some(why),
                Told::Nothing(why) => {
                    open.push(event);
                    self.has_failed(&why);
                }
            }
        }
        open
    }

    /// Sends an event that was acknowledged with other content.
    async fn forge(&self, event: usize, mut replica: usize, random: &mut StdRng) {
        for _ in 0..FORGED_TRIES {
            let told = match self.call_forged(event, replica).await {
                Ok(told) => told,
                Err(why) => Told::Nothing(why),
            };
            let is_answered = !matches!(told, Told::Nothing(_));
            lock(&self.log).forgeries.push(Forgery { event, told });
            if is_answered {
                return;
            }
            replica += 1;
            pause(random).await;
        }
    }

    fn has_failed(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *lock(&self.failures).entry(why.to_owned()).or_default() += 1;
    }
}

async fn pause(random: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
