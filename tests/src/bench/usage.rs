//! Traffic of usage: events one by one, in batches and in streams, and questions for figures.
//!
//! Of events, those that [`allowed`](Seen::allowed) counts are in the ledger now and were not before; those that
//! [`denied`](Seen::denied) counts were there before.

mod answer;
mod questions;

use super::{
    quota::{
        RequestIds,
        wire::{self, Tag},
    },
    traffic::{Kind, Seen, Traffic},
};

pub use questions::{Asked, FirstPage, Stats};

/// How far back the event lies that is sent again: further than what can be open at a time.
const AGAIN_BACK: u64 = 100_001;
/// Of so many events one is sent again.
const AGAIN_OF: u64 = 10;

/// Events of one unit of one metric, recorded after the fact.
#[derive(Clone, Debug)]
pub struct Events {
    accounts: Vec<String>,
    /// The fields behind the event's id, which never change.
    end: Vec<u8>,
    ids: RequestIds,
    /// How many were written.
    written: u64,
    /// Whether some were sent before.
    some_again: bool,
}

impl Events {
    /// Events of `metric` for `accounts` in turn. `run` must be another number for each run against the same server.
    #[must_use]
    pub fn new(run: u64, metric: &str, accounts: &[String]) -> Self {
        assert!(!accounts.is_empty(), "somebody must use something");
        let mut end = Vec::new();
        wire::put_text(&mut end, Tag::bytes(4), metric.as_bytes());
        wire::put_number(&mut end, Tag::varint(5), 1);
        Self {
            accounts: accounts.to_vec(),
            end,
            ids: RequestIds::new(run),
            written: 0,
            some_again: false,
        }
    }

    /// The same, where every tenth was sent before.
    #[must_use]
    pub fn some_again(self) -> Self {
        Self {
            some_again: true,
            ..self
        }
    }

    /// The number of the next event, which its account and its id follow from.
    fn next_number(&mut self) -> u64 {
        let place = self.written;
        self.written += 1;
        // What lies so far back was no repeat itself, as the distance is not a multiple of ten.
        let is_again = self.some_again && place >= AGAIN_BACK && place % AGAIN_OF == AGAIN_OF - 1;
        if is_again { place - AGAIN_BACK } else { place }
    }

    /// Appends the next event as the message `tag`.
    fn put_next(&mut self, tag: Tag, out: &mut Vec<u8>) {
        let number = self.next_number();
        let account = self.accounts[(number % self.accounts.len() as u64) as usize].as_bytes();
        let bytes = wire::field_bytes(account.len()) + wire::field_bytes(RequestIds::BYTES) + self.end.len();
        wire::put_message_head(out, tag, bytes);
        wire::put_text(out, Tag::bytes(1), account);
        wire::put_text(out, Tag::bytes(2), self.ids.of(number));
        out.extend_from_slice(&self.end);
    }

    /// An answer in which something was there before that was not sent before is none.
    fn check(&self, seen: Seen) -> Seen {
        if seen.denied > 0 && !self.some_again {
            return Seen {
                place: seen.place,
                ..Seen::malformed()
            };
        }
        seen
    }
}

impl Traffic for Events {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/TrackUsage";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        self.put_next(Tag::bytes(1), out);
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        self.check(answer::recorded(message))
    }
}

/// Events in batches.
#[derive(Clone, Debug)]
pub struct EventBatches {
    events: Events,
    length: u32,
}

impl EventBatches {
    /// Batches of `length` events.
    #[must_use]
    pub fn new(events: Events, length: u32) -> Self {
        Self { events, length }
    }
}

impl Traffic for EventBatches {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/TrackUsageBatch";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        for _ in 0..self.length {
            self.events.put_next(Tag::bytes(1), out);
        }
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        self.events.check(answer::batch(message, self.length))
    }
}

/// Events in batches, on a stream that stays open.
#[derive(Clone, Debug)]
pub struct EventStream {
    batches: EventBatches,
    /// The batch that is written, whose length comes before it.
    batch: Vec<u8>,
}

impl EventStream {
    /// A stream of batches of `length` events.
    #[must_use]
    pub fn new(events: Events, length: u32) -> Self {
        Self {
            batches: EventBatches::new(events, length),
            batch: Vec::new(),
        }
    }
}

impl Traffic for EventStream {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/TrackUsageStream";
    const KIND: Kind = Kind::Stream;

    fn write(&mut self, place: u32, out: &mut Vec<u8>) {
        self.batch.clear();
        self.batches.write(place, &mut self.batch);
        // Counted from 1: protobuf leaves a 0 out, and then a lost id would look like the first place.
        wire::put_number(out, Tag::varint(1), u64::from(place) + 1);
        wire::put_text(out, Tag::bytes(2), &self.batch);
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        let seen = answer::of_stream(message, self.batches.length);
        self.batches.events.check(seen)
    }
}

#[cfg(test)]
mod tests;
