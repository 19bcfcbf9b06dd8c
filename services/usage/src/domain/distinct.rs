//! How many distinct values there are: exactly to a bound, and beyond it as an estimate.
//!
//! Each value is hashed to 64 bits, and the smallest hashes are kept. Fewer than the bound are all there are. Where there are
//! more, the largest of the kept says how dense the hashes lie: with the `k` smallest kept and the largest of them at the share
//! `u` of all 64 bits, `(k − 1) / u` is an estimate without bias, whose standard error is `1 / √(k − 2)`, 1.6 % here
//! (Beyer, Haas, Reinwald, Sismanis, Gemulla: On Synopses for Distinct-Value Estimation Under Multiset Operations, 2007).
//! What is kept of a union is what is kept of both together, so the figure does not depend on the order of events.

use sha2::{Digest as _, Sha256};

/// So many of the smallest hashes are kept: below it the number is exact.
pub const KEPT_MAX: usize = 4_096;
const HASH_BYTES: usize = 8;

/// What values are hashed with, so that nobody can choose values whose hashes are alike.
pub type Salt = [u8; 16];

/// The hash of a value: the first 8 bytes of the SHA-256 over the salt and the value.
#[must_use]
pub fn hash_of(salt: &Salt, value: &str) -> u64 {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(salt)
        .chain_update(value)
        .finalize()
        .into();
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The distinct values of a property, as their smallest hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Sorted, each once, at most [`KEPT_MAX`].
    hashes: Vec<u64>,
}

impl Distinct {
    /// What is kept of these hashes.
    pub fn of(hashes: impl IntoIterator<Item = u64>) -> Self {
        let mut hashes: Vec<u64> = hashes.into_iter().collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.truncate(KEPT_MAX);
        Self { hashes }
    }

    /// Adds the values of others.
    pub fn add(&mut self, other: &Self) {
        match &other.hashes[..] {
            [] => {}
            // One event after the other is what a commit adds.
            [hash] => {
                if let Err(place) = self.hashes.binary_search(hash) {
                    self.hashes.insert(place, *hash);
                    self.hashes.truncate(KEPT_MAX);
                }
            }
            many => *self = Self::of(self.hashes.iter().chain(many).copied()),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether [`Distinct::count`] is an estimate.
    #[must_use]
    pub const fn is_estimated(&self) -> bool {
        self.hashes.len() >= KEPT_MAX
    }

    /// How many values there are, or about as many; an estimate is rounded down.
    #[must_use]
    pub fn count(&self) -> u64 {
        let kept = u64::try_from(self.hashes.len()).unwrap_or(u64::MAX);
        match self.hashes.last() {
            Some(largest) if self.is_estimated() => {
                let share = u128::from(*largest) + 1;
                let estimate = (u128::from(kept - 1) << 64) / share;
                u64::try_from(estimate).unwrap_or(u64::MAX)
            }
            _ => kept,
        }
    }

    /// As it is stored: each hash in 8 bytes, the smallest first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect()
    }

    /// What was stored; bytes that do not make up a hash are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        Self::of(hashes.iter().map(|hash| u64::from_be_bytes(*hash)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values that look as hashes do (splitmix64).
    fn hash(value: u64) -> u64 {
        let mut mixed = value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn below_the_bound_the_number_is_exact_and_repeats_do_not_count() {
        for count in [0, 1, 2, 4_095] {
            let values = (0..count).chain(0..count).map(hash);
            let distinct = Distinct::of(values);
            assert_eq!((distinct.count(), distinct.is_estimated()), (count, false));
        }
    }

    #[test]
    fn beyond_the_bound_the_estimate_is_within_five_standard_errors() {
        for count in [4_096, 10_000, 100_000, 1_000_000] {
            let distinct = Distinct::of((0..count).map(hash));
            assert!(distinct.is_estimated());
            let off = distinct.count().abs_diff(count);
            assert!(off * 1_000 <= count * 80, "{} of {count}", distinct.count());
        }
    }

    proptest! {
        #[test]
        fn a_union_is_the_same_in_any_order_and_survives_being_stored(
            one in 0_u64..9_000, two in 0_u64..9_000, three in 0_u64..9_000, length in 1_u64..6_000,
        ) {
            let part = |start: u64| Distinct::of((start..start + length).map(hash));
            let (one, two, three) = (part(one), part(two), part(three));
            let stored = |distinct: &Distinct| Distinct::from_bytes(&distinct.to_bytes());
            let union = |all: &[&Distinct]| {
                let mut sum = Distinct::default();
                for one in all {
                    sum.add(&stored(one));
                }
                sum
            };
            let left = union(&[&union(&[&one, &two]), &three]);
            prop_assert_eq!(&left, &union(&[&three, &union(&[&two, &one])]));
            let each: Vec<Distinct> = two.hashes.iter().map(|hash| Distinct::of([*hash])).collect();
            let one_by_one: Vec<&Distinct> = each.iter().chain([&one, &three]).collect();
            prop_assert_eq!(&left, &union(&one_by_one));
        }
    }
}
