//! What is expected of an hour, and whether it was so.

use octroi_core::{Units, Window};

use super::{Kind, Rules};

/// How much finer than a unit medians are: half a unit is the finest that there is.
const MEDIAN_UNIT: u128 = 2;
/// How much finer than a unit deviations are, so that nothing that is compared is rounded.
const DEVIATION_UNIT: u128 = 100_000;
/// 1.4826 = 1 / Φ⁻¹(3/4): of values with a normal distribution, so many medians of the distances from the median are one
/// standard deviation. This is a quarter of it in the unit of deviations, because the MAD is in quarters of a unit.
const DEVIATION_OF_MAD_QUARTERS: u128 = 148_260 / 4;
/// A deviation is at least this part of the median: a series that never moves does not make every step an anomaly.
const MEDIAN_SHARE: u128 = 10;

/// How many weeks' worth of doubt is added: a deviation of n weeks is widened by (n + 2) / n, because the median and the MAD
/// of few weeks are themselves far from certain.
const DOUBT: u128 = 2;

/// How many hours around an hour are looked at for how much use scatters: two before it and two after.
pub const AROUND: usize = 4;

/// The same hour of one of the weeks before, and the hours around it, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The hour itself.
    pub during: u64,
    /// The two hours before it and the two after, in their order.
    pub around: [u64; AROUND],
}

impl Sample {
    /// Says what the hour used that begins so many hours after the sample; −2 to 2, any other is none of it.
    pub fn set(&mut self, after_hours: i64, amount: u64) {
        let [two_before, before, after, two_after] = &mut self.around;
        match after_hours {
            -2 => *two_before = amount,
            -1 => *before = amount,
            0 => self.during = amount,
            1 => *after = amount,
            2 => *two_after = amount,
            _ => {}
        }
    }
}

/// What is expected of an hour.
///
/// The middle is the median of the samples. The robust deviation is 1.4826 times the median of the distances from it
/// (MAD), as in the modified z-score of B. Iglewicz and D. C. Hoaglin, *How to Detect and Handle Outliers* (ASQC, 1993). As
/// few weeks make a MAD that is often far too small, it is the larger one of that of the hour and that of the hour with the
/// four around it, each measured from its own median; it is at least a tenth of the median, and widened by (n + 2) / n for n
/// samples; and it is at least so much that an hour must be [`Rules::difference_min`] away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The median, in halves of a unit.
    median_halves: u128,
    /// The robust deviation, in 1/100,000 of a unit, times the number of samples; more than 0.
    deviation: u128,
    /// The number of samples.
    samples: u128,
    /// The least of the samples.
    least: u64,
    /// The two newest samples.
    newest: [u64; 2],
}

impl Baseline {
    /// What `samples`, the newest first, let expect; none of fewer than two.
    #[must_use]
    pub fn of(samples: &[Sample], rules: &Rules) -> Option<Self> {
        let during: Vec<u64> = samples.iter().map(|sample| sample.during).collect();
        let [first, second, ..] = *during else {
            return None;
        };
        let median_halves = median_halves(&during);
        let own = distances(&during, median_halves);
        let mut around = own.clone();
        for place in 0..AROUND {
            let hours = samples
                .iter()
                .filter_map(|sample| sample.around.get(place).copied());
            let hours: Vec<u64> = hours.collect();
            around.extend(distances(&hours, self::median_halves(&hours)));
        }
        // The distances are in halves, so their median is in quarters.
        let mad_quarters = median_of(own).max(median_of(around));
        let count = u128::try_from(samples.len()).unwrap_or(1);
        let deviation = (mad_quarters * DEVIATION_OF_MAD_QUARTERS)
            .max(median_halves * (DEVIATION_UNIT / MEDIAN_UNIT) / MEDIAN_SHARE);
        let floor = DEVIATION_UNIT * 1_000 * u128::from(rules.difference_min);
        let floor = floor.div_ceil(u128::from(rules.score_min.max(1)));
        Some(Self {
            median_halves,
            deviation: (deviation * (count + DOUBT)).max(floor.max(1) * count),
            samples: count,
            least: during.iter().copied().min().unwrap_or_default(),
            newest: [first, second],
        })
    }

    /// The median, rounded half up.
    #[must_use]
    pub fn expected(&self) -> u64 {
        units(self.median_halves.div_ceil(MEDIAN_UNIT))
    }

    /// The least that is still expected.
    #[must_use]
    pub fn low(&self, rules: &Rules) -> u64 {
        let low = self.median().saturating_sub(self.reach(rules));
        units(low.div_ceil(DEVIATION_UNIT))
    }

