//! What is asked: amounts of metrics, and features.

use jiff::Timestamp;
use octroi_core::{
    AccountId, FeaturePlans, FeatureSlug, MetricSlug, RequestId, Units, Violations,
    event_time::may_be_recorded,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    decision::Asked,
    holding::{AccountLimits, Catalog},
};

/// The most metrics of one check.
pub const ITEMS_MAX: usize = 16;
/// The most features of one check.
pub const FEATURES_MAX: usize = 16;

/// One metric and how much of it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The metric.
    pub metric: MetricSlug,
    /// How much: at least 1.
    pub amount: Units,
}

/// Whether a check takes what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Look only.
    Peek,
    /// Take and record, once for this request id.
    Consume(RequestId),
}

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Whose limits.
    pub account: AccountId,
    /// What amounts; each metric once.
    pub items: Vec<Item>,
    /// What features; all are required.
    pub features: Vec<FeatureSlug>,
    /// Look or take.
    pub mode: Mode,
    /// When, for recorded traffic.
    pub event_at: Option<Timestamp>,
    /// Whether that may lie any time back.
    pub backfill: bool,
    /// Whether an earlier attempt of the request may have been answered.
    pub repeat: bool,
}

/// The id of the decision about a request, 32 hexadecimal digits: every attempt of it has the same, whoever answers. It
/// is FNV-1a of 128 bits (draft-eastlake-fnv-21), which is no secret and costs little.
#[must_use]
pub fn decision_id(account: &str, caller: &str, request: &str) -> String {
    // None of the parts has a NUL, so no two requests look alike.
    let bytes = [account, "\0", caller, "\0", request]
        .into_iter()
        .flat_map(str::bytes);
    crate::domain::explained::id_of(fnv1a(bytes))
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

impl Check {
    /// Whether it asks for what can be counted, given that `catalog` knows its metrics.
    ///
    /// # Errors
    /// The fields that break a rule.
    pub fn validate(&self, catalog: &Catalog) -> Result<(), Violations> {
        let mut violations = Violations::default();
        for (index, item) in self.items.iter().enumerate() {
            if let Some(metric) = catalog.metrics.get(&item.metric) {
                let checked = metric.aggregation.check_amount(item.amount);
                violations.take(format!("items[{index}].amount"), checked);
            }
        }
        violations.finish()
    }

    /// Whether its event time, where it has one, is one that is recorded at `now`.
    #[must_use]
    pub fn is_in_time(&self, now: Timestamp) -> bool {
        (self.event_at).is_none_or(|at| may_be_recorded(at, now, self.backfill))
    }

    /// The first metric that the catalog does not have, and its place among the items.
    #[must_use]
    pub fn unknown_metric(&self, catalog: &Catalog) -> Option<(usize, &MetricSlug)> {
        let mut metrics = self.items.iter().map(|item| &item.metric).enumerate();
        metrics.find(|(_, metric)| !catalog.metrics.contains_key(*metric))
    }

    /// The limits of the metrics, with their windows at `at`.
    #[must_use]
    pub fn asked(&self, limits: &AccountLimits, at: Timestamp) -> Vec<Asked> {
        let of_item = |item: &Item| -> Vec<Asked> {
            limits
                .of_metric(&item.metric)
                .map(|effective| Asked {
                    window: limits.window_key(effective, at).window(),
                    effective: effective.clone(),
                    amount: item.amount,
                })
                .collect()
        };
        self.items.iter().flat_map(of_item).collect()
    }

    /// The required features that the account does not have, with the plans that have them.
    #[must_use]
    pub fn missing_features(&self, limits: &AccountLimits, catalog: &Catalog) -> Vec<FeaturePlans> {
        let missing = (self.features.iter()).filter(|feature| !limits.has_feature(feature));
        missing.map(|feature| catalog.plans_with(feature)).collect()
    }

    /// The events that record the request, one a metric, with their ids. They follow from the request alone,
    /// so that the ledger counts a repeat once; the first has the request's own id, so that every repeat,
    /// whatever it asks for, meets what was recorded of the request.
    #[must_use]
    pub fn events(&self, request: &RequestId) -> Vec<(String, &Item)> {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by(|a, b| a.metric.cmp(&b.metric));
        let id = |(index, item): (usize, &Item)| match index {
            0 => request.to_string(),
            _ => format!("{request}/{}", item.metric),
        };
        let ids: Vec<String> = (items.iter().copied().enumerate()).map(id).collect();
        ids.into_iter().zip(items).collect()
    }

    /// SHA-256 over what must not differ between repeats of one request id.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by(|a, b| a.metric.cmp(&b.metric));
        let mut features: Vec<&FeatureSlug> = self.features.iter().collect();
        features.sort();
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        for item in items {
            part(item.metric.as_str().as_bytes());
            part(&item.amount.get().to_be_bytes());
        }
        part(b"features");
        for feature in features {
            part(feature.as_str().as_bytes());
        }
        if let Some(at) = self.event_at {
            part(&at.as_microsecond().to_be_bytes());
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(items: &[(&str, u64)]) -> Check {
        let item = |(metric, amount): &(&str, u64)| Item {
            metric: MetricSlug::parse(metric).expect("a slug"),
            amount: Units::new(*amount).expect("an amount"),
        };
        Check {
            account: AccountId::parse("acme").expect("an id"),
            items: items.iter().map(item).collect(),
            features: Vec::new(),
            mode: Mode::Peek,
            event_at: None,
            backfill: false,
            repeat: false,
        }
    }

    #[test]
    fn the_order_of_the_items_changes_neither_the_content_nor_the_events() {
        let request = RequestId::parse("r-1").expect("an id");
        let one = check(&[("a.b", 1), ("c.d", 2)]);
        let other = check(&[("c.d", 2), ("a.b", 1)]);
        assert_eq!(one.content_hash(), other.content_hash());
        assert_eq!(one.events(&request), other.events(&request));
        let ids: Vec<String> = (one.events(&request).into_iter()).map(|(id, _)| id).collect();
        assert_eq!(ids, ["r-1", "r-1/c.d"]);
    }

    #[test]
    fn a_decision_is_of_one_request() {
        let first = decision_id("acme", "app", "r-1");
        assert_eq!(first.len(), 32);
        assert_eq!(first, decision_id("acme", "app", "r-1"));
        for other in [
            ("acm", "eapp", "r-1"),
            ("acme", "appr", "-1"),
            ("acme", "app", "r-2"),
        ] {
            assert_ne!(first, decision_id(other.0, other.1, other.2), "{other:?}");
        }
        // A vector of the draft.
        assert_eq!(
            fnv1a(b"a".iter().copied()),
            0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964
        );
    }

    #[test]
    fn whatever_a_repeat_asks_for_meets_the_first_events_id() {
        let request = RequestId::parse("r-1").expect("an id");
        for items in [&[("a.b", 1)][..], &[("c.d", 5)], &[("c.d", 5), ("a.b", 1)]] {
            let check = check(items);
            let first = check.events(&request).into_iter().next().map(|(id, _)| id);
            assert_eq!(first.as_deref(), Some("r-1"), "{items:?}");
        }
        assert_ne!(
            check(&[("a.b", 1)]).content_hash(),
            check(&[("a.b", 1), ("c.d", 5)]).content_hash()
        );
    }
}
