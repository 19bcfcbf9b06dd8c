//! One thread that keeps every connection of a case full.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::{
    Case,
    lane::{Heads, Lane},
    pace::Pace,
    tally::Record,
};
use crate::bench::{http2::Broken, traffic::Traffic};

/// How long a server may answer nothing at all while requests are open.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the last answers may take.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How often connections may break before something is wrong that more of them will not mend.
const REOPENED_MAX: u64 = 1_000;
/// How often the clock is looked at where nothing happens.
const TICK_MS: u8 = 50;
/// The same where requests are due by the clock and not by an answer.
const PACED_TICK_MS: u8 = 1;

/// The connections of a case.
#[derive(Debug)]
pub(super) struct Generator<'a, T> {
    case: &'a Case,
    heads: Heads,
    traffic: &'a mut T,
    lanes: Vec<Lane>,
    epoll: Epoll,
    record: Record,
    pace: Pace,
    /// The connection that is first asked for room for what is due.
    turn_of: usize,
    is_draining: bool,
    heard_at: Instant,
}

impl<'a, T: Traffic> Generator<'a, T> {
    /// Connects.
    pub(super) fn connect(case: &'a Case, traffic: &'a mut T) -> Result<Self> {
        let heads = case.heads(T::PATH, T::SECOND_PATH);
        let mut generator = Self {
            case,
            heads,
            traffic,
            lanes: Vec::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            record: Record::default(),
            pace: Pace::new(case.rate, Instant::now()),
            turn_of: 0,
            is_draining: false,
            heard_at: Instant::now(),
        };
        for index in 0..case.connections {
            let lane = generator.open(index)?;
            generator.lanes.push(lane);
            generator.flush(index)?;
        }
        Ok(generator)
    }

    fn open(&self, index: usize) -> Result<Lane> {
        let address = self.case.address;
        let lane = Lane::open(address, &self.heads, self.case.in_flight)
            .with_context(|| format!("cannot connect to {address}"))?;
        self.epoll.add(&lane.connection, interest(index, false))?;
        Ok(lane)
    }

    /// What was counted since this was asked last.
    pub(super) fn take_record(&mut self) -> Record {
        std::mem::take(&mut self.record)
    }

    /// Requests that are due and not sent.
    pub(super) fn overdue(&self, now: Instant) -> u64 {
        self.pace.overdue(now)
    }

    /// Asks and listens until `end`.
    pub(super) fn run_until(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Asks nothing more and waits for the last answers. What is not answered then is lost.
    pub(super) fn drain(&mut self) -> Result<()> {
        self.is_draining = true;
        let end = Instant::now() + DRAIN_MAX;
        while self.open_requests() > 0 && Instant::now() < end {
            self.turn()?;
        }
        // A stream has its status only once we have said that nothing follows.
        for index in 0..self.lanes.len() {
            if let Some(id) = self.lanes[index].stream {
                self.lanes[index].connection.protocol.finish(id);
                self.flush(index)?;
            }
        }
        while self.lanes.iter().any(|lane| lane.stream.is_some()) && Instant::now() < end {
            self.turn()?;
        }
        for lane in &mut self.lanes {
            lane.lose(self.traffic, &mut self.record, end);
        }
        Ok(())
    }

    fn open_requests(&self) -> usize {
        self.lanes.iter().map(|lane| lane.places.taken()).sum()
    }

    /// Waits until something happens, and does what follows from it.
    fn turn(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let is_paced = self.case.rate.is_some();
        let tick_ms = if is_paced { PACED_TICK_MS } else { TICK_MS };
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(tick_ms)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let index = usize::try_from(event.data())?;
            if let Err(broken) = self.serve(index) {
                self.reopen(index, &broken)?;
            }
        }
        if is_paced {
            self.send_due()?;
        }
        if count > 0 || self.open_requests() == 0 {
            self.heard_at = Instant::now();
        } else if self.heard_at.elapsed() > SILENCE_MAX {
            bail!(
                "{} answers nothing for {} s: {}, {} open",
                self.case.address,
                SILENCE_MAX.as_secs(),
                self.record.tally,
                self.open_requests()
            );
        }
        Ok(())
    }

    /// Reads once, fills up the places that became free, and writes once: a burst of answers costs as few
    /// calls of the system as one.
    fn serve(&mut self, index: usize) -> Result<(), Broken> {
        let lane = &mut self.lanes[index];
        lane.connection.fill()?;
        // An answer has arrived when it could be read, and a request is sent when it is due. What this
        // thread needs for either is part of the latency.
        let now = Instant::now();
        lane.receive(self.traffic, &mut self.record, now)?;
        if !self.is_draining {
            lane.top_up(self.traffic, &mut self.record, &mut self.pace, now);
        }
        if lane.connection.protocol.is_spent() {
            return Err(Broken::Closed);
        }
        self.flush(index)
    }

    /// Sends what has become due, each time beginning at another connection.
    fn send_due(&mut self) -> Result<()> {
        if self.is_draining {
            return Ok(());
        }
        let lanes = self.lanes.len();
        self.turn_of = (self.turn_of + 1) % lanes;
        for place in 0..lanes {
            let index = (self.turn_of + place) % lanes;
            let now = Instant::now();
            if self.pace.due(now).is_none() {
                return Ok(());
            }
            self.lanes[index].top_up(self.traffic, &mut self.record, &mut self.pace, now);
            if let Err(broken) = self.flush(index) {
                self.reopen(index, &broken)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<(), Broken> {
        let lane = &mut self.lanes[index];
        let is_clogged = !lane.connection.flush()?;
        if is_clogged != lane.is_clogged {
            lane.is_clogged = is_clogged;
            let mut interest = interest(index, is_clogged);
            let modified = self.epoll.modify(&lane.connection, &mut interest);
            modified.map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    fn reopen(&mut self, index: usize, broken: &Broken) -> Result<()> {
        let now = Instant::now();
        self.lanes[index].lose(self.traffic, &mut self.record, now);
        self.record.tally.reopened += 1;
        if self.record.tally.reopened > REOPENED_MAX {
            bail!(
                "connections break again and again, the last one because {broken}: {}",
                self.record.tally
            );
        }
        // The old socket leaves the epoll set when it is closed.
        self.lanes[index] = self.open(index).with_context(|| broken.to_string())?;
        Ok(self.flush(index)?)
    }
}

/// A lane always wants to read, and to write only what the socket did not take.
fn interest(index: usize, is_clogged: bool) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLIN;
    flags.set(EpollFlags::EPOLLOUT, is_clogged);
    EpollEvent::new(flags, index as u64)
}
