//! Requests that were answered before the ledger had them: which came, with what content, and whether they were
//! allowed. Small, because they are many.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use octroi_core::Units;

/// Parts with a lock of their own.
const SHARDS: usize = 64;
/// The most requests of half the memory's time, over all parts: about 100 MB. What comes beyond it forgets the older
/// half.
const HALF_MAX: usize = 1_500_000;
/// Half of the time that a request is remembered.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being decided.
    Deciding,
    /// It was allowed.
    Allowed,
    /// It was denied.
    Denied,
}

/// A request that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The hash of what it asked for.
    pub content: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A request of a caller for an account, as it is remembered. Two requests have the same by chance once in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(u128);

/// The key is a hash already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, key: u128) {
        self.0 = u64::try_from(key >> 64).unwrap_or(0);
    }
}

type Half = HashMap<Mark, Before, BuildHasherDefault<Unhashed>>;

#[derive(Debug, Default)]
struct Shard {
    young: Half,
    old: Half,
    /// When the young ones began.
    since: Option<Instant>,
}

/// Requests that came within the last five to ten minutes.
#[derive(Debug)]
pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    hashers: [RandomState; 2],
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }
}

impl Seen {
    /// The mark of a request.
    #[must_use]
    pub fn mark(&self, account: &str, caller: &str, request: &str) -> Mark {
        let [high, low] = (self.hashers.each_ref()).map(|hasher| hasher.hash_one((account, caller, request)));
        Mark(u128::from(high) << 64 | u128::from(low))
    }

    /// The hash of what a request asks for, whatever the order.
    #[must_use]
    pub fn content<'i>(&self, items: impl Iterator<Item = (&'i str, Units)>) -> u64 {
        let [hasher, _] = &self.hashers;
        items.fold(0, |sum: u64, item| {
            sum.wrapping_add(hasher.hash_one((item.0, item.1.get())))
        })
    }

    /// Begins to decide a request, or answers that it came before.
    ///
    /// # Errors
    /// What became of it before.
    pub fn begin(&self, mark: Mark, content: u64) -> Result<(), Before> {
        let mut shard = self.shard(mark);
        if let Some(before) = shard.young.get(&mark).or_else(|| shard.old.get(&mark)) {
            return Err(*before);
        }
        shard.set(mark, content, Outcome::Deciding);
        Ok(())
    }

    /// What became of a request that came before.
    #[must_use]
    pub fn find(&self, mark: Mark) -> Option<Before> {
        let shard = self.shard(mark);
        shard.young.get(&mark).or_else(|| shard.old.get(&mark)).copied()
    }

    /// Remembers what became of a request.
    pub fn end(&self, mark: Mark, content: u64, allowed: bool) {
        let outcome = if allowed {
            Outcome::Allowed
        } else {
            Outcome::Denied
        };
        self.shard(mark).set(mark, content, outcome);
    }

    /// Forgets a request that is not decided after all.
    pub fn forget(&self, mark: Mark) {
        let mut shard = self.shard(mark);
        shard.young.remove(&mark);
        shard.old.remove(&mark);
    }

    fn shard(&self, mark: Mark) -> std::sync::MutexGuard<'_, Shard> {
        let place = usize::try_from(mark.0 % SHARDS as u128).unwrap_or(0);
        // There are SHARDS of them.
        let shard = self
            .shards
            .get(place)
            .unwrap_or_else(|| unreachable!("a place below SHARDS"));
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn set(&mut self, mark: Mark, content: u64, outcome: Outcome) {
        let since = *self.since.get_or_insert_with(Instant::now);
        let full = self.young.len() >= HALF_MAX / SHARDS;
        // Looking at the clock costs more than counting.
        let over = self.young.len().is_multiple_of(64) && since.elapsed() >= HALF_LIFE;
        if full || over {
            let early = if full { self.old.len() } else { 0 };
            metrics::counter!("octroi_quota_answers_evicted_total")
                .increment(u64::try_from(early).unwrap_or(u64::MAX));
            self.old = std::mem::take(&mut self.young);
            self.since = Some(Instant::now());
        }
        self.old.remove(&mark);
        self.young.insert(mark, Before { content, outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_decided_once_and_known_with_its_content() {
        let seen = Seen::default();
        let one = Units::new(1).expect("an amount");
        let mark = seen.mark("acme", "app", "r-1");
        let content = seen.content([("a", one), ("b", Units::MAX)].into_iter());
        assert_eq!(content, seen.content([("b", Units::MAX), ("a", one)].into_iter()));
        assert_ne!(content, seen.content([("a", Units::MAX), ("b", one)].into_iter()));
        assert_eq!(seen.begin(mark, content), Ok(()));
        let deciding = Before {
            content,
            outcome: Outcome::Deciding,
        };
        assert_eq!(seen.begin(mark, content), Err(deciding));
        seen.end(mark, content, true);
        let outcome = seen.find(mark).map(|before| before.outcome);
        assert_eq!(outcome, Some(Outcome::Allowed));
        assert_eq!(seen.begin(seen.mark("acme", "app", "r-2"), content), Ok(()));
        seen.forget(mark);
        assert_eq!(seen.find(mark), None);
    }

    #[test]
    fn the_older_half_is_forgotten_where_memory_ends() {
        let seen = Seen::default();
        let first = seen.mark("acme", "app", "first");
        seen.end(first, 0, true);
        for number in 0..HALF_MAX as u128 * 3 {
            seen.end(Mark(number << 64 | number), 0, true);
        }
        assert_eq!(seen.find(first), None);
        let kept: usize = seen
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().expect("nobody panicked");
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(kept <= 2 * HALF_MAX, "{kept}");
    }
}
