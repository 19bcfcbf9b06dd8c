//! Rounds of several sides in turn, so that whatever else the machine does meets all of them alike.

use anyhow::{Context as _, Result, ensure};

use super::load::Round;

/// A ratio is the median of no fewer rounds than these.
pub const ROUNDS_MIN: usize = 5;

/// How often a void round is tried again before the side is given up.
const VOID_MAX: usize = 3;

/// One of those that are compared.
pub struct Side<'a> {
    name: &'a str,
    run: Box<dyn FnMut() -> Result<Round> + 'a>,
}

impl<'a> Side<'a> {
    /// A side whose rounds are made by `run`.
    pub fn new(name: &'a str, run: impl FnMut() -> Result<Round> + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }

    /// One round that is not void.
    fn round(&mut self, series: &mut Series) -> Result<()> {
        for _ in 0..=VOID_MAX {
            let round = (self.run)().and_then(Round::good);
            let round = round.with_context(|| format!("a round of {} failed", self.name))?;
            if !round.is_void() {
                series.rounds.push(round);
                return Ok(());
            }
            series.void += 1;
        }
        anyhow::bail!(
            "the generator cannot keep up with {}: it was busy all the time in {} rounds of {}",
            self.name,
            series.void,
            series.void + series.rounds.len()
        )
    }
}

/// The rounds of one side, in their order.
#[derive(Clone, Debug)]
pub struct Series {
    /// Whose they are.
    pub name: String,
    /// Those that count.
    pub rounds: Vec<Round>,
    /// How many did not.
    pub void: usize,
}

/// Runs `count` rounds of each side. Each time another side begins, so that none has the better place. The
/// answer has the series in the order of the sides.
///
/// # Errors
/// When a round fails, or a side leaves the generator no time to spare.
pub fn interleaved<const SIDES: usize>(
    count: usize,
    mut sides: [Side<'_>; SIDES],
) -> Result<[Series; SIDES]> {
    ensure!(count >= ROUNDS_MIN, "{count} rounds are too few for a median");
    let mut all = sides.each_ref().map(|side| Series {
        name: side.name.to_owned(),
        rounds: Vec::new(),
        void: 0,
    });
    for first in 0..count {
        for place in 0..SIDES {
            let index = (first + place) % SIDES;
            sides[index].round(&mut all[index])?;
        }
    }
    Ok(all)
}

impl Series {
    /// What `measure` says of the rounds.
    #[must_use]
    pub fn figure(&self, measure: impl Fn(&Round) -> f64) -> Figure {
        Figure {
            value: Spread::of(self.rounds.iter().map(measure)),
            against: None,
        }
    }

    /// What `measure` says of the rounds, and how that compares with the rounds of `baseline` that were made
    /// beside them.
    #[must_use]
    #[expect(clippy::float_arithmetic, reason = "a ratio is a quotient, for people")]
    pub fn figure_against(&self, baseline: &Self, measure: impl Fn(&Round) -> f64) -> Figure {
        let pairs = self.rounds.iter().zip(&baseline.rounds);
        Figure {
            value: Spread::of(self.rounds.iter().map(&measure)),
            against: Some(Against {
                baseline: Spread::of(baseline.rounds.iter().map(&measure)),
                ratio: Spread::of(pairs.map(|(ours, theirs)| measure(ours) / measure(theirs))),
            }),
        }
    }
}

/// What is reported of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub value: Spread,
    /// What it is compared with.
    pub against: Option<Against>,
}

impl Figure {
    /// A figure that was measured so many times.
    #[must_use]
    pub fn all(values: impl Iterator<Item = f64>) -> Self {
        Self {
            value: Spread::of(values),
            against: None,
        }
    }

