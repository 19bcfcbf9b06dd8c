//! Requests that were answered before the ledger had them: which came, with what content, and whether they were
//! allowed. Small, because they are many.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hash as _, Hasher},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use octroi_core::Units;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::behind::Behind;
use crate::redis::RedisError;

/// Parts with a lock of their own.
const SHARDS: usize = 64;
/// How often whoever claims a request looks whether another has decided it.
const CLAIM_TRIES: u32 = 1_000;
/// The most requests of half the memory's time, over all parts: about 100 MB. What comes beyond it forgets the older
/// half.
const HALF_MAX: usize = 1_500_000;
/// How long a request is remembered at the least, and half of how long at the most.
const HALF_LIFE: Duration = Duration::from_secs(600);

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

/// A request of a caller for an account, as it is remembered: the same in every replica. Two requests have the same by
/// chance once in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(pub(super) u128);

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

/// A request that is being decided. Where that comes to nothing it is forgotten.
#[derive(Debug)]
pub struct Claim<'s> {
    seen: &'s Seen,
    mark: Mark,
    content: u64,
}

impl Claim<'_> {
    /// Remembers what became of it.
    pub fn end(self, allowed: bool) {
        self.seen.end(self.mark, self.content, allowed);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.seen.forget(self.mark);
    }
}

/// Requests that came within the last ten to twenty minutes.
#[derive(Debug)]
pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    /// What hashes begin with: nobody else finds two requests of the same mark.
    hasher: SipHasher13,
    /// What other replicas are told.
    behind: Option<Behind>,
}

impl Seen {
    /// Nothing yet. All replicas have the same key, of which the first 16 bytes count; `behind` tells the others.
    #[must_use]
    pub fn new(key: &[u8], behind: Option<Behind>) -> Self {
        let mut first = [0; 16];
        for (to, from) in first.iter_mut().zip(key) {
            *to = *from;
        }
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: SipHasher13::new_with_key(&first),
            behind,
        }
    }

    /// The mark of a request.
    #[must_use]
    pub fn mark(&self, account: &str, caller: &str, request: &str) -> Mark {
        let mut hasher = self.hasher;
        (account, caller, request).hash(&mut hasher);
        Mark(hasher.finish128().as_u128())
    }

    /// The hash of what a request asks for, whatever the order.
    #[must_use]
    pub fn content<'i>(&self, items: impl Iterator<Item = (&'i str, Units)>) -> u64 {
        items.fold(0, |sum: u64, (metric, amount)| {
            let mut hasher = self.hasher;
            (metric, amount.get()).hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    }

    /// What another replica answered to a request, where that is known.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn find_elsewhere(&self, mark: Mark) -> Result<Option<Before>, RedisError> {
        match &self.behind {
            Some(behind) => behind.find(mark).await,
            None => Ok(None),
        }
    }

    /// Begins to decide a request, or answers that it came before.
    ///
    /// # Errors
    /// What became of it before.
    pub fn begin(&self, mark: Mark, content: u64) -> Result<(), Before> {
        let mut shard = self.shard(mark);
        if let Some(before) = shard.old.get(&mark) {
            return Err(*before);
        }
        // What was young a moment ago is old then.
        if shard.make_room()
            && let Some(before) = shard.old.get(&mark)
        {
            return Err(*before);
        }
        // Each look at a map this large waits for memory, so there is one for both.
        match shard.young.entry(mark) {
            Entry::Occupied(before) => Err(*before.get()),
            Entry::Vacant(place) => {
                place.insert(Before {
                    content,
                    outcome: Outcome::Deciding,
                });
                Ok(())
            }
        }
    }

    /// The same for who may have to wait before it decides. Whoever decides from memory meanwhile is done in a moment.
    ///
    /// # Errors
    /// What became of it before.
    pub async fn claim(&self, mark: Mark, content: u64) -> Result<Claim<'_>, Before> {
        for _ in 0..CLAIM_TRIES {
            match self.begin(mark, content) {
                Ok(()) => {
                    return Ok(Claim {
                        seen: self,
                        mark,
                        content,
                    });
                }
                Err(before) if before.outcome == Outcome::Deciding => tokio::task::yield_now().await,
                Err(before) => return Err(before),
            }
        }
        Err(Before {
            content,
            outcome: Outcome::Deciding,
        })
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
        if let Some(behind) = &self.behind {
            behind.note(mark, Before { content, outcome });
        }
    }

    /// Forgets a request that was begun and is not decided after all.
    pub fn forget(&self, mark: Mark) {
        let mut shard = self.shard(mark);
        let Shard { young, old, .. } = &mut *shard;
        for half in [young, old] {
            let begun = half
                .get(&mark)
                .is_some_and(|before| before.outcome == Outcome::Deciding);
            if begun {
                half.remove(&mark);
            }
        }
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
        let now = Before { content, outcome };
        if let Some(before) = self.young.get_mut(&mark) {
            *before = now;
            return;
        }
        self.old.remove(&mark);
        // It was in neither half.
        self.make_room();
        self.young.insert(mark, now);
    }

    /// Forgets the older half where the younger one is full, or has lived for its time, and answers whether it did.
    fn make_room(&mut self) -> bool {
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
        full || over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_decided_once_and_known_with_its_content() {
        let seen = Seen::new(b"a key", None);
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
        let kept = seen.find(mark).map(|before| before.outcome);
        assert_eq!(kept, Some(Outcome::Allowed), "it was decided");
        let other = seen.mark("acme", "app", "r-2");
        seen.forget(other);
        assert_eq!(seen.find(other), None);
    }

    #[tokio::test]
    async fn who_claims_a_request_has_it_alone_until_it_is_decided_or_given_up() {
        let seen = Seen::new(b"a key", None);
        let mark = seen.mark("acme", "app", "r-1");
        let claim = seen.claim(mark, 7).await.expect("it is new");
        let meanwhile = seen.claim(mark, 7).await.expect_err("it is being decided");
        assert_eq!(meanwhile.outcome, Outcome::Deciding);
        drop(claim);
        seen.claim(mark, 7).await.expect("it was given up").end(false);
        let after = seen.claim(mark, 7).await.expect_err("it was decided");
        assert_eq!(after.outcome, Outcome::Denied);
    }

    #[test]
    fn a_repeat_that_comes_when_the_older_half_is_forgotten_is_a_repeat() {
        let seen = Seen::new(b"a key", None);
        // All of them are in one part, which is full with the last.
        let mark = |number: usize| Mark((number * SHARDS) as u128);
        for number in 0..HALF_MAX / SHARDS {
            assert_eq!(seen.begin(mark(number), 7), Ok(()));
        }
        let before = seen.begin(mark(0), 7).expect_err("it came before");
        assert_eq!(before.outcome, Outcome::Deciding);
        assert!(
            seen.shard(mark(0)).young.is_empty(),
            "it was the call that turned them over"
        );
    }

    #[test]
    fn the_older_half_is_forgotten_where_memory_ends() {
        let seen = Seen::new(b"a key", None);
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
