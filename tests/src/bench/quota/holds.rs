//! Holds that are taken and committed, each by a call of its own.

use std::collections::VecDeque;

use super::{
    RequestIds, answer,
    wire::{self, Tag, Value},
};
use crate::bench::traffic::{Kind, Seen, Traffic};

/// A hold that waits for its commit.
#[derive(Clone, Debug)]
struct Held {
    account: usize,
    id: Box<[u8]>,
}

/// Reserves one unit and commits it as soon as it is held: what is held goes before what is not. Only on one
/// connection, because it tells answers apart by their places. An answer to a commit counts as allowed and one to a
/// reservation as nothing, so that decisions are pairs.
#[derive(Clone, Debug)]
pub struct Pairs {
    accounts: Vec<String>,
    next_account: usize,
    item: Vec<u8>,
    ids: RequestIds,
    limits: usize,
    held: VecDeque<Held>,
    /// The account that each place reserves for; none where it commits.
    places: Vec<Option<usize>>,
}

impl Pairs {
    /// Pairs of one unit of `metric` for `accounts` in turn, each told of where it stands at `limits` limits.
    #[must_use]
    pub fn new(run: u64, metric: &str, accounts: &[String], limits: usize) -> Self {
        assert!(!accounts.is_empty(), "somebody must ask");
        let mut amount = Vec::new();
        wire::put_text(&mut amount, Tag::bytes(1), metric.as_bytes());
        wire::put_number(&mut amount, Tag::varint(2), 1);
        let mut item = Vec::new();
        wire::put_text(&mut item, Tag::bytes(2), &amount);
        Self {
            accounts: accounts.to_vec(),
            next_account: 0,
            item,
            ids: RequestIds::new(run),
            limits,
            held: VecDeque::new(),
            places: Vec::new(),
        }
    }

    fn put_reservation(&mut self, out: &mut Vec<u8>) -> usize {
        let account = self.next_account;
        self.next_account = (account + 1) % self.accounts.len();
        wire::put_text(out, Tag::bytes(1), self.accounts[account].as_bytes());
        out.extend_from_slice(&self.item);
        wire::put_text(out, Tag::bytes(4), self.ids.next());
        account
    }

    fn put_commit(&self, held: &Held, out: &mut Vec<u8>) {
        wire::put_text(out, Tag::bytes(1), self.accounts[held.account].as_bytes());
        wire::put_text(out, Tag::bytes(2), &held.id);
    }
}

impl Traffic for Pairs {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/ReserveQuota";
    const SECOND_PATH: Option<&'static str> = Some("/octroi.quota.v1.QuotaService/CommitHold");
    const KIND: Kind = Kind::Unary;

    fn is_second(&self) -> bool {
        !self.held.is_empty()
    }

    fn write(&mut self, place: u32, out: &mut Vec<u8>) {
        let account = match self.held.pop_front() {
            Some(held) => {
                self.put_commit(&held, out);
                None
            }
            None => Some(self.put_reservation(out)),
        };
        let place = place as usize;
        if place >= self.places.len() {
            self.places.resize(place + 1, None);
        }
        self.places[place] = account;
    }

    /// Without its place nobody knows what it answers.
    fn read(&mut self, _message: &[u8]) -> Seen {
        Seen::malformed()
    }

    fn read_at(&mut self, place: u32, message: &[u8]) -> Seen {
        match self.places.get(place as usize).copied().flatten() {
            None => committed(message),
            Some(account) => match reserved(message, self.limits) {
                Some(id) => {
                    let id = id.into();
                    self.held.push_back(Held { account, id });
                    Seen::default()
                }
                None => Seen::malformed(),
            },
        }
    }
}

/// The hold of a `ReserveQuotaResponse` that allowed.
fn reserved(message: &[u8], limits: usize) -> Option<&[u8]> {
    let (mut is_allowed, mut id) = (false, None);
    let read = wire::fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(decision)) => is_allowed = answer::decision(decision, limits).allowed == 1,
            (2, Value::Bytes(bytes)) => id = Some(bytes),
            _ => {}
        }
        Ok(())
    });
    id.filter(|_| read.is_ok() && is_allowed)
}