    /// A figure that was measured once.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self {
            value: Spread::of([value].into_iter()),
            against: None,
        }
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Against {
    /// What was measured of the other side.
    pub baseline: Spread,
    /// The ratios of rounds that were made beside each other: what the machine did meanwhile is in both.
    pub ratio: Spread,
}

/// The middle and the ends of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `numbers`; not a number where there are none.
    #[must_use]
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        let at = |index: usize| numbers.get(index).copied().unwrap_or(f64::NAN);
        let length = numbers.len();
        Self {
            // Of an even number of them, the mean of the two in the middle.
            median: f64::midpoint(at(length.saturating_sub(1) / 2), at(length / 2)),
            min: at(0),
            max: at(length.saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use super::*;
    use crate::bench::{cpu::ThreadTime, histogram::Histogram, load::Tally};

    /// A round with so many answers in a second, in which the generator was busy for so many ms.
    fn round(answered: u64, busy_ms: u64) -> Round {
        let tally = Tally {
            sent: answered,
            answered,
            ..Tally::default()
        };
        Round {
            measured: Duration::from_secs(1),
            total: tally.clone(),
            tally,
            latencies: Histogram::default(),
            overdue: 0,
            generator: ThreadTime {
                running: Duration::from_millis(busy_ms / 2),
                waiting: Duration::from_millis(busy_ms - busy_ms / 2),
            },
            cpu: Vec::new(),
            cores: None,
        }
    }

    #[test]
    fn sides_take_turns_and_each_begins() {
        let order = RefCell::new(String::new());
        let side = |name| {
            Side::new(name, || {
                order.borrow_mut().push_str(name);
                Ok(round(10, 0))
            })
        };
        let all = interleaved(5, [side("a"), side("b"), side("c")]).expect("good rounds");
        assert_eq!(*order.borrow(), "abcbcacababcbca");
        assert!(
            all.iter()
                .all(|series| series.rounds.len() == 5 && series.void == 0)
        );
    }

    #[test]
    fn a_ratio_is_the_median_of_pairs() {
        let series = |name: &'static str, answers: [u64; 5]| {
            let mut answers = answers.into_iter();
            Side::new(name, move || Ok(round(answers.next().expect("five"), 0)))
        };
        // The machine got slower and slower, for both.
        let ours = series("ours", [90, 80, 40, 21, 9]);
        let floor = series("floor", [100, 100, 50, 20, 10]);
        let [ours, floor] = interleaved(5, [ours, floor]).expect("good rounds");
        let figure = ours.figure_against(&floor, Round::requests_per_s);
        let spread = |median, min, max| Spread { median, min, max };
        assert_eq!(figure.value, spread(40.0, 9.0, 90.0));
        let against = figure.against.expect("a comparison");
        assert_eq!(against.baseline, spread(50.0, 10.0, 100.0));
        assert_eq!(against.ratio, spread(0.9, 0.8, 1.05));
    }

    #[test]
    fn a_void_round_is_made_again_and_counted() {
        let mut busy = [100, 960, 100, 950, 949, 100, 100].into_iter();
        let side = Side::new("ours", move || Ok(round(10, busy.next().expect("seven"))));
        let [ours] = interleaved(5, [side]).expect("enough good rounds");
        assert_eq!((ours.rounds.len(), ours.void), (5, 2));
    }

    #[test]
    fn a_side_that_leaves_no_time_to_spare_has_no_figure() {
        let error = interleaved(5, [Side::new("ours", || Ok(round(10, 1_000)))]).expect_err("void");
        assert!(error.to_string().contains("cannot keep up with ours"), "{error}");
    }

    #[test]
    fn a_round_with_failures_and_too_few_rounds_are_refused() {
        let failed = || {
            let mut round = round(10, 0);
            round.total.statuses[16] = 1;
            Ok(round)
        };
        let error = interleaved(5, [Side::new("ours", failed)]).expect_err("refused");
        assert!(format!("{error:#}").contains("1 UNAUTHENTICATED"), "{error:#}");
        assert!(interleaved(4, [Side::new("ours", || Ok(round(10, 0)))]).is_err());
    }
}
