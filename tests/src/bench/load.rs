//! Runs a case: one thread that keeps connections full, and what came of it.
//!
//! The load is a closed loop: there are always `connections × in_flight` requests open, and an answer makes
//! room for the next request. So requests/s is what the server can do with so many callers, and a latency is
//! what such a caller waits; it says nothing about a server that is asked at a rate of its own.
//!
//! A case with a [rate](Case::rate) is an open loop instead: requests are due at that rate, whatever became of those before,
//! and a latency counts from when its request was due. What was due and could not be sent, because every place was taken, is
//! counted ([`Round::overdue`]).
//!
//! # When a round is void
//!
//! A round says something about the server only if the server was what everybody waited for. A closed loop
//! never runs late, so it cannot count what it failed to send; but it has nothing to do whenever it waits for
//! answers, and then it sleeps. A generator that never sleeps may be the slower one of the two. So a round is
//! void where the generator's thread was busy for [`BUSY_MAX_PER_MILLE`] of the time or more: on its core, or
//! ready to run while something else had it (a database that shares the core, say); the kernel counts both. The
//! load of the whole core would take that database's work for ours, and the thread's CPU time alone would miss
//! that it was kept from running.
//!
//! It may happen that generator and server are both always busy, and that the figure is right. There is no
//! telling, so it is void all the same: give the generator another core, or the case fewer connections with
//! more requests each, which makes its work cheaper.
//!
//! Where the generator had time to spare and the server's cores were idle too, the round is good: something
//! else (the ledger's disk, Redis, too few callers) is the limit, and it is the server's to have.

mod generator;
mod lane;
mod pace;
mod tally;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    cpu::{Meter, ThreadTime},
    histogram::Histogram,
    http2::Head,
    pin::{self, Cores},
    proc,
    traffic::Traffic,
};
use generator::Generator;
use lane::Heads;

pub use tally::Tally;

/// From here on a generator counts as always busy.
pub const BUSY_MAX_PER_MILLE: u32 = 950;

/// Who is asked, how, and for how long.
#[derive(Clone, Debug)]
pub struct Case {
    /// The server.
    pub address: SocketAddr,
    /// The token to call with.
    pub token: Option<String>,
    /// How many connections. A method that is a stream has one stream on each.
    pub connections: usize,
    /// How many requests are open on each connection.
    pub in_flight: u32,
    /// How many requests are due each second, over all connections; none keeps every place full.
    pub rate: Option<u32>,
    /// How long to ask before anything is measured.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
    /// Where the generator runs, and where the server does; none leaves the generator where the caller is.
    pub cores: Option<Cores>,
    /// Whose CPU time is measured.
    pub meters: Vec<Meter>,
}

impl Case {
    /// A case as most are: 8 × 32 requests, 1 s warm-up, 2 s measured.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
            connections: 8,
            in_flight: 32,
            rate: None,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(2),
            cores: None,
            meters: Vec::new(),
        }
    }

    fn heads(&self, path: &str, second: Option<&str>) -> Heads {
        let with_token = |head: Head| match &self.token {
            Some(token) => head.with_token(token),
            None => head,
        };
        let first = match second {
            Some(_) => Head::one_of_many(path),
            None => Head::new(path),
        };
        Heads {
            first: with_token(first),
            second: second.map(|path| with_token(Head::one_of_many(path))),
        }
    }
}

/// What came of one run of a case.
#[derive(Clone, Debug)]
pub struct Round {
    /// How long was measured.
    pub measured: Duration,
    /// What was counted in that time.
    pub tally: Tally,
    /// What was counted in all, warm-up and last answers included: what an oracle compares with.
    pub total: Tally,
    /// Latencies in that time.
    pub latencies: Histogram,
    /// Requests that were due and not sent when that time was over; 0 in a closed loop.
    pub overdue: u64,
    /// The generator's thread in that time.
    pub generator: ThreadTime,
    /// The CPU time of each meter in that time.
    pub cpu: Vec<(String, Duration)>,
    /// What the cores of the case did in that time, for whomever; none where it has none.
    pub cores: Option<CoresTime>,
}

/// What cores did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoresTime {
    /// How many there are.
    pub count: u32,
    /// How long they were at work, together.
    pub busy: Duration,
}

impl Round {
    /// A round of something that this generator did not send: so much was done, one thing at a time.
    pub(super) fn of_others(
        measured: Duration,
        done: u64,
        latencies: Histogram,
        cpu: Vec<(String, Duration)>,
    ) -> Self {
        let tally = Tally {
            sent: done,
            answered: done,
            allowed: done,
            ..Tally::default()
        };
        Self {
            measured,
            total: tally.clone(),
            tally,
            latencies,
            overdue: 0,
            generator: ThreadTime::default(),
            cpu,
            cores: None,
        }
    }

    /// The round, if all that it sent was answered well. Anything else is cheaper than a decision.
    ///
    /// # Errors
    /// What came back instead.
    pub fn good(self) -> Result<Self> {
        ensure!(
            self.total.failed() == 0,
            "not all was answered well: {}",
            self.total
        );
        ensure!(
            self.tally.answered > 0,
            "nothing was answered in {:?}",
            self.measured
        );
        Ok(self)
    }

