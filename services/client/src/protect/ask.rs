//! What one request asks for, and the calls that say so.

use std::sync::Arc;

use http::{request, response};
use octroi_proto::quota::v1::{
    CheckItem, CheckMode, CheckQuotaRequest, RecordUsageRequest, ReserveQuotaRequest,
};
use prost_types::Timestamp;
use uuid::Uuid;

use super::{
    journal::Record,
    refusal::Refused,
    rule::{Amount, Measure, Mode, Rule},
};

/// The most characters that a request's id may have.
const ID_MAX: usize = 128;

fn is_id(text: &str) -> bool {
    let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(is_of_one)
}

/// What one request asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) rule: Arc<Rule>,
    pub(super) account: String,
    /// The question's own id: what is held is held for this request, and for no other of the same name.
    id: Uuid,
    /// What its caller calls the request: what is recorded under it counts once.
    name: Option<String>,
    /// One a metric of the rule; empty where all of them are fixed.
    amounts: Vec<u64>,
}

impl Rule {
    /// What a request of `account` asks for.
    pub(super) fn ask(self: &Arc<Self>, head: &request::Parts, account: String) -> Result<Ask, Refused> {
        let is_fixed = |amount: &Amount| matches!(amount, Amount::Fixed(_));
        let amounts = if self.items.iter().all(|item| is_fixed(&item.amount)) {
            Vec::new()
        } else {
            self.items.iter().map(|item| item.amount.of(head)).collect()
        };
        let name = self.request_id.as_ref().and_then(|of| of(head));
        if name.as_deref().is_some_and(|name| !is_id(name)) {
            return Err(Refused::NoId);
        }
        Ok(Ask {
            rule: self.clone(),
            account,
            id: Uuid::new_v4(),
            name,
            amounts,
        })
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
    /// Whether it may come again under the same name.
    pub(super) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// What is recorded of it is recorded under this.
    fn recorded_as(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
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
            request_id: self.id.to_string(),
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
            request_id: if takes { self.recorded_as() } else { String::new() },
            ..CheckQuotaRequest::default()
        }
    }

    /// The record of what was used `at`, where nobody could be asked, or under a name. It counts once however often it is
    /// told. What a question holds that arrived all the same is given back. Nothing is recorded where nothing was used.
    pub(super) fn to_record(&self, used: Vec<CheckItem>, at: Timestamp) -> Record {
        let mut items = self.items();
        for used in used {
            match items.iter_mut().find(|item| item.metric == used.metric) {
                Some(item) => item.amount = used.amount,
                None => items.push(used),
            }
        }
        items.retain(|item| item.amount > 0);
        let used = (!items.is_empty()).then(|| RecordUsageRequest {
            account_id: self.account.clone(),
            items,
            request_id: self.recorded_as(),
            event_time: Some(at),
            backfill: true,
        });
        Record { used, release: None }
    }

    /// Whether anything is taken, now or later.
    pub(super) fn takes(&self) -> bool {
        self.rule.mode != Mode::Peek && self.amounts().next().is_some()
    }

    /// Whether what is taken is held first.
    pub(super) fn holds(&self) -> bool {
        self.rule.mode == Mode::Reserve && self.takes()
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.rule.features.is_empty() && self.amounts().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::rule::Item;

    fn head() -> request::Parts {
        http::Request::new(()).into_parts().0
    }

    fn rule(items: &[(Amount, Measure)], name: Option<&'static str>) -> Arc<Rule> {
        let item = |(number, (amount, measure)): (usize, &(Amount, Measure))| Item {
            metric: format!("metric-{number}"),
            amount: amount.clone(),
            measure: measure.clone(),
        };
        let name = move |_: &request::Parts| name.map(str::to_owned);
        Arc::new(Rule {
            items: items.iter().enumerate().map(item).collect(),
            request_id: Some(Arc::new(name)),
            ..Rule::default()
        })
    }

    #[test]
    fn of_what_is_measured_something_is_held_and_of_nothing_else_where_nothing_is_asked_for() {
        let nothing = || Amount::OfRequest(Arc::new(|_| 0));
        let rule = rule(
            &[
                (nothing(), Measure::Asked),
                (nothing(), Measure::Meter),
                (Amount::Fixed(0), Measure::Bytes),
                (Amount::Fixed(5), Measure::Meter),
            ],
            None,
        );
        let ask = rule.ask(&head(), "acme".to_owned()).expect("a question");
        let asked: Vec<(&str, u64)> = ask.amounts().collect();
        assert_eq!(asked, [("metric-1", 1), ("metric-2", 1), ("metric-3", 5)]);
    }

    #[test]
    fn what_is_held_has_an_id_of_its_own_and_what_is_recorded_has_the_requests_name() {
        let rule = rule(&[(Amount::Fixed(1), Measure::Asked)], Some("order-1"));
        let [first, again] = [0, 1].map(|_| rule.ask(&head(), "acme".to_owned()).expect("a question"));
        assert_ne!(first.to_reserve().request_id, again.to_reserve().request_id);
        let recorded_as = |ask: &Ask| {
            let record = ask.to_record(Vec::new(), Timestamp::default());
            record.used.map(|used| used.request_id)
        };
        for ask in [&first, &again] {
            assert_eq!(recorded_as(ask).as_deref(), Some("order-1"));
        }
    }

    #[test]
    fn a_name_that_could_not_be_recorded_is_refused_before_anything_is_done() {
        for name in ["", "two words", "caf\u{e9}"] {
            let rule = rule(&[(Amount::Fixed(1), Measure::Asked)], Some(name));
            assert!(
                matches!(rule.ask(&head(), "acme".to_owned()), Err(Refused::NoId)),
                "{name:?}"
            );
        }
        assert!(is_id(&"x".repeat(128)) && !is_id(&"x".repeat(129)));
    }
}
