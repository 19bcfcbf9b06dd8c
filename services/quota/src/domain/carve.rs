//! How much of a limit is carved: all windows of a metric give, or none does.
//!
//! What a window has granted is `open_cap + charged + overrun - returned`: the caps of slices that may still be
//! charged, what was charged to those that were sealed, what entered without permission, less what was given
//! back. A slice is carved only where that and the slice stay within the limit; a slice never pays more than its
//! cap; so whatever is allowed stays within the limit, whoever crashes.

use octroi_core::Units;
use serde::{Deserialize, Serialize};

/// What one window has granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Granted {
    /// Caps of slices that are open or closing.
    pub open_cap: Units,
    /// The part of them that holds have.
    pub held: Units,
    /// What was charged to slices that are sealed.
    pub charged: Units,
    /// Units that entered without permission; many events pass 64 bits.
    pub overrun: u128,
    /// Units that were given back.
    pub returned: u128,
    /// Units used, as the ledger's events were followed: it lags behind. What was given back is not taken off.
    pub followed: u128,
}

impl Granted {
    /// Units used, as far as the ledger was followed, less what was given back: what thresholds look at.
    #[must_use]
    pub fn used(&self) -> u128 {
        self.followed.saturating_sub(self.returned)
    }

    /// All that counts against the limit.
    #[must_use]
    pub fn total(&self) -> u128 {
        let taken = u128::from(self.open_cap.get()) + u128::from(self.charged.get()) + self.overrun;
        taken.saturating_sub(self.returned)
    }

    /// What may still be carved under `max`, which is at most what can be counted.
    #[must_use]
    pub fn room(&self, max: Option<Units>) -> Units {
        let left = u128::from(max.unwrap_or(Units::MAX).get()).saturating_sub(self.total());
        u64::try_from(left)
            .ok()
            .and_then(|left| Units::new(left).ok())
            .unwrap_or(Units::MAX)
    }
}

/// The share of what remains that one slice may have, so that others find something too.
const SHARE: u64 = 4;

/// The cap of a slice, given the room of every window: `need` at least, and up to `want` where that leaves most of
/// what remains. None where some window has no room for `need`.
#[must_use]
pub fn cap(rooms: impl IntoIterator<Item = Units>, need: Units, want: Units) -> Option<Units> {
    let room = rooms.into_iter().min().unwrap_or(Units::MAX);
    if need > room {
        return None;
    }
    let share = room.get() / SHARE;
    let cap = want.get().min(share).max(need.get());
    Units::new(cap).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    #[test]
    fn a_slice_is_a_share_of_what_remains_and_at_least_what_is_needed() {
        for (rooms, need, want, expected) in [
            (&[100, 1_000][..], 1, 1_000, Some(25)),
            (&[100], 1, 10, Some(10)),
            (&[100], 60, 10, Some(60)),
            (&[3], 1, 1_000, Some(1)),
            (&[1], 1, 1_000, Some(1)),
            (&[100, 0], 1, 1, None),
            (&[], 5, 7, Some(7)),
        ] {
            let rooms = rooms.iter().map(|room| units(*room));
            assert_eq!(cap(rooms, units(need), units(want)), expected.map(units));
        }
    }

    #[test]
    fn overrun_lowers_the_room_and_what_is_given_back_raises_it() {
        let granted = Granted {
            open_cap: units(10),
            charged: units(20),
            overrun: 30,
            returned: 5,
            ..Granted::default()
        };
        assert_eq!(granted.total(), 55);
        assert_eq!(granted.room(Some(units(60))), units(5));
        assert_eq!(granted.room(Some(units(50))), Units::ZERO);
        assert_eq!(granted.room(None), units(Units::MAX.get() - 55));
    }

    proptest! {
        #[test]
        fn a_slice_never_passes_the_room_of_a_window(
            rooms in prop::collection::vec(0_u64..1_000, 1..5), need in 1_u64..1_000, want in 0_u64..10_000,
        ) {
            let smallest = rooms.iter().copied().min().unwrap_or(0);
            match cap(rooms.into_iter().map(units), units(need), units(want)) {
                Some(cap) => prop_assert!(cap.get() <= smallest && cap.get() >= need),
                None => prop_assert!(need > smallest),
            }
        }
    }
}