    /// Whether the generator may have been the slower one; see the module.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.generator_busy_per_mille() >= u128::from(BUSY_MAX_PER_MILLE)
    }

    /// The share of the time that the generator was busy, rounded down.
    #[must_use]
    pub fn generator_busy_per_mille(&self) -> u128 {
        let busy = self.generator.running + self.generator.waiting;
        busy.as_nanos() * 1_000 / self.measured.as_nanos().max(1)
    }

    /// The share of the cores that neither the generator nor a meter accounts for: other programs, the
    /// hypervisor. It does not make a round void, for it meets all sides of a comparison alike; but who reads
    /// a figure should know. CPU time for each request hardly changes with it, requests/s do. A few per cent
    /// are the inexactness of the kernel's ticks. None where the case has no cores.
    #[must_use]
    pub fn others_per_mille(&self) -> Option<u128> {
        let cores = self.cores?;
        let known: Duration = self.cpu.iter().map(|(_, time)| *time).sum();
        let others = cores.busy.saturating_sub(known + self.generator.running);
        let all = (self.measured * cores.count).as_nanos().max(1);
        Some(others.as_nanos() * 1_000 / all)
    }

    /// Good answers in a second.
    #[must_use]
    pub fn requests_per_s(&self) -> f64 {
        self.per_s(self.tally.answered)
    }

    /// Decisions in a second: as many as requests, or many times as many in batches.
    #[must_use]
    pub fn decisions_per_s(&self) -> f64 {
        self.per_s(self.tally.decided())
    }

    /// CPU time of a meter for each good answer, in microseconds.
    ///
    /// # Panics
    /// When the case has no such meter, which is a mistake of the bench.
    #[must_use]
    pub fn cpu_us_per_request(&self, meter: &str) -> f64 {
        let found = self.cpu.iter().find(|(name, _)| name == meter);
        let Some((_, time)) = found else {
            panic!("the case has no meter {meter}");
        };
        self.us_per_request(*time)
    }

    /// CPU time of a meter for each decision or event, in microseconds: as many seconds for a million of them.
    ///
    /// # Panics
    /// As [`cpu_us_per_request`](Self::cpu_us_per_request).
    #[must_use]
    #[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
    pub fn cpu_us_per_item(&self, meter: &str) -> f64 {
        self.cpu_us_per_request(meter) * self.requests_per_item()
    }

    /// CPU time of the generator for each decision or event, in microseconds.
    #[must_use]
    #[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
    pub fn generator_us_per_item(&self) -> f64 {
        self.generator_us_per_request() * self.requests_per_item()
    }

    #[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
    fn requests_per_item(&self) -> f64 {
        self.tally.answered as f64 / self.tally.decided() as f64
    }

    /// CPU time of the generator for each good answer, in microseconds.
    #[must_use]
    pub fn generator_us_per_request(&self) -> f64 {
        self.us_per_request(self.generator.running)
    }

    /// A latency in microseconds that `per_mille` of the requests did not exceed.
    #[must_use]
    #[expect(clippy::float_arithmetic, reason = "a figure for people")]
    pub fn latency_us(&self, per_mille: u64) -> f64 {
        self.latencies.quantile(per_mille).as_secs_f64() * 1e6
    }

    #[expect(clippy::float_arithmetic, reason = "a rate is a quotient, for people")]
    fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.measured.as_secs_f64()
    }

    #[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
    fn us_per_request(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.tally.answered as f64
    }
}

/// Runs a case on a thread of its own. What was not answered well is counted; whoever makes a figure of it
/// asks [`Round::good`] first.
///
/// # Errors
/// When the server cannot be reached, or answers nothing any more.
pub fn run<T: Traffic + Send>(case: &Case, traffic: &mut T) -> Result<Round> {
    ensure!(
        case.connections > 0 && case.in_flight > 0,
        "a case needs requests"
    );
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("generator".to_owned());
        let thread = builder.spawn_scoped(scope, || run_here(case, traffic))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run_here<T: Traffic>(case: &Case, traffic: &mut T) -> Result<Round> {
    if let Some(cores) = &case.cores {
        pin::this_thread(&[cores.generator])?;
    }
    let mut generator = Generator::connect(case, traffic)?;
    generator.run_until(Instant::now() + case.warm_up)?;
    let mut total = generator.take_record().tally;

    let before = Reading::take(case)?;
    generator.run_until(before.at + case.measured)?;
    let record = generator.take_record();
    let after = Reading::take(case)?;
    let overdue = generator.overdue(after.at);
    total.add(&record.tally);

    generator.drain()?;
    total.add(&generator.take_record().tally);
    let passed = after.since(&before);
    let names = case.meters.iter().map(|meter| meter.name.clone());
    Ok(Round {
        measured: after.at - before.at,
        tally: record.tally,
        total,
        latencies: record.latencies,
        overdue,
        generator: passed.generator,
        cpu: names.zip(passed.cpu).collect(),
        cores: case.cores.as_ref().map(|cores| CoresTime {
            count: cores.all().len() as u32,
            busy: passed.cores,
        }),
    })
}

/// The clocks at one instant.
struct Reading {
    at: Instant,
    generator: ThreadTime,
    cpu: Vec<Duration>,
    cores: Duration,
}

impl Reading {
    fn take(case: &Case) -> Result<Self> {
        let read = |meter: &Meter| meter.read().with_context(|| format!("{} is gone", meter.name));
        Ok(Self {
            at: Instant::now(),
            generator: proc::own_time()?,
            cpu: case.meters.iter().map(read).collect::<Result<_>>()?,
            cores: match &case.cores {
                Some(cores) => proc::cores(&cores.all())?,
                None => Duration::ZERO,
            },
        })
    }

    /// What the clocks have gone on since an earlier reading.
    fn since(&self, before: &Self) -> Self {
        let cpu = self.cpu.iter().zip(&before.cpu);
        Self {
            at: self.at,
            generator: ThreadTime {
                running: self.generator.running.saturating_sub(before.generator.running),
                waiting: self.generator.waiting.saturating_sub(before.generator.waiting),
            },
            cpu: cpu.map(|(after, before)| after.saturating_sub(*before)).collect(),
            cores: self.cores.saturating_sub(before.cores),
        }
    }
}

#[cfg(test)]
mod tests;
