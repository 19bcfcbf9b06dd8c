//! How many decisions of one account and metric are written down each second.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug};

/// How many accounts with their metrics are counted apart. Two that meet in one place share what they may write, so
/// that there is never more than was allowed, and no table that grows.
const PLACES: usize = 16_384;

/// Lets the first decisions of each second through.
#[derive(Debug)]
pub(super) struct Sampler {
    per_second_max: u32,
    hasher: RandomState,
    /// The second, in the upper half, and how many came in it.
    places: Vec<AtomicU64>,
}

impl Sampler {
    pub(super) fn new(per_second_max: u32) -> Self {
        Self {
            per_second_max,
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn place(&self, account: &AccountId, metric: Option<&MetricSlug>) -> usize {
        let hash = self.hasher.hash_one((account, metric));
        usize::try_from(hash % PLACES as u64).unwrap_or(0)
    }

    /// Whether one more is written down.
    pub(super) fn admit(&self, account: &AccountId, metric: Option<&MetricSlug>, now: Timestamp) -> bool {
        let Some(place) = self.places.get(self.place(account, metric)) else {
            return false;
        };
        // Seconds wrap after 136 years.
        let second = now.as_second().cast_unsigned() & u64::from(u32::MAX);
        let count = |before: u64| {
            let counted = if before >> 32 == second {
                before & u64::from(u32::MAX)
            } else {
                0
            };
            (counted < u64::from(self.per_second_max)).then_some(second << 32 | (counted + 1))
        };
        place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn so_many_of_an_account_and_metric_are_admitted_each_second() {
        let sampler = Sampler::new(3);
        let account = |name: &str| AccountId::parse(name).expect("an id");
        let metric = MetricSlug::parse("api.requests").expect("a slug");
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
        let admitted = |account: &AccountId, now| {
            (0..10)
                .filter(|_| sampler.admit(account, Some(&metric), now))
                .count()
        };
        assert_eq!(admitted(&account("acme"), start), 3);
        assert_eq!(
            admitted(&account("acme"), start + SignedDuration::from_millis(999)),
            0
        );
        assert_eq!(
            admitted(&account("acme"), start + SignedDuration::from_secs(1)),
            3
        );
        // Those that meet in one place share its three, and nobody else does.
        let others: Vec<AccountId> = (0..100)
            .map(|number| account(&format!("other-{number}")))
            .collect();
        let places: HashSet<usize> = (others.iter())
            .map(|other| sampler.place(other, Some(&metric)))
            .collect();
        let all: usize = others.iter().map(|other| admitted(other, start)).sum();
        assert_eq!(all, 3 * places.len());
        assert!(!Sampler::new(0).admit(&account("acme"), None, start));
    }
}
