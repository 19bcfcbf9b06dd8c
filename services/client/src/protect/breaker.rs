//! Whether it is worth asking: after some failures in a row nobody is asked for a while, and then one is, to see.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// After how many failures in a row nobody is asked.
const FAILURES_MAX: u32 = 5;
/// For how long; then one request sees whether somebody answers again.
const OPEN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    since: Instant,
    failures: AtomicU32,
    /// When the next is let through, in milliseconds after `since`.
    next_ms: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            failures: AtomicU32::new(0),
            next_ms: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    /// Whether to ask.
    pub(super) fn lets_through(&self) -> bool {
        self.lets_through_at(self.now_ms())
    }

    /// Somebody answered, whatever it was.
    pub(super) fn answered(&self) {
        // Written only where it changes, so that the processors need not fight for it.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Nobody answered.
    pub(super) fn failed(&self) {
        self.failed_at(self.now_ms());
    }

    fn lets_through_at(&self, now_ms: u64) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return true;
        }
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        // Of those who come at once, one goes.
        now_ms >= next_ms
            && (self.next_ms)
                .compare_exchange(next_ms, now_ms + open_ms(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn failed_at(&self, now_ms: u64) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures >= FAILURES_MAX {
            self.next_ms.store(now_ms + open_ms(), Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn open_ms() -> u64 {
    u64::try_from(OPEN.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(times: u32, at_ms: u64) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..times {
            breaker.failed_at(at_ms);
        }
        breaker
    }

    #[test]
    fn after_five_failures_in_a_row_nobody_is_asked_for_a_second() {
        assert!(failed(4, 100).lets_through_at(100));
        let breaker = failed(5, 100);
        assert!(!breaker.lets_through_at(100));
        assert!(!breaker.lets_through_at(1_099));
        assert!(breaker.lets_through_at(1_100));
    }

    #[test]
    fn then_one_is_asked_and_the_others_wait_for_what_becomes_of_it() {
        let breaker = failed(5, 0);
        assert!(breaker.lets_through_at(1_000));
        assert!(!breaker.lets_through_at(1_000));
        breaker.failed_at(1_010);
        assert!(!breaker.lets_through_at(2_009));
        assert!(breaker.lets_through_at(2_010));
        breaker.answered();
        assert!(breaker.lets_through_at(2_010) && breaker.lets_through_at(2_010));
    }

    #[test]
    fn an_answer_between_failures_begins_them_anew() {
        let breaker = failed(4, 0);
        breaker.answered();
        breaker.failed_at(0);
        assert!(breaker.lets_through_at(0));
    }
}
