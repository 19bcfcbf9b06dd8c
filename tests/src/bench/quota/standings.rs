//! Traffic of whoever shows where accounts stand.

use super::wire::{self, Tag, Value};
use crate::bench::traffic::{Kind, Seen, Traffic};

/// Asks where accounts stand at the limits of one metric, in turn.
#[derive(Clone, Debug)]
pub struct Standings {
    accounts: Vec<String>,
    next_account: usize,
    metric: String,
    limits: usize,
}

impl Standings {
    /// Asks for `accounts`, each of which has so many limits of `metric`.
    #[must_use]
    pub fn new(metric: &str, accounts: &[String], limits: usize) -> Self {
        assert!(!accounts.is_empty(), "somebody must be asked for");
        Self {
            accounts: accounts.to_vec(),
            next_account: 0,
            metric: metric.to_owned(),
            limits,
        }
    }
}

impl Traffic for Standings {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/GetCurrentUsage";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, out: &mut Vec<u8>) {
        wire::put_text(out, Tag::bytes(1), self.accounts[self.next_account].as_bytes());
        wire::put_text(out, Tag::bytes(2), self.metric.as_bytes());
        self.next_account = (self.next_account + 1) % self.accounts.len();
    }

    fn read(&mut self, message: &[u8]) -> Seen {
        let mut found = 0;
        let read = wire::fields(message, |field, value| {
            if let (1, Value::Bytes(_)) = (field, value) {
                found += 1;
            }
            Ok(())
        });
        if read.is_err() || found != self.limits {
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
    use octroi_proto::quota::v1::{GetCurrentUsageRequest, GetCurrentUsageResponse, LimitStatus};
    use prost::Message as _;

    use super::*;

    fn standings() -> Standings {
        Standings::new("clicks", &["a-0".to_owned(), "a-1".to_owned()], 2)
    }

    #[test]
    fn accounts_are_asked_for_in_turn() {
        let mut standings = standings();
        for account in ["a-0", "a-1", "a-0"] {
            let mut bytes = Vec::new();
            standings.write(0, &mut bytes);
            let asked = GetCurrentUsageRequest::decode(bytes.as_slice()).expect("a request");
            assert_eq!(
                (asked.account_id.as_str(), asked.metrics.as_slice()),
                (account, ["clicks".to_owned()].as_slice())
            );
        }
    }

    #[test]
    fn an_answer_is_about_every_limit() {
        let answer = |limits| {
            let answer = GetCurrentUsageResponse {
                limits: vec![LimitStatus::default(); limits],
                as_of_time: None,
            };
            standings().read(&answer.encode_to_vec())
        };
        assert_eq!((answer(2).allowed, answer(2).is_malformed), (1, false));
        assert!(answer(1).is_malformed);
    }
}
