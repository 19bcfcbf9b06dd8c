//! A skewed choice that never changes: the same seed and line give the same account with every version of
//! this program, because nothing here comes from a library.
//!
//! Account `k` of `1..=accounts` has the weight `w(k) = floor(2^48 / k)` (Zipf with exponent 1), `W` is the
//! sum of all weights. Line `n` draws `u`, the `n`-th output of splitmix64 started at `seed`, and takes the
//! first account whose cumulated weight is above `floor(u * W / 2^64)`. All of it is whole numbers.

/// The most accounts that lines are spread over.
pub const ACCOUNTS_MAX: u32 = 100_000;

/// The weight of the first account.
const WEIGHT: u64 = 1 << 48;

/// A Zipf choice among accounts numbered from 1, where account 1 is the busiest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zipf {
    seed: u64,
    /// At index `k - 1`: the weights of the accounts `1..=k` together.
    cumulated: Vec<u64>,
}

impl Zipf {
    /// A choice among `accounts` accounts, held within 1 and [`ACCOUNTS_MAX`].
    #[must_use]
    pub fn new(accounts: u32, seed: u64) -> Self {
        // 2^48 times the harmonic number of 100,000, about 12, is far below 2^64.
        let cumulated = (1..=u64::from(accounts.clamp(1, ACCOUNTS_MAX)))
            .scan(0, |sum: &mut u64, rank| {
                *sum += WEIGHT / rank;
                Some(*sum)
            })
            .collect();
        Self { seed, cumulated }
    }

    /// How many accounts there are to choose from.
    #[must_use]
    pub fn accounts(&self) -> u32 {
        u32::try_from(self.cumulated.len()).unwrap_or(ACCOUNTS_MAX)
    }

    /// What it was made with.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The account of a line: 1 to [`Zipf::accounts`].
    #[must_use]
    pub fn choose(&self, line: u64) -> u32 {
        let total = self.cumulated.last().copied().unwrap_or(WEIGHT);
        let drawn = (u128::from(splitmix64(self.seed, line)) * u128::from(total)) >> 64;
        let below = self.cumulated.partition_point(|sum| u128::from(*sum) <= drawn);
        // `drawn` is below the last sum, so there is an account above it.
        u32::try_from(below).unwrap_or(ACCOUNTS_MAX) + 1
    }
}

/// The `n`-th output, from 1, of splitmix64 with its state started at `seed` (Steele, Lea, Flood 2014).
fn splitmix64(seed: u64, n: u64) -> u64 {
    let mut mixed = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splitmix64_gives_its_published_outputs() {
        let outputs: Vec<u64> = (1..=5).map(|n| splitmix64(1_234_567, n)).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(outputs, published);
    }

    #[test]
    fn the_first_choices_of_seed_1_are_kept_for_ever() {
        let zipf = Zipf::new(300, 1);
        let choices: Vec<u32> = (2..=13).map(|line| zipf.choose(line)).collect();
        assert_eq!(choices, [61, 250, 9, 9, 68, 139, 15, 3, 82, 7, 25, 10]);
    }

    #[test]
    fn the_busiest_account_has_its_share() {
        let zipf = Zipf::new(300, 1);
        let mut counts = vec![0_u32; 301];
        for line in 1..=20_000 {
            counts[zipf.choose(line) as usize] += 1;
        }
        // 20,000 / H(300) = 3,183; half of that for the second, a tenth for the tenth.
        for (rank, expected) in [(1, 3_183_u32), (2, 1_592), (10, 318)] {
            assert!(
                counts[rank].abs_diff(expected) < expected / 5,
                "account {rank} has {}",
                counts[rank]
            );
        }
    }

    #[test]
    fn one_account_has_every_line() {
        let zipf = Zipf::new(0, 7);
        assert_eq!(zipf.accounts(), 1);
        assert!((1..1_000).all(|line| zipf.choose(line) == 1));
    }

    proptest! {
        #[test]
        fn every_choice_is_one_of_the_accounts(accounts in 1_u32..2_000, seed: u64, line: u64) {
            let zipf = Zipf::new(accounts, seed);
            let choice = zipf.choose(line);
            prop_assert!((1..=accounts).contains(&choice));
            prop_assert_eq!(choice, Zipf::new(accounts, seed).choose(line), "the choice has no memory");
        }

        #[test]
        fn another_seed_spreads_the_lines_otherwise(seed in 0..u64::MAX) {
            let (one, other) = (Zipf::new(300, seed), Zipf::new(300, seed + 1));
            prop_assert!((1..200).any(|line| one.choose(line) != other.choose(line)));
        }
    }
}
