//! When requests are due.

use std::time::{Duration, Instant};

/// Says when the next request is due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Whenever there is room for one.
    Full,
    /// At a steady rate, whatever became of those before.
    Steady {
        /// When the first was due.
        since: Instant,
        /// How many are due each second.
        rate: u32,
        /// How many were sent.
        sent: u64,
    },
}

impl Pace {
    /// `rate` requests each second from `now` on; without a rate, whenever there is room.
    pub(super) fn new(rate: Option<u32>, now: Instant) -> Self {
        rate.map_or(Self::Full, |rate| Self::Steady {
            since: now,
            rate,
            sent: 0,
        })
    }

    /// When the next request was due; none where it is not yet.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match *self {
            Self::Full => Some(now),
            Self::Steady { since, rate, sent } => {
                // Rounded down: none is due later than its share of the second.
                let after = Duration::from_nanos(sent * 1_000_000_000 / u64::from(rate.max(1)));
                Some(since + after).filter(|due_at| *due_at <= now)
            }
        }
    }

    /// The next request was sent.
    pub(super) fn took(&mut self) {
        if let Self::Steady { sent, .. } = self {
            *sent += 1;
        }
    }

    /// How many are due and were not sent.
    pub(super) fn overdue(&self, now: Instant) -> u64 {
        match *self {
            Self::Full => 0,
            Self::Steady { since, rate, sent } => {
                let passed = now.saturating_duration_since(since).as_nanos();
                let due = passed * u128::from(rate) / 1_000_000_000 + 1;
                u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(sent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_rate_and_what_is_not_sent_is_overdue() {
        let since = Instant::now();
        let at = |ms| since + Duration::from_millis(ms);
        let mut pace = Pace::new(Some(100), since);
        for (now, due_at, overdue) in [
            (0, Some(0), 1),
            (9, None, 0),
            (35, Some(10), 3),
            (35, Some(20), 2),
        ] {
            assert_eq!(pace.due(at(now)), due_at.map(at), "at {now} ms");
            assert_eq!(pace.overdue(at(now)), overdue, "at {now} ms");
            if due_at.is_some() {
                pace.took();
            }
        }
    }

    #[test]
    fn without_a_rate_a_request_is_due_whenever_there_is_room() {
        let now = Instant::now();
        let mut pace = Pace::new(None, now);
        pace.took();
        assert_eq!((pace.due(now), pace.overdue(now)), (Some(now), 0));
    }
}
