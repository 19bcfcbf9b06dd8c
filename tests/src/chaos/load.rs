//! Many callers that ask at a given rate, retry at another replica, and write down what they saw.

mod ask;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;
use tonic::Status;

use super::oracle::{End, Kind, Request, Told};
use crate::harness::fleet::Clients;

/// How many callers ask at the same time, the same number at each replica.
pub const CALLERS: u64 = 192;
/// How many requests they send a second together.
pub const RATE: u64 = 1_200;
/// How often a request is tried before it is left for later.
const TRIES: usize = 4;
/// The pause before a try that follows a failure.
const PAUSE: Duration = Duration::from_millis(25);
/// Who cannot keep up is behind by this at most; what was due before is not sent.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// How many requests are resolved at the same time.
const RESOLVED_AT_ONCE: usize = 64;

/// What is asked for, in percent; the rest is consumed.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Reservations.
    pub reserve: u32,
    /// `RecordUsage`.
    pub record: u32,
    /// `TrackUsage`.
    pub track: u32,
    /// Of the holds, in percent: left to expire; committed after that. Of all others half are released or committed
    /// with less, the rest with what was held or more.
    pub expire: u32,
    /// See above.
    pub commit_late: u32,
}

/// Counts of attempts, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were due.
    pub offered: u64,
    /// Requests that were sent, each once.
    pub sent: u64,
    /// Attempts that were answered.
    pub answered: u64,
    /// Attempts that were not.
    pub failed: u64,
}

/// Whom callers ask, and for what.
#[derive(Clone, Debug)]
pub struct Target {
    /// Clients of each replica.
    pub replicas: Vec<Vec<Clients>>,
    /// The account.
    pub account: String,
    /// The metric.
    pub metric: String,
    /// How long holds live, in seconds.
    pub hold_s: u64,
}

/// The callers of one run.
#[derive(Debug)]
pub struct Load {
    target: Target,
    mix: Mix,
    seed: u64,
    started: Instant,
    stopped: AtomicBool,
    offered: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
    done: Mutex<Vec<Request>>,
    ends: Mutex<Vec<JoinHandle<()>>>,
}

/// What is still to be done with a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ending {
    after: Duration,
    used: u64,
}

