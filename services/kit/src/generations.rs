//! What is remembered of many keys, as long as somebody asks for it.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// A map in two halves. What nobody asked for while both had their time is forgotten with the older one, all at once, so
/// that nothing is ever searched for what is old.
#[derive(Debug)]
pub struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// When the younger half began.
    since: Instant,
    life: Duration,
    half_max: usize,
}

/// What was forgotten, to be dropped where nobody waits for it.
#[must_use]
#[derive(Debug)]
pub struct Forgotten<K, V>(#[expect(dead_code, reason = "it is only dropped")] HashMap<K, V>);

impl<K: Clone + Eq + Hash, V> Generations<K, V> {
    /// Remembers at most `max` keys, and each that is asked for at least for `life`.
    #[must_use]
    pub fn new(life: Duration, max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            since: Instant::now(),
            life,
            half_max: (max / 2).max(1),
        }
    }

    /// What is remembered of a key, which counts as asked for.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.young.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The same, and it stays as old as it is.
    pub fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Remembers something of a key. The older half is forgotten where the younger one is full, or has had its time.
    pub fn insert(&mut self, key: K, value: V) -> Forgotten<K, V> {
        let over = self.young.len() >= self.half_max || self.since.elapsed() >= self.life;
        let forgotten = if over {
            self.since = Instant::now();
            std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
        } else {
            HashMap::new()
        };
        self.old.remove(&key);
        self.young.insert(key, value);
        Forgotten(forgotten)
    }

    /// Forgets a key.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Forgets everything, and answers the keys.
    pub fn drain(&mut self) -> Vec<K> {
        let all = self.young.drain().chain(self.old.drain());
        all.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_outlives_the_halves_and_the_rest_does_not() {
        let mut remembered = Generations::new(Duration::from_secs(3_600), 4);
        for key in ["a", "b", "c"] {
            drop(remembered.insert(key, key));
        }
        // "c" began another half.
        assert_eq!(remembered.get("a"), Some(&mut "a"));
        assert_eq!(remembered.peek("b"), Some(&"b"));
        drop(remembered.insert("d", "d"));
        assert_eq!((remembered.peek("a"), remembered.peek("b")), (Some(&"a"), None));
        drop(remembered.insert("a", "again"));
        assert_eq!(remembered.get("a"), Some(&mut "again"));
        assert_eq!(remembered.remove("a"), Some("again"));
        assert_eq!(remembered.get("a"), None);
        let mut left = remembered.drain();
        left.sort_unstable();
        assert_eq!(left, ["c", "d"]);
    }

    #[test]
    fn the_younger_half_has_its_time() {
        let mut remembered = Generations::new(Duration::ZERO, 100);
        for key in 0..3 {
            drop(remembered.insert(key, ()));
        }
        assert_eq!((remembered.peek(&0), remembered.peek(&1)), (None, Some(&())));
    }
}