/// Reads a `CommitHoldResponse`: one item of one unit that was held, in time and for the first time.
fn committed(message: &[u8]) -> Seen {
    let (mut amount, mut is_other) = (0, false);
    let read = wire::fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(item)) => wire::fields(item, |field, value| {
                match (field, value) {
                    (2, Value::Number(of_item)) => amount += of_item,
                    (3, Value::Number(_)) => is_other = true,
                    _ => {}
                }
                Ok(())
            })?,
            (2 | 3, Value::Number(1)) => is_other = true,
            _ => {}
        }
        Ok(())
    });
    if read.is_err() || is_other || amount != 1 {
        return Seen::malformed();
    }
    Seen {
        allowed: 1,
        ..Seen::default()
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::quota::v1::{
        CheckItem, CheckQuotaResponse, CommitHoldRequest, CommitHoldResponse, CommittedItem, LimitStatus,
        ReserveQuotaRequest, ReserveQuotaResponse,
    };
    use tonic_prost::prost::Message as _;

    use super::*;

    fn pairs() -> Pairs {
        Pairs::new(0xabc, "llm.requests", &["a".to_owned(), "b".to_owned()], 1)
    }

    fn written(pairs: &mut Pairs, place: u32) -> Vec<u8> {
        let mut out = Vec::new();
        pairs.write(place, &mut out);
        out
    }

    fn hold(id: &str) -> Vec<u8> {
        let decision = CheckQuotaResponse {
            allowed: true,
            limits: vec![LimitStatus::default()],
            ..CheckQuotaResponse::default()
        };
        let response = ReserveQuotaResponse {
            decision: Some(decision),
            hold_id: id.to_owned(),
            expire_time: None,
        };
        response.encode_to_vec()
    }

    fn commit(item: CommittedItem) -> CommitHoldResponse {
        CommitHoldResponse {
            items: vec![item],
            ..CommitHoldResponse::default()
        }
    }

    #[test]
    fn what_is_held_is_committed_before_more_is_reserved() {
        let mut pairs = pairs();
        for (place, account) in [(0, "a"), (1, "b")] {
            assert!(!pairs.is_second());
            let request = ReserveQuotaRequest::decode(&*written(&mut pairs, place)).expect("a reservation");
            let item = CheckItem {
                metric: "llm.requests".to_owned(),
                amount: 1,
            };
            assert_eq!(
                (request.account_id.as_str(), request.items),
                (account, vec![item])
            );
            assert_eq!(request.request_id, format!("0000000000000abc-{place:016x}"));
        }
        assert_eq!(pairs.read_at(1, &hold("second")), Seen::default());
        assert!(pairs.is_second());
        let request = CommitHoldRequest::decode(&*written(&mut pairs, 1)).expect("a commit");
        assert_eq!(
            (request.account_id.as_str(), request.hold_id.as_str()),
            ("b", "second")
        );
        assert!(!pairs.is_second());
        let done = commit(CommittedItem {
            amount: 1,
            ..CommittedItem::default()
        });
        assert_eq!(pairs.read_at(1, &done.encode_to_vec()).allowed, 1);
    }

    #[test]
    fn an_answer_that_the_case_is_not_about_is_malformed() {
        let mut pairs = pairs();
        written(&mut pairs, 0);
        assert_eq!(pairs.read_at(0, b""), Seen::malformed(), "no hold");
        let overrun = CommittedItem {
            amount: 1,
            overrun: 1,
            ..CommittedItem::default()
        };
        for wrong in [CommitHoldResponse::default(), commit(overrun)] {
            assert_eq!(
                pairs.read_at(9, &wrong.encode_to_vec()),
                Seen::malformed(),
                "{wrong:?}"
            );
        }
    }
}
