//! What a metric used in the weeks before, by quarters of an hour.

use jiff::{SignedDuration, Timestamp};
use octroi_core::Window;

use crate::domain::buckets::QUARTER_S;

/// What was used in each quarter of an hour of a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    range: Window,
    /// What was used before each quarter, from the first on, and in all of them at last.
    before: Vec<u128>,
}

impl History {
    /// The history of `range`, which begins and ends with a quarter of an hour, of the amounts by where their quarters begin;
    /// what lies outside is left out.
    #[must_use]
    pub fn new(range: Window, amounts: impl IntoIterator<Item = (Timestamp, u128)>) -> Self {
        let quarters = range.end.duration_since(range.start).as_secs() / QUARTER_S;
        let mut before = vec![0; usize::try_from(quarters).unwrap_or_default() + 1];
        for (at, amount) in amounts {
            let place = at.duration_since(range.start).as_secs() / QUARTER_S;
            let next = usize::try_from(place).ok().filter(|_| range.contains(at));
            if let Some(quarter) = next.and_then(|place| before.get_mut(place + 1)) {
                *quarter += amount;
            }
        }
        let mut sum = 0;
        for quarter in &mut before {
            sum += *quarter;
            *quarter = sum;
        }
        Self { range, before }
    }

    /// Its first instant.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.range.start
    }

    /// The first quarter with use.
    #[must_use]
    pub fn first_at(&self) -> Option<Timestamp> {
        let place = self.before.iter().position(|amount| *amount > 0)?;
        let quarters = i64::try_from(place).ok()? - 1;
        self.range
            .start
            .checked_add(SignedDuration::from_secs(quarters * QUARTER_S))
            .ok()
    }

    /// What was used between two instants, rounded down; of a quarter that they cut, as much as lies between them.
    #[must_use]
    pub fn between(&self, start: Timestamp, end: Timestamp) -> u128 {
        let (from, to) = (self.until(start), self.until(end));
        to.saturating_sub(from) / u128::from(QUARTER_S.unsigned_abs())
    }

    /// What was used until an instant, in 1/900 of a unit.
    fn until(&self, at: Timestamp) -> u128 {
        let at = at.clamp(self.range.start, self.range.end);
        let seconds = at.duration_since(self.range.start).as_secs();
        let place = usize::try_from(seconds / QUARTER_S).unwrap_or_default();
        let into = u128::from((seconds % QUARTER_S).unsigned_abs());
        let before = self.before.get(place).copied().unwrap_or_default();
        let after = self.before.get(place + 1).copied().unwrap_or(before);
        before * u128::from(QUARTER_S.unsigned_abs()) + (after - before) * into
    }
}
