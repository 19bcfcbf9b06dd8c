//! One connection of a case, with the requests that are open on it.

use std::{net::SocketAddr, time::Instant};

use super::{pace::Pace, tally::Record};
use crate::bench::{
    http2::{Broken, Connection, End, Events, Head},
    traffic::{Kind, Seen, Traffic},
};

/// A place for one request at a time. There are as many as may be open at once.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// When the request that is open here was sent, or was due where it is sent at a rate.
    sent_at: Option<Instant>,
    /// What was answered to it; a unary call ends after that.
    seen: Option<Seen>,
}

/// The places of a connection, and which of them are free.
#[derive(Debug)]
pub(super) struct Places {
    all: Vec<Place>,
    free: Vec<u32>,
}

impl Places {
    fn new(count: u32) -> Self {
        Self {
            all: vec![Place::default(); count as usize],
            free: (0..count).rev().collect(),
        }
    }

    /// How many requests are open.
    pub(super) fn taken(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Frees a place and answers what was known of its request; none where it was free already.
    fn free(&mut self, place: u32) -> Option<(Instant, Option<Seen>)> {
        let freed = std::mem::take(self.all.get_mut(place as usize)?);
        let sent_at = freed.sent_at?;
        self.free.push(place);
        Some((sent_at, freed.seen))
    }
}

/// What is said before each request: of the first method, and of the second where there is one.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    pub(super) first: Head,
    pub(super) second: Option<Head>,
}

/// A connection and its places.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) connection: Connection,
    pub(super) places: Places,
    /// The stream that is open, where the method is called that way.
    pub(super) stream: Option<u32>,
    /// The socket took less than there was to write.
    pub(super) is_clogged: bool,
}

impl Lane {
    pub(super) fn open(address: SocketAddr, heads: &Heads, in_flight: u32) -> std::io::Result<Self> {
        let mut connection = Connection::open(address, &heads.first, in_flight as usize)?;
        if let Some(second) = &heads.second {
            connection.protocol.set_second(second);
        }
        Ok(Self {
            connection,
            places: Places::new(in_flight),
            stream: None,
            is_clogged: false,
        })
    }

    /// Sends requests that are due until no place is free, or the server takes no more.
    pub(super) fn top_up<T: Traffic>(
        &mut self,
        traffic: &mut T,
        record: &mut Record,
        pace: &mut Pace,
        now: Instant,
    ) {
        if !self.connection.protocol.is_ready() {
            return;
        }
        while let Some(&place) = self.places.free.last() {
            let Some(due_at) = pace.due(now) else { return };
            let Some(id) = self.stream_for(place, T::KIND, traffic.is_second()) else {
                record.tally.held_back += 1;
                return;
            };
            self.places.free.pop();
            self.places.all[place as usize].sent_at = Some(due_at);
            pace.took();
            record.tally.sent += 1;
            let is_last = T::KIND == Kind::Unary;
            let protocol = &mut self.connection.protocol;
            protocol.send(id, is_last, |out| traffic.write(place, out));
        }
    }

    /// The stream that the request at `place` goes out on; none while the server has no room.
    fn stream_for(&mut self, place: u32, kind: Kind, is_second: bool) -> Option<u32> {
        let protocol = &mut self.connection.protocol;
        match (kind, self.stream) {
            (Kind::Stream, Some(id)) => protocol.can_send().then_some(id),
            (Kind::Stream, None) => {
                self.stream = protocol.can_open().then(|| protocol.open(0));
                self.stream
            }
            (Kind::Unary, _) => protocol
                .can_open()
                .then(|| protocol.open_method(place, is_second)),
        }
    }

    /// Takes what was read.
    pub(super) fn receive<T: Traffic>(
        &mut self,
        traffic: &mut T,
        record: &mut Record,
        now: Instant,
    ) -> Result<(), Broken> {
        let mut watcher = Watcher {
            traffic,
            record,
            places: &mut self.places,
            stream: &mut self.stream,
            now,
        };
        self.connection.receive(&mut watcher)
    }

    /// Counts every open request as lost.
    pub(super) fn lose<T: Traffic>(&mut self, traffic: &mut T, record: &mut Record, now: Instant) {
        let mut watcher = Watcher {
            traffic,
            record,
            places: &mut self.places,
            stream: &mut self.stream,
            now,
        };
        self.connection.protocol.lose(&mut watcher);
    }
}

/// Writes down what happens on a connection.
struct Watcher<'a, T> {
    traffic: &'a mut T,
    record: &'a mut Record,
    places: &'a mut Places,
    stream: &'a mut Option<u32>,
    now: Instant,
}

impl<T: Traffic> Watcher<'_, T> {
    /// An answer on a stream names its request, and is all that there is to it.
    fn answer_on_stream(&mut self, seen: Seen) {
        let freed = seen.place.and_then(|place| self.places.free(place));
        match freed {
            Some((sent_at, _)) if !seen.is_malformed => self.record.answered(seen, self.now - sent_at),
            // To nothing that was asked, or not what the contract says.
            _ => self.record.tally.malformed += 1,
        }
    }

    /// A unary call is over once its status is there.
    fn end_call(&mut self, place: u32, end: End) {
        let Some((sent_at, seen)) = self.places.free(place) else {
            return;
        };
        self.record.ended(end);
        match (end, seen) {
            (End::Status(0), Some(seen)) if !seen.is_malformed => {
                self.record.answered(seen, self.now - sent_at);
            }
            (End::Status(0), _) => self.record.tally.malformed += 1,
            _ => {}
        }
    }

    /// With a stream goes what was open on it.
    fn end_stream(&mut self, end: End) {
        *self.stream = None;
        self.record.ended(end);
        for place in 0..self.places.all.len() as u32 {
            if self.places.free(place).is_some() {
                self.record.ended(End::Lost);
            }
        }
    }
}

impl<T: Traffic> Events for Watcher<'_, T> {
    fn message(&mut self, mark: u32, message: &[u8]) {
        let seen = self.traffic.read_at(mark, message);
        if T::KIND == Kind::Stream {
            self.answer_on_stream(seen);
        } else if let Some(place) = self.places.all.get_mut(mark as usize) {
            // A second answer to one request is none.
            place.seen = Some(place.seen.map_or(seen, |_| Seen::malformed()));
        }
    }

    fn ended(&mut self, mark: u32, end: End) {
        match T::KIND {
            Kind::Unary => self.end_call(mark, end),
            Kind::Stream => self.end_stream(end),
        }
    }
}
