//! What became of the requests.

use std::{fmt, time::Duration};

use crate::bench::{histogram::Histogram, http2::End, traffic::Seen};

/// The gRPC statuses, by their numbers.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What was sent and what came back. A unary request ends in exactly one of `answered`, `malformed`, `reset`,
/// `lost` and the statuses other than OK. A request on a stream ends in `answered`, `malformed` or `lost`; the
/// stream itself, in turn, has a status, or is reset or lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent; a batch is one.
    pub sent: u64,
    /// Answered as the contract says, with OK.
    pub answered: u64,
    /// Decisions that allow; a batch has many.
    pub allowed: u64,
    /// Decisions that deny.
    pub denied: u64,
    /// Items of batches or streams that have an error instead of a decision.
    pub refused: u64,
    /// Answers that are not what the contract says, or not what the case is about.
    pub malformed: u64,
    /// Calls that ended with each gRPC status; 0 is OK.
    pub statuses: [u64; STATUSES.len()],
    /// Calls that the server reset.
    pub reset: u64,
    /// Requests, and streams, that were open when what they were on ended.
    pub lost: u64,
    /// Connections that were opened again.
    pub reopened: u64,
    /// Times that a request was due but the server's windows or its limit of streams had no room for it.
    pub held_back: u64,
}

impl Tally {
    /// Decisions that were made.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.allowed + self.denied
    }

    /// Everything that went otherwise than it should. A figure with some of it in it says nothing: a refusal
    /// is cheaper than a decision.
    #[must_use]
    pub fn failed(&self) -> u64 {
        let not_ok: u64 = self.statuses.iter().skip(1).sum();
        not_ok + self.refused + self.malformed + self.reset + self.lost + self.reopened
    }

    /// Adds what another tally counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            sent,
            answered,
            allowed,
            denied,
            refused,
            malformed,
            statuses,
            reset,
            lost,
            reopened,
            held_back,
        } = other;
        self.sent += sent;
        self.answered += answered;
        self.allowed += allowed;
        self.denied += denied;
        self.refused += refused;
        self.malformed += malformed;
        for (count, more) in self.statuses.iter_mut().zip(statuses) {
            *count += more;
        }
        self.reset += reset;
        self.lost += lost;
        self.reopened += reopened;
        self.held_back += held_back;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} answered ({} allowed, {} denied)",
            self.sent, self.answered, self.allowed, self.denied
        )?;
        let statuses = STATUSES.iter().zip(&self.statuses).skip(1);
        let others = [
            ("refused", self.refused),
            ("malformed", self.malformed),
            ("reset", self.reset),
            ("lost", self.lost),
            ("reopened connections", self.reopened),
            ("held back", self.held_back),
        ];
        let others = others.iter().map(|(name, count)| (name, count));
        for (name, count) in statuses.chain(others).filter(|(_, count)| **count > 0) {
            write!(f, ", {count} {name}")?;
        }
        Ok(())
    }
}

/// Counts and latencies of one part of a case.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) tally: Tally,
    pub(super) latencies: Histogram,
}

impl Record {
    /// Counts a good answer.
    pub(super) fn answered(&mut self, seen: Seen, latency: Duration) {
        self.tally.answered += 1;
        self.tally.allowed += u64::from(seen.allowed);
        self.tally.denied += u64::from(seen.denied);
        self.tally.refused += u64::from(seen.refused);
        self.latencies.record(latency);
    }

    /// Counts how a call ended, apart from what was answered.
    pub(super) fn ended(&mut self, end: End) {
        match end {
            End::Status(status) => self.tally.statuses[usize::from(status)] += 1,
            End::Malformed => self.tally.malformed += 1,
            End::Reset => self.tally.reset += 1,
            End::Lost => self.tally.lost += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_says_only_what_there_is() {
        let mut record = Record::default();
        record.tally.sent = 3;
        let seen = Seen {
            allowed: 1,
            ..Seen::default()
        };
        record.answered(seen, Duration::from_micros(3));
        record.ended(End::Status(0));
        assert_eq!(
            record.tally.to_string(),
            "3 sent, 1 answered (1 allowed, 0 denied)"
        );
        assert_eq!(record.tally.failed(), 0);
        record.ended(End::Status(16));
        record.ended(End::Lost);
        let mut twice = record.tally.clone();
        twice.add(&record.tally);
        assert_eq!(
            twice.to_string(),
            "6 sent, 2 answered (2 allowed, 0 denied), 2 UNAUTHENTICATED, 2 lost"
        );
        assert_eq!(twice.failed(), 4);
    }
}
