//! Latencies, counted in steps that grow with them.

use std::time::Duration;

/// Each doubling has 2^7 steps, so a latency is off by less than 0.8 %.
const STEP_BITS: u32 = 7;
const STEPS: u64 = 1 << STEP_BITS;

/// Nothing takes longer than 2^36 ns, a bit more than a minute; what does is counted there.
const MAGNITUDE_MAX: u32 = 36;

const SLOTS: usize = ((MAGNITUDE_MAX - STEP_BITS + 1) << STEP_BITS) as usize;

/// How often each latency was seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; SLOTS].into(),
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(ns)] += 1;
        self.total += 1;
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What `per_mille` of all latencies do not exceed; zero where there are none. The answer is the upper
    /// end of its step, so it flatters nobody.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Duration {
        assert!(per_mille <= 1_000, "a quantile is a part of all");
        // Rounded up: of one latency, each quantile is that one.
        let rank = (self.total * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(slot as u64));
            }
        }
        Duration::ZERO
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }
}

/// Where a latency is counted: the first 2^7 each for themselves, then 2^7 slots for each doubling.
fn slot(ns: u64) -> usize {
    let ns = ns.min((1 << MAGNITUDE_MAX) - 1);
    let magnitude = (ns | 1).ilog2();
    let doublings = u64::from(magnitude.saturating_sub(STEP_BITS - 1));
    if doublings == 0 {
        return ns as usize;
    }
    let step = (ns >> (doublings - 1)) - STEPS;
    ((doublings << STEP_BITS) + step) as usize
}

/// The largest latency that is counted in a slot.
fn upper(slot: u64) -> u64 {
    let (doublings, step) = (slot >> STEP_BITS, slot & (STEPS - 1));
    if doublings == 0 {
        return step;
    }
    ((STEPS + step + 1) << (doublings - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_ends_where_the_next_begins() {
        for at in 0..SLOTS as u64 - 1 {
            let last = upper(at);
            assert_eq!(slot(last), at as usize);
            assert_eq!(slot(last + 1), at as usize + 1);
        }
        assert_eq!(slot(u64::MAX), SLOTS - 1);
        assert_eq!(upper(SLOTS as u64 - 1), (1 << MAGNITUDE_MAX) - 1);
    }

    #[test]
    fn a_latency_is_off_by_less_than_eight_per_mille() {
        for ns in [1, 127, 128, 1_000, 14_321, 999_999, 123_456_789, 9_876_543_210] {
            let shown = upper(slot(ns) as u64);
            assert!(
                shown >= ns && (shown - ns) * 1_000 <= ns * 8,
                "{ns} is shown as {shown}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_the_list() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), Duration::ZERO);
        for ns in 1..=100 {
            histogram.record(Duration::from_nanos(ns));
        }
        for (per_mille, ns) in [(0, 1), (10, 1), (500, 50), (990, 99), (1_000, 100)] {
            assert_eq!(
                histogram.quantile(per_mille),
                Duration::from_nanos(ns),
                "{per_mille}"
            );
        }
        let mut both = histogram.clone();
        both.merge(&histogram);
        assert_eq!(
            (both.total(), both.quantile(500)),
            (200, Duration::from_nanos(50))
        );
    }
}
