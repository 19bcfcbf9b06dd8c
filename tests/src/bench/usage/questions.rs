//! Questions for what was used. Few a second are asked, so they are written and read by the generated code.

use octroi_proto::usage::v1::{
    GetUsageStatsRequest, GetUsageStatsResponse, Granularity, ListUsageEventsRequest, ListUsageEventsResponse,
};
use tonic_prost::prost::Message as _;

use crate::bench::traffic::{Kind, Seen, Traffic};

/// Questions that are asked in turn.
#[derive(Clone, Debug)]
struct Turns {
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Turns {
    fn new(requests: Vec<Vec<u8>>) -> Self {
        assert!(!requests.is_empty(), "something must be asked");
        Self { requests, next: 0 }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.requests[self.next]);
        self.next = (self.next + 1) % self.requests.len();
    }
}

fn seen(is_right: bool) -> Seen {
    if !is_right {
        return Seen::malformed();
    }
    Seen {
        allowed: 1,
        ..Seen::default()
    }
}

/// What is asked for figures.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The metric.
    pub metric: &'a str,
    /// The month: its first second and the first one after it.
    pub month: (i64, i64),
    /// The zone whose days are meant.
    pub zone: &'a str,
    /// How many events of one unit each account has in the month.
    pub events: u64,
    /// How many days the answer must have.
    pub buckets: usize,
}

/// Figures of a month by day, of one account after the other.
#[derive(Clone, Debug)]
pub struct Stats {
    turns: Turns,
    events: u64,
    buckets: usize,
}

impl Stats {
    /// Questions about `accounts`, each of which has what `asked` says.
    #[must_use]
    pub fn new(accounts: &[String], asked: &Asked<'_>) -> Self {
        let at = |seconds| {
            Some(prost_types::Timestamp {
                seconds,
                ..prost_types::Timestamp::default()
            })
        };
        let request = |account: &String| GetUsageStatsRequest {
            account_id: account.clone(),
            metrics: vec![asked.metric.to_owned()],
            start_time: at(asked.month.0),
            end_time: at(asked.month.1),
            granularity: Granularity::Day.into(),
            zone: asked.zone.to_owned(),
            ..GetUsageStatsRequest::default()
        };
        Self {
            turns: Turns::new(
                accounts
                    .iter()
                    .map(|account| request(account).encode_to_vec())
                    .collect(),
            ),
            events: asked.events,
            buckets: asked.buckets,
        }
    }
}

impl Traffic for Stats {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/GetUsageStats";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        self.turns.write(out);
    }

    /// It has every day, and all events.
    fn read(&mut self, message: &[u8]) -> Seen {
        let answer = GetUsageStatsResponse::decode(message).unwrap_or_default();
        let [stats] = answer.stats.as_slice() else {
            return Seen::malformed();
        };
        let summed: u64 = stats.buckets.iter().map(|bucket| bucket.amount).sum();
        seen(
            stats.buckets.len() == self.buckets
                && [stats.total_events, stats.total_amount, summed] == [self.events; 3],
        )
    }
}

/// First pages of the events of one account after the other.
#[derive(Clone, Debug)]
pub struct FirstPage {
    turns: Turns,
    length: usize,
}

impl FirstPage {
    /// Pages of `length` events, of accounts that have more.
    #[must_use]
    pub fn new(accounts: &[String], length: u8) -> Self {
        let request = |account: &String| ListUsageEventsRequest {
            account_id: account.clone(),
            page_size: length.into(),
            ..ListUsageEventsRequest::default()
        };
        Self {
            turns: Turns::new(
                accounts
                    .iter()
                    .map(|account| request(account).encode_to_vec())
                    .collect(),
            ),
            length: length.into(),
        }
    }
}

impl Traffic for FirstPage {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/ListUsageEvents";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        self.turns.write(out);
    }

    /// It is full, and there are more.
    fn read(&mut self, message: &[u8]) -> Seen {
        let answer = ListUsageEventsResponse::decode(message).unwrap_or_default();
        seen(answer.events.len() == self.length && !answer.next_page_token.is_empty())
    }
}
