//! One at a time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

type Waiting<K> = HashMap<K, Arc<tokio::sync::Mutex<()>>>;

/// Lets one piece of work for a key at a time go on in this process. Cloning shares it.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash>(Arc<Mutex<Waiting<K>>>);

impl<K: Eq + Hash> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq + Hash> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The turn of one piece of work; it ends where this is dropped.
#[derive(Debug)]
pub struct Turn<K: Clone + Eq + Hash> {
    /// Ends first.
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
    /// Takes the entry away after that.
    _last: Last<K>,
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(self.turn.take());
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Waits until no other work for the key goes on, and keeps others from it.
    pub async fn turn(&self, key: K) -> Turn<K> {
        let turn = self.lock().entry(key.clone()).or_default().clone();
        let _last = Last {
            turns: self.clone(),
            key,
            turn: turn.clone(),
        };
        let turn = Some(turn.lock_owned().await);
        Turn { turn, _last }
    }

    /// Does `work` when no other work for the key goes on.
    pub async fn one_at_a_time<T>(&self, key: K, work: impl Future<Output = T>) -> T {
        let _turn = self.turn(key).await;
        work.await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the entry away when nobody waits for it any more, whatever ended the wait.
#[derive(Debug)]
struct Last<K: Clone + Eq + Hash> {
    turns: Turns<K>,
    key: K,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<K: Clone + Eq + Hash> Drop for Last<K> {
    fn drop(&mut self) {
        let mut waiting = self.turns.lock();
        // The map's and this one's: whoever waits or works has more.
        if Arc::strong_count(&self.turn) <= 2 {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn works_for_one_key_go_one_after_the_other_and_leave_nothing() {
        let (turns, busy) = (Turns::default(), AtomicUsize::new(0));
        let work = async || {
            turns
                .one_at_a_time("acme", async {
                    assert_eq!(busy.fetch_add(1, Ordering::Relaxed), 0, "nobody else is at it");
                    tokio::task::yield_now().await;
                    busy.fetch_sub(1, Ordering::Relaxed);
                })
                .await;
        };
        futures::future::join_all((0..20).map(|_| work())).await;
        assert!(turns.lock().is_empty());
    }
}
