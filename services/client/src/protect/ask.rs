//! What one request asks for, and the calls that say so.

use std::{hash::Hasher as _, sync::Arc};

use http::{request, response};
use octroi_proto::quota::v1::{
    CheckItem, CheckMode, CheckQuotaRequest, RecordUsageRequest, ReserveQuotaRequest,
};
use prost_types::Timestamp;
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use super::rule::{Amount, Measure, Mode, Rule};

/// How often a request may come again after it came to nothing.
const TRIES_MAX: u32 = 16;

/// The id of a request: a new one, or what its caller calls it.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    New(Uuid),
    Given(String),
}

/// The most characters that a request's id may have.
const ID_MAX: usize = 128;

impl RequestId {
    fn text(&self) -> String {
        match self {
            Self::New(id) => id.to_string(),
            Self::Given(text) => text.clone(),
        }
    }

    /// The id of the next try of a request whose last one came to nothing.
    fn of_try(text: &str, number: u32) -> String {
        let suffix = format!(".{number}");
        if text.len() + suffix.len() <= ID_MAX {
            return format!("{text}{suffix}");
        }
        let mut hasher = SipHasher13::new();
        hasher.write(text.as_bytes());
        let begin: String = text.chars().take(ID_MAX / 2).collect();
        format!("{begin}.{:016x}{suffix}", hasher.finish())
    }
}

/// What one request asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) rule: Arc<Rule>,
    pub(super) account: String,
    request_id: RequestId,
    /// The try of that request, from 1.
    number: u32,
    /// One a metric of the rule; empty where all of them are fixed.
    amounts: Vec<u64>,
}

impl Rule {
    /// What a request of `account` asks for.
    pub(super) fn ask(self: &Arc<Self>, head: &request::Parts, account: String) -> Ask {
        let is_fixed = |amount: &Amount| matches!(amount, Amount::Fixed(_));
        let amounts = if self.items.iter().all(|item| is_fixed(&item.amount)) {
            Vec::new()
        } else {
            self.items.iter().map(|item| item.amount.of(head)).collect()
        };
        let given = self.request_id.as_ref().and_then(|of| of(head));
        Ask {
            rule: self.clone(),
            account,
            request_id: given.map_or_else(|| RequestId::New(Uuid::new_v4()), RequestId::Given),
            number: 1,
            amounts,
        }
    }

    /// What the head of a response says was used, of metrics of which it says so.
    pub(super) fn used_by(&self, head: &response::Parts) -> Vec<CheckItem> {
        let used = |item: &super::rule::Item| match &item.measure {
            Measure::OfResponse(of) => Some(check_item(&item.metric, of(head))),
            Measure::Asked | Measure::Bytes | Measure::Meter => None,
        };
        self.items.iter().filter_map(used).collect()
    }
}

pub(super) fn check_item(metric: &str, amount: u64) -> CheckItem {
    CheckItem {
        metric: metric.to_owned(),
        // What is more than that is refused as any other amount that is too large.
        amount: i64::try_from(amount).unwrap_or(i64::MAX),
    }
}

impl Ask {
    /// Whether its caller gave it an id, so that it may come again.
    pub(super) fn may_come_again(&self) -> bool {
        matches!(self.request_id, RequestId::Given(_))
    }

    /// The next try of the same request; none where there were too many.
    pub(super) fn next_try(mut self) -> Option<Self> {
        self.number += 1;
        (self.number <= TRIES_MAX).then_some(self)
    }

    fn id(&self) -> String {
        let text = self.request_id.text();
        match self.number {
            1 => text,
            number => RequestId::of_try(&text, number),
        }
    }

    /// Each metric that is asked for, with its amount.
    fn amounts(&self) -> impl Iterator<Item = (&str, u64)> {
        let items = self.rule.items.iter().enumerate();
        let amount = |index: usize, amount: &Amount| match amount {
            Amount::Fixed(amount) => *amount,
            Amount::OfRequest(_) => self.amounts.get(index).copied().unwrap_or_default(),
        };
        // Of what is measured later something is taken now: of nothing there would be nowhere to record it.
        let least = |measure: &Measure| u64::from(!matches!(measure, Measure::Asked));
        items
            .map(move |(index, item)| {
                let amount = amount(index, &item.amount).max(least(&item.measure));
                (item.metric.as_str(), amount)
            })
            .filter(|(_, amount)| *amount > 0)
    }

    /// Each metric that is asked for.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.amounts().map(|(metric, _)| metric)
    }

    pub(super) fn items(&self) -> Vec<CheckItem> {
        self.amounts()
            .map(|(metric, amount)| check_item(metric, amount))
            .collect()
    }

    pub(super) fn to_reserve(&self) -> ReserveQuotaRequest {
        ReserveQuotaRequest {
            account_id: self.account.clone(),
            items: self.items(),
            features: self.rule.features.clone(),
            request_id: self.id(),
            ttl: prost_types::Duration::try_from(self.rule.ttl).ok(),
        }
    }

    pub(super) fn to_check(&self) -> CheckQuotaRequest {
        let takes = self.rule.mode == Mode::Consume;
        CheckQuotaRequest {
            account_id: self.account.clone(),
            items: self.items(),
            features: self.rule.features.clone(),
            mode: if takes {
                CheckMode::Consume
            } else {
                CheckMode::Peek
            }
            .into(),
            request_id: if takes { self.id() } else { String::new() },
            ..CheckQuotaRequest::default()
        }
    }

    /// The record of what was used `at`, where nobody could be asked. It has the request's id, so that it counts once
    /// however often it is told. What a question took that arrived all the same is given back.
    pub(super) fn to_record(&self, used: Vec<CheckItem>, at: Timestamp) -> RecordUsageRequest {
        let mut items = self.items();
        for used in used {
            match items.iter_mut().find(|item| item.metric == used.metric) {
                Some(item) => item.amount = used.amount,
                None => items.push(used),
            }
        }
        items.retain(|item| item.amount > 0);
        RecordUsageRequest {
            account_id: self.account.clone(),
            items,
            request_id: self.id(),
            event_time: Some(at),
            backfill: true,
        }
    }

    /// Whether anything is taken, now or later.
    pub(super) fn takes(&self) -> bool {
        self.rule.mode != Mode::Peek && self.amounts().next().is_some()
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.rule.features.is_empty() && self.amounts().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_of_a_request_has_an_id_of_its_own_that_is_one() {
        for text in [
            "order-1".to_owned(),
            "x".repeat(126),
            "x".repeat(128),
            "é".repeat(64),
        ] {
            let ids: Vec<String> = (2..20).map(|number| RequestId::of_try(&text, number)).collect();
            let mut different = ids.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), ids.len());
            assert!(
                ids.iter().all(|id| id.chars().count() <= ID_MAX && *id != text),
                "{ids:?}"
            );
        }
        let alike = ["a", "b"].map(|end| RequestId::of_try(&format!("{}{end}", "x".repeat(127)), 2));
        assert_ne!(alike[0], alike[1]);
    }
}
