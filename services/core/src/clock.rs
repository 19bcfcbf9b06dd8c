//! What time it is: the primary database's time, sampled each second, and monotonic time since.
//!
//! Replicas whose own clocks differ therefore agree. Whoever needs the time takes it as an argument;
//! only the outermost layer asks this clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;

/// The clock of a process. Cloning shares it.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The primary's time.
    Database(Arc<Sampled>),
    /// The primary's time moved by an offset, for tests and sandboxes.
    Test(Arc<Sampled>, Arc<AtomicI64>),
}

/// A sample of the primary's time, carried on by the monotonic clock.
#[derive(Debug)]
pub struct Sampled {
    /// Monotonic time is counted from here.
    base: Instant,
    /// The primary's time at `base`, in microseconds since the Unix epoch.
    base_us: AtomicI64,
}

impl Sampled {
    fn new(now: Timestamp) -> Self {
        Self {
            base: monotonic(),
            base_us: AtomicI64::new(now.as_microsecond()),
        }
    }

    fn elapsed_us(&self) -> i64 {
        // 64 bits of microseconds hold 292,000 years.
        i64::try_from(self.base.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn now_us(&self) -> i64 {
        self.base_us
            .load(Ordering::Relaxed)
            .saturating_add(self.elapsed_us())
    }

    fn sample(&self, now: Timestamp) {
        self.base_us.store(
            now.as_microsecond().saturating_sub(self.elapsed_us()),
            Ordering::Relaxed,
        );
    }
}

impl Clock {
    /// A clock that was told the primary's time just now.
    #[must_use]
    pub fn database(now: Timestamp) -> Self {
        Self::Database(Arc::new(Sampled::new(now)))
    }

    /// The same, moved by an offset that [`Clock::set_offset_us`] changes.
    #[must_use]
    pub fn test(now: Timestamp) -> Self {
        Self::Test(Arc::new(Sampled::new(now)), Arc::new(AtomicI64::new(0)))
    }

    /// The time now, to the microsecond, which is what the database keeps.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now_us = match self {
            Self::Database(sampled) => sampled.now_us(),
            Self::Test(sampled, offset) => sampled.now_us().saturating_add(offset.load(Ordering::Relaxed)),
        };
        Timestamp::from_microsecond(now_us).unwrap_or(Timestamp::MAX)
    }

    /// Corrects the clock by the primary's time as it was told just now.
    pub fn sample(&self, now: Timestamp) {
        match self {
            Self::Database(sampled) | Self::Test(sampled, _) => sampled.sample(now),
        }
    }

    /// Moves a test clock to this distance from the primary's time. The real one does not move.
    pub fn set_offset_us(&self, offset_us: i64) {
        if let Self::Test(_, offset) = self {
            offset.store(offset_us, Ordering::Relaxed);
        }
    }
}

fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    #[test]
    fn a_clock_goes_on_from_its_last_sample() {
        let start: Timestamp = "2026-01-31T23:59:59Z".parse().expect("an instant");
        let clock = Clock::database(start);
        assert!(clock.now() >= start);
        let later = start + 5.minutes();
        clock.sample(later);
        assert!(clock.now() >= later && clock.now() < later + 5.seconds());
    }

    #[test]
    fn only_a_test_clock_can_be_moved() {
        let start: Timestamp = "2026-01-31T23:59:59Z".parse().expect("an instant");
        let (real, test) = (Clock::database(start), Clock::test(start));
        for clock in [&real, &test] {
            clock.set_offset_us(3_600_000_000);
        }
        assert!(real.now() < start + 1.minute());
        assert!(test.now() >= start + 1.hour());
    }
}
