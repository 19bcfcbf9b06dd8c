//! What time it is: the primary database's time, sampled each second, and monotonic time since.
//!
//! Replicas whose own clocks differ therefore agree. Whoever needs the time takes it as an argument;
//! only the outermost layer asks this clock. In a sandbox the clock can be moved, for all processes at
//! once; what moves it is a row in each service's schema.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;

/// How far a test clock may be from the primary's time, to either side, in microseconds: some 100 years,
/// so that what is counted from it stays within the calendar.
pub const OFFSET_US_MAX: i64 = 36_525 * 86_400 * 1_000_000;

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

    /// Whether it can be moved.
    #[must_use]
    pub const fn is_test(&self) -> bool {
        matches!(self, Self::Test(..))
    }

    /// How far it is from the primary's time, in microseconds; negative where it is behind.
    #[must_use]
    pub fn offset_us(&self) -> i64 {
        match self {
            Self::Database(_) => 0,
            Self::Test(_, offset) => offset.load(Ordering::Relaxed),
        }
    }

    /// Moves a test clock to this distance from the primary's time, at most [`OFFSET_US_MAX`] to either
    /// side. The real one does not move.
    pub fn set_offset_us(&self, offset_us: i64) {
        if let Self::Test(_, offset) = self {
            offset.store(offset_us.clamp(-OFFSET_US_MAX, OFFSET_US_MAX), Ordering::Relaxed);
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
        assert_eq!((real.offset_us(), test.offset_us()), (0, 3_600_000_000));
        assert_eq!((real.is_test(), test.is_test()), (false, true));
    }

    #[test]
    fn a_sample_leaves_a_test_clock_at_its_distance() {
        let start: Timestamp = "2026-01-31T23:59:59Z".parse().expect("an instant");
        let clock = Clock::test(start);
        clock.set_offset_us(-3_600_000_000);
        clock.sample(start + 5.minutes());
        assert!(clock.now() >= start - 55.minutes() && clock.now() < start - 54.minutes());
    }

    #[test]
    fn a_test_clock_stays_within_its_reach() {
        let clock = Clock::test(Timestamp::UNIX_EPOCH);
        for (offset_us, kept) in [(i64::MAX, OFFSET_US_MAX), (i64::MIN, -OFFSET_US_MAX), (0, 0)] {
            clock.set_offset_us(offset_us);
            assert_eq!(clock.offset_us(), kept);
        }
    }
}