impl Load {
    /// Callers that do not ask yet.
    #[must_use]
    pub fn new(target: Target, mix: Mix, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            target,
            mix,
            seed,
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failures: Mutex::default(),
            done: Mutex::default(),
            ends: Mutex::default(),
        })
    }

    /// The time since the run began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.target.account
    }

    /// The metric.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.target.metric
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            offered: of(&self.offered),
            sent: of(&self.sent),
            answered: of(&self.answered),
            failed: of(&self.failed),
        }
    }

    /// Lets all callers begin.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        (0..CALLERS)
            .map(|number| tokio::spawn(Arc::clone(self).caller(number)))
            .collect()
    }

    /// Sends a request whenever one is due, until [`Load::stop`].
    async fn caller(self: Arc<Self>, number: u64) {
        let mut pace = self.random(number, 0);
        let interval_us = 1_000_000 * CALLERS / RATE;
        let mut due = self.now() + Duration::from_micros(pace.random_range(0..interval_us));
        let mut count = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            let now = self.now();
            if due > now {
                tokio::time::sleep(due - now).await;
            }
            self.offered.fetch_add(1, Ordering::Relaxed);
            due += Duration::from_micros(pace.random_range(interval_us / 2..interval_us * 3 / 2));
            if self.now().saturating_sub(due) > BEHIND_MAX {
                continue;
            }
            count += 1;
            self.sent.fetch_add(1, Ordering::Relaxed);
            let mut random = self.random(number, count);
            let amount = random.random_range(1..=3);
            let kind = self.kind(&mut random);
            let request = Request::new(format!("r-{}-{number}-{count}", self.seed), kind, amount);
            self.make(request, number, &mut random).await;
        }
    }

    /// What one request of a caller chooses by: the same, however many tries those before it took.
    fn random(&self, caller: u64, count: u64) -> StdRng {
        StdRng::seed_from_u64((self.seed << 48) ^ (caller << 32) ^ count)
    }

    fn kind(&self, random: &mut StdRng) -> Kind {
        let mix = self.mix;
        match random.random_range(0..100) {
            draw if draw < mix.reserve => Kind::Reserve,
            draw if draw < mix.reserve + mix.record => Kind::Record,
            draw if draw < mix.reserve + mix.record + mix.track => Kind::Track,
            _ => Kind::Consume,
        }
    }

    /// Tries a request some times, at a replica of the caller's and then at others.
    async fn make(self: &Arc<Self>, mut request: Request, caller: u64, random: &mut StdRng) {
        let replicas = self.target.replicas.len();
        let mut replica = usize::try_from(caller).unwrap_or(0) % replicas;
        for _ in 0..TRIES {
            self.attempt(&mut request, replica).await;
            if request.told() != Told::Nothing || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            replica = (replica + random.random_range(1..replicas)) % replicas;
            tokio::time::sleep(PAUSE).await;
        }
        match self.ending(&request, random) {
            Some(ending) => {
                let load = Arc::clone(self);
                let end = tokio::spawn(load.end_later(request, ending, replica));
                lock(&self.ends).push(end);
            }
            None => lock(&self.done).push(request),
        }
    }

    /// What a caller means to do with a hold, where one was made.
    fn ending(&self, request: &Request, random: &mut StdRng) -> Option<Ending> {
        let hold = request.hold.as_ref()?;
        let draw = random.random_range(0..100);
        if draw < self.mix.expire {
            return None;
        }
        if draw < self.mix.expire + self.mix.commit_late {
            return Some(Ending {
                after: hold.ttl + Duration::from_millis(random.random_range(200..900)),
                used: random.random_range(1..=request.amount),
            });
        }
        let used = if random.random_bool(0.5) {
            random.random_range(0..request.amount)
        } else {
            random.random_range(request.amount..=request.amount + 1)
        };
        Some(Ending {
            after: Duration::from_millis(random.random_range(0..200)),
            used,
        })
    }

    async fn end_later(self: Arc<Self>, mut request: Request, ending: Ending, replica: usize) {
        tokio::time::sleep(ending.after).await;
        self.end(&mut request, ending.used, replica, TRIES).await;
        lock(&self.done).push(request);
    }

    /// Ends a hold of which so much was used, which is tried so many times.
    async fn end(&self, request: &mut Request, used: u64, mut replica: usize, tries: usize) {
        let Some(id) = request.hold.as_ref().map(|hold| hold.id.clone()) else {
            return;
        };
        let mut end = End {
            used,
            sent: self.now(),
            answered: None,
            overrun: 0,
            late: false,
        };
        for _ in 0..tries {
            match self.target.end(&id, used, replica).await {
                Ok(ended) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    (end.overrun, end.late) = (ended.overrun, ended.late);
                    end.answered = Some(self.now());
                    break;
                }
                Err(status) => {
                    self.has_failed(&status);
                    replica = (replica + 1) % self.target.replicas.len();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        if let Some(hold) = &mut request.hold {
            let sent = hold.end.map_or(end.sent, |before| before.sent);
            hold.end = Some(End { sent, ..end });
        }
    }

    async fn attempt(&self, request: &mut Request, replica: usize) {
        let sent = self.now();
        match self.target.ask(request, replica, sent, || self.now()).await {
            Ok(()) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => self.has_failed(&status),
        }
    }

    fn has_failed(&self, status: &Status) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let why = format!("{:?}: {}", status.code(), status.message());
        *lock(&self.failures).entry(why).or_default() += 1;
    }

    /// Why attempts failed, and how many did.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).clone()
    }

    /// Lets callers end after the request that they are at.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits for holds that are to be ended later, then asks what has no answer yet until it has one, and answers all
    /// requests. Nobody calls meanwhile.
    pub async fn resolve(&self) -> Vec<Request> {
        let ends = std::mem::take(&mut *lock(&self.ends));
        for end in ends {
            // One that panicked would lack its request, which the ledger then has and nobody asked for.
            let _ = end.await;
        }
        let open = std::mem::take(&mut *lock(&self.done));
        let resolving = open.into_iter().map(|request| self.resolve_one(request));
        stream::iter(resolving)
            .buffer_unordered(RESOLVED_AT_ONCE)
            .collect()
            .await
    }

    async fn resolve_one(&self, mut request: Request) -> Request {
        let replicas = self.target.replicas.len();
        let mut replica = 0;
        while request.told() == Told::Nothing {
            self.attempt(&mut request, replica % replicas).await;
            replica += 1;
            if request.told() == Told::Nothing {
                tokio::time::sleep(PAUSE).await;
            }
        }
        loop {
            let open = request.hold.as_ref().and_then(|hold| hold.end);
            let Some(end) = open.filter(|end| end.answered.is_none()) else {
                break;
            };
            self.end(&mut request, end.used, replica % replicas, 1).await;
            replica += 1;
        }
        request
    }

    /// Consumes so much at once, and answers the request with what it was told.
    pub async fn consume(&self, id: &str, amount: u64) -> Request {
        self.resolve_one(Request::new(id.to_owned(), Kind::Consume, amount))
            .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
