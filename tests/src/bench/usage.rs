//! Traffic of usage: events, one by one.

use super::{
    quota::{
        RequestIds,
        wire::{self, Tag, Value},
    },
    traffic::{Kind, Seen, Traffic},
};

/// Events of one unit of one metric, recorded after the fact.
#[derive(Clone, Debug)]
pub struct Events {
    accounts: Vec<String>,
    next_account: usize,
    /// The fields behind the event's id, which never change.
    end: Vec<u8>,
    ids: RequestIds,
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
            next_account: 0,
            end,
            ids: RequestIds::new(run),
        }
    }
}

impl Traffic for Events {
    const PATH: &'static str = "/octroi.usage.v1.UsageService/TrackUsage";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        let account = self.accounts[self.next_account].as_bytes();
        let bytes = wire::field_bytes(account.len()) + wire::field_bytes(RequestIds::BYTES) + self.end.len();
        wire::put_message_head(out, Tag::bytes(1), bytes);
        wire::put_text(out, Tag::bytes(1), account);
        wire::put_text(out, Tag::bytes(2), self.ids.next());
        out.extend_from_slice(&self.end);
        self.next_account = (self.next_account + 1) % self.accounts.len();
    }

    /// It is recorded, and was not before.
    fn read(&mut self, message: &[u8]) -> Seen {
        let (mut is_duplicate, mut is_recorded) = (false, false);
        let read = wire::fields(message, |field, value| {
            match (field, value) {
                (1, Value::Number(1)) => is_duplicate = true,
                (2, Value::Bytes(_)) => is_recorded = true,
                _ => {}
            }
            Ok(())
        });
        if read.is_err() || is_duplicate || !is_recorded {
            return Seen::malformed();
        }
        Seen {
            allowed: 1,
            ..Seen::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::usage::v1::{TrackUsageRequest, TrackUsageResponse, UsageEvent};
    use tonic_prost::prost::Message as _;

    use super::*;

    #[test]
    fn an_event_is_what_the_contract_reads() {
        let mut events = Events::new(0xabc, "api.requests", &["a".to_owned(), "b".to_owned()]);
        for (account, number) in [("a", 0), ("b", 1), ("a", 2)] {
            let mut out = Vec::new();
            events.write(0, &mut out);
            let expected = UsageEvent {
                account_id: account.to_owned(),
                event_id: format!("0000000000000abc-{number:016x}"),
                metric: "api.requests".to_owned(),
                amount: 1,
                ..UsageEvent::default()
            };
            let read = TrackUsageRequest::decode(&*out).expect("an event");
            assert_eq!(read.event, Some(expected));
        }
    }

    #[test]
    fn only_an_event_that_is_new_counts() {
        let mut events = Events::new(1, "api.requests", &["a".to_owned()]);
        let answer = |duplicate| TrackUsageResponse {
            duplicate,
            record_time: Some(prost_types::Timestamp::default()),
        };
        assert_eq!(events.read(&answer(false).encode_to_vec()).allowed, 1);
        assert_eq!(events.read(&answer(true).encode_to_vec()), Seen::malformed());
        assert_eq!(events.read(b""), Seen::malformed());
    }
}