    /// The most that is still expected.
    #[must_use]
    pub fn high(&self, rules: &Rules) -> u64 {
        units((self.median() + self.reach(rules)) / DEVIATION_UNIT)
    }

    /// How far `actual` is from the median, in thousandths of a robust deviation, rounded down; at most 2^53 − 1.
    #[must_use]
    pub fn score(&self, actual: u64) -> u64 {
        let distance = (u128::from(actual) * DEVIATION_UNIT).abs_diff(self.median());
        units(distance * self.samples * 1_000 / self.deviation)
    }

    /// Whether the hour usually has no use at all.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.median_halves == 0
    }

    /// The median, in the unit of deviations.
    fn median(&self) -> u128 {
        self.median_halves * (DEVIATION_UNIT / MEDIAN_UNIT)
    }

    /// How far from the median an hour may be, in the unit of deviations. It is rounded down, and as distances are whole
    /// numbers of that unit, one is larger than it where it is larger than what was rounded.
    fn reach(&self, rules: &Rules) -> u128 {
        self.deviation * u128::from(rules.score_min) / (self.samples * 1_000)
    }

    /// How an amount leaves what is expected; none where it does not.
    fn side(&self, amount: u64, rules: &Rules) -> Option<Kind> {
        if amount > self.high(rules) {
            Some(Kind::Spike)
        } else if amount < self.low(rules) {
            Some(Kind::Drop)
        } else {
            None
        }
    }
}

/// An hour outside of what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The hour.
    pub hour: Window,
    /// To which side.
    pub kind: Kind,
    /// What was used.
    pub actual: u64,
    /// The median, rounded half up.
    pub expected: u64,
    /// The least that is still expected.
    pub low: u64,
    /// The most.
    pub high: u64,
    /// How far the use is from the median, in thousandths of a robust deviation, rounded down.
    pub score: u64,
    /// The hour usually has no use, so that this is only one where it is more than any hour before.
    pub is_of_idle_hour: bool,
}

impl Finding {
    /// Whether it stands, where no hour of the weeks before used more than `largest`: in an hour that usually has no use
    /// only what is more than any other is out of the ordinary.
    #[must_use]
    pub fn stands(&self, largest: u64) -> bool {
        !self.is_of_idle_hour || self.actual > largest
    }
}

/// Judges what an hour used by the samples of the weeks before, the newest first.
///
/// The level has moved, and nothing is found, where the two newest samples lie outside on the same side. Less than expected is
/// only found where every week had use in that hour: it is not missed where it does not come each week.
#[must_use]
pub fn judge(hour: Window, actual: u64, samples: &[Sample], rules: &Rules) -> Option<Finding> {
    let baseline = Baseline::of(samples, rules)?;
    let kind = baseline.side(actual, rules)?;
    let has_moved = baseline
        .newest
        .iter()
        .all(|amount| baseline.side(*amount, rules) == Some(kind));
    if has_moved || (kind == Kind::Drop && baseline.least == 0) {
        return None;
    }
    Some(Finding {
        hour,
        kind,
        actual,
        expected: baseline.expected(),
        low: baseline.low(rules),
        high: baseline.high(rules),
        score: baseline.score(actual),
        is_of_idle_hour: baseline.is_idle() && kind == Kind::Spike,
    })
}

/// How far amounts are from a median, in halves of a unit.
fn distances(amounts: &[u64], median_halves: u128) -> Vec<u128> {
    let halves = amounts.iter().map(|amount| u128::from(*amount) * MEDIAN_UNIT);
    halves.map(|amount| amount.abs_diff(median_halves)).collect()
}

/// The median of amounts, in halves of a unit.
fn median_halves(amounts: &[u64]) -> u128 {
    median_of(amounts.iter().map(|amount| u128::from(*amount)).collect())
}

/// Twice the median: the sum of the two in the middle, or twice the one; 0 of nothing.
fn median_of(mut numbers: Vec<u128>) -> u128 {
    numbers.sort_unstable();
    let middle = numbers.len() / 2;
    let upper = numbers.get(middle).copied().unwrap_or_default();
    if numbers.len().is_multiple_of(2) {
        let lower = numbers.get(middle.wrapping_sub(1)).copied();
        upper + lower.unwrap_or_default()
    } else {
        2 * upper
    }
}

fn units(amount: u128) -> u64 {
    u64::try_from(amount).map_or(Units::MAX.get(), |amount| amount.min(Units::MAX.get()))
}
