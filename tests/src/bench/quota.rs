//! Traffic of quota: checks, one by one, in batches, and in streams.

mod answer;
mod holds;
mod standings;
pub(super) mod wire;

use octroi_proto::quota::v1::CheckMode;

use super::traffic::{Kind, Seen, Traffic};
use wire::Tag;

pub use holds::Pairs;
pub use standings::Standings;

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// One account after the other.
    Round,
    /// Any account, each as often as the other: a sequence that the seed gives.
    Random(u64),
    /// So many requests of one account, then as many of the next.
    Stay(u64),
}

/// Checks of one unit of one metric.
#[derive(Clone, Debug)]
pub struct Checks {
    accounts: Vec<String>,
    turn: Turn,
    next_account: usize,
    stayed: u64,
    /// The fields between account and request id, which never change.
    middle: Vec<u8>,
    /// None for PEEK, which needs none.
    ids: Option<RequestIds>,
    /// How many limits an answer must be about.
    limits: usize,
}

impl Checks {
    /// Checks of `metric` for `accounts`, each answered with where it stands at `limits` limits: an answer
    /// about fewer would be cheaper than what the case says it measures. `run` must be another number for
    /// each run against the same server, so that no request id is ever used twice.
    #[must_use]
    pub fn new(run: u64, metric: &str, accounts: &[String], mode: CheckMode, limits: usize) -> Self {
        assert!(!accounts.is_empty(), "somebody must ask");
        let mut item = Vec::new();
        wire::put_text(&mut item, Tag::bytes(1), metric.as_bytes());
        wire::put_number(&mut item, Tag::varint(2), 1);
        let mut middle = Vec::new();
        wire::put_text(&mut middle, Tag::bytes(2), &item);
        wire::put_number(&mut middle, Tag::varint(4), u64::from(mode as i32 as u32));
        Self {
            accounts: accounts.to_vec(),
            turn: Turn::Round,
            next_account: 0,
            stayed: 0,
            middle,
            ids: (mode == CheckMode::Consume).then(|| RequestIds::new(run)),
            limits,
        }
    }

    /// The same with another order of accounts.
    #[must_use]
    pub fn in_turn(self, turn: Turn) -> Self {
        Self { turn, ..self }
    }

    /// How long the next check is.
    fn next_bytes(&self) -> usize {
        let account = wire::field_bytes(self.accounts[self.next_account].len());
        let id = self
            .ids
            .as_ref()
            .map_or(0, |_| wire::field_bytes(RequestIds::BYTES));
        account + self.middle.len() + id
    }

    fn put_next(&mut self, out: &mut Vec<u8>) {
        wire::put_text(out, Tag::bytes(1), self.accounts[self.next_account].as_bytes());
        out.extend_from_slice(&self.middle);
        if let Some(ids) = &mut self.ids {
            wire::put_text(out, Tag::bytes(5), ids.next());
        }
        self.next_account = match &mut self.turn {
            Turn::Round => (self.next_account + 1) % self.accounts.len(),
            Turn::Stay(requests) => {
                self.stayed += 1;
                let goes_on = self.stayed.is_multiple_of(*requests);
                (self.next_account + usize::from(goes_on)) % self.accounts.len()
            }
            Turn::Random(state) => {
                // The high half of the product spreads evenly over the accounts.
                let spread = u128::from(split_mix(state)) * self.accounts.len() as u128;
                (spread >> 64) as usize
            }
        };
    }
}

impl Traffic for Checks {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/CheckQuota";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        self.put_next(out);
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        answer::decision(message, self.limits)
    }
}

/// Checks in batches.
#[derive(Clone, Debug)]
pub struct Batches {
    checks: Checks,
    length: u32,
}

impl Batches {
    /// Batches of `length` checks.
    #[must_use]
    pub fn new(checks: Checks, length: u32) -> Self {
        Self { checks, length }
    }
}

impl Traffic for Batches {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/CheckQuotaBatch";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        for _ in 0..self.length {
            wire::put_message_head(out, Tag::bytes(1), self.checks.next_bytes());
            self.checks.put_next(out);
        }
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        answer::batch(message, self.checks.limits, self.length)
    }
}

/// Checks on a stream that stays open.
#[derive(Clone, Debug)]
pub struct Stream {
    checks: Checks,
}

impl Stream {
    /// A stream of checks.
    #[must_use]
    pub fn new(checks: Checks) -> Self {
        Self { checks }
    }
}

impl Traffic for Stream {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/CheckQuotaStream";
    const KIND: Kind = Kind::Stream;

    fn write(&mut self, place: u32, out: &mut Vec<u8>) {
        // Counted from 1: protobuf leaves a 0 out, and then a lost id would look like the first place.
        wire::put_number(out, Tag::varint(1), u64::from(place) + 1);
        wire::put_message_head(out, Tag::bytes(2), self.checks.next_bytes());
        self.checks.put_next(out);
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        answer::of_stream(message, self.checks.limits)
    }
}

/// Request ids that no other run has: the run and a number, both in hexadecimal.
#[derive(Clone, Debug)]
pub(super) struct RequestIds {
    text: [u8; Self::BYTES],
    next: u64,
}

impl RequestIds {
    pub(super) const BYTES: usize = 33;

    pub(super) fn new(run: u64) -> Self {
        let mut text = [b'-'; Self::BYTES];
        put_hex(&mut text[..16], run);
        Self { text, next: 0 }
    }

    pub(super) fn next(&mut self) -> &[u8] {
        self.next += 1;
        self.of(self.next - 1)
    }

    /// The id of this number.
    pub(super) fn of(&mut self, number: u64) -> &[u8] {
        put_hex(&mut self.text[17..], number);
        &self.text
    }
}

fn put_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

/// The next number of a sequence without pattern (SplitMix64).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests;
