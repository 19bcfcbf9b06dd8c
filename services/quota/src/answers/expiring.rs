//! What is remembered for a while, within a budget of memory.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// What a value costs besides its own bytes: its key twice, its instants, the tables around them.
const OVERHEAD_BYTES: usize = 256;

/// A map whose entries go after a time, and the oldest before it where they take too much memory.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    life: Duration,
    bytes_max: usize,
    bytes: usize,
    entries: HashMap<K, Entry<V>>,
    /// In the order in which they were set; an entry that was set again stands here twice.
    by_age: VecDeque<(Instant, K)>,
}

#[derive(Debug)]
struct Entry<V> {
    set_at: Instant,
    bytes: usize,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Expiring<K, V> {
    pub(super) fn new(life: Duration, bytes_max: usize) -> Self {
        Self {
            life,
            bytes_max,
            bytes: 0,
            entries: HashMap::new(),
            by_age: VecDeque::new(),
        }
    }

    /// Sets an entry, whose value holds about `bytes`, and answers how many went early to make room.
    pub(super) fn set(&mut self, key: K, value: V, bytes: usize, now: Instant) -> u64 {
        let bytes = bytes + OVERHEAD_BYTES;
        self.remove(&key);
        self.bytes += bytes;
        self.by_age.push_back((now, key.clone()));
        let entry = Entry {
            set_at: now,
            bytes,
            value,
        };
        self.entries.insert(key, entry);
        let mut early = 0;
        while let Some((set_at, _)) = self.by_age.front() {
            let old = now.duration_since(*set_at) > self.life;
            if !old && self.bytes <= self.bytes_max {
                break;
            }
            let Some((set_at, key)) = self.by_age.pop_front() else {
                break;
            };
            if self.entries.get(&key).is_some_and(|entry| entry.set_at == set_at) {
                self.remove(&key);
                early += u64::from(!old);
            }
        }
        early
    }

    pub(super) fn get<Q>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries.get(key)?;
        (now.duration_since(entry.set_at) <= self.life).then_some(&entry.value)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.bytes;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_after_its_time_and_one_that_is_set_again_begins_anew() {
        let (start, life) = (Instant::now(), Duration::from_secs(10));
        let mut map = Expiring::new(life, usize::MAX);
        map.set("a", 1, 0, start);
        map.set("b", 2, 0, start);
        map.set("a", 3, 0, start + life);
        assert_eq!(map.get("b", start + life), Some(&2));
        let later = start + life + Duration::from_secs(1);
        assert_eq!((map.get("a", later), map.get("b", later)), (Some(&3), None));
        map.set("c", 4, 0, later);
        assert_eq!(map.entries.len(), 2, "what is old takes no memory");
    }

    #[test]
    fn the_oldest_go_where_memory_ends() {
        let start = Instant::now();
        let room_for_two = 2 * (OVERHEAD_BYTES + 100);
        let mut map = Expiring::new(Duration::from_secs(10), room_for_two);
        assert_eq!(map.set(1, (), 100, start), 0);
        assert_eq!(map.set(2, (), 100, start), 0);
        assert_eq!(map.set(3, (), 100, start), 1);
        assert_eq!((map.get(&1, start), map.get(&3, start)), (None, Some(&())));
        map.remove(&2);
        map.remove(&3);
        assert_eq!(map.bytes, 0);
    }
}
