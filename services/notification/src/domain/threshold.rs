//! A threshold that was crossed: what it is worth telling.

use jiff::Timestamp;
use octroi_core::{LimitMode, MetricSlug, Period, Units, Window};

use super::{Facts, Severity};

/// The share, in percent, at which a HARD limit is near enough to warn of it.
const NEAR_PERCENT: u32 = 95;
/// The whole of a limit.
const FULL_PERCENT: u32 = 100;

/// An account reached a share of a limit for the first time in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdCrossed {
    /// What is limited.
    pub metric: MetricSlug,
    /// The length of the window.
    pub period: Period,
    /// The limit in force.
    pub limit: Units,
    /// The share that was reached.
    pub percent: u32,
    /// The use when it was reached.
    pub used: Units,
    /// When the use was counted.
    pub window: Window,
    /// The window had ended already.
    pub window_closed: bool,
    /// What happens at the limit.
    pub mode: LimitMode,
}

impl ThresholdCrossed {
    /// The same for every telling of the same crossing, and for no other: a threshold of one amount of one
    /// limit in one window. What was used is left out, because a second telling may have seen more.
    #[must_use]
    pub fn dedupe_key(&self) -> String {
        let Self {
            metric,
            period,
            window,
            limit,
            percent,
            ..
        } = self;
        format!("{metric}/{}/{}/{limit}/{percent}", period.as_str(), window.start)
    }

    /// How much it matters: a full HARD limit has stopped something, one that is nearly full is about to,
    /// and a full SOFT one begins to cost.
    #[must_use]
    pub fn severity(&self) -> Severity {
        if self.window_closed {
            return Severity::Info;
        }
        match self.mode {
            LimitMode::Hard if self.percent >= FULL_PERCENT => Severity::Critical,
            LimitMode::Hard if self.percent >= NEAR_PERCENT => Severity::Warning,
            LimitMode::Soft if self.percent >= FULL_PERCENT => Severity::Warning,
            LimitMode::Hard | LimitMode::Soft | LimitMode::Shadow => Severity::Info,
        }
    }

    /// Whether it is also told by e-mail: not where nobody need act, because the window has ended or the
    /// limit is only observed.
    #[must_use]
    pub fn by_email(&self) -> bool {
        !self.window_closed && self.mode != LimitMode::Shadow
    }

    /// The facts, as the database keeps them and the contract shows them.
    #[must_use]
    pub fn to_facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut add = |name: &str, value: String| facts.insert(name.to_owned(), value);
        add("metric", self.metric.to_string());
        add("period", self.period.as_str().to_owned());
        add("limit", self.limit.to_string());
        add("percent", self.percent.to_string());
        add("used", self.used.to_string());
        add("window_start_time", self.window.start.to_string());
        if self.window.is_bounded() {
            add("window_end_time", self.window.end.to_string());
        }
        add("window_closed", self.window_closed.to_string());
        add("mode", mode_name(self.mode).to_owned());
        facts
    }

    /// What [`ThresholdCrossed::to_facts`] made; none where it did not make them.
    #[must_use]
    pub fn from_facts(facts: &Facts) -> Option<Self> {
        let get = |name: &str| facts.get(name).map(String::as_str);
        let end: Option<Timestamp> = match get("window_end_time") {
            Some(end) => Some(end.parse().ok()?),
            None => None,
        };
        Some(Self {
            metric: MetricSlug::parse(get("metric")?).ok()?,
            period: Period::from_name(get("period")?)?,
            limit: Units::new(get("limit")?.parse().ok()?).ok()?,
            percent: get("percent")?.parse().ok()?,
            used: Units::new(get("used")?.parse().ok()?).ok()?,
            window: Window {
                start: get("window_start_time")?.parse().ok()?,
                end: end.unwrap_or(Timestamp::MAX),
            },
            window_closed: get("window_closed")?.parse().ok()?,
            mode: mode_from_name(get("mode")?)?,
        })
    }
}

/// The mode's name among the facts.
#[must_use]
pub const fn mode_name(mode: LimitMode) -> &'static str {
    match mode {
        LimitMode::Hard => "hard",
        LimitMode::Soft => "soft",
        LimitMode::Shadow => "shadow",
    }
}

fn mode_from_name(name: &str) -> Option<LimitMode> {
    [LimitMode::Hard, LimitMode::Soft, LimitMode::Shadow]
        .into_iter()
        .find(|mode| mode_name(*mode) == name)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 8,012 of 10,000 requests of November, behind a HARD limit.
    pub(crate) fn example() -> ThresholdCrossed {
        ThresholdCrossed {
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            period: Period::Month,
            limit: Units::new(10_000).expect("in range"),
            percent: 80,
            used: Units::new(8_012).expect("in range"),
            window: Window {
                start: "2026-11-01T00:00:00Z".parse().expect("an instant"),
                end: "2026-12-01T00:00:00Z".parse().expect("an instant"),
            },
            window_closed: false,
            mode: LimitMode::Hard,
        }
    }

    #[track_caller]
    fn check(mode: LimitMode, percent: u32, severity: Severity) {
        assert_eq!(
            ThresholdCrossed {
                mode,
                percent,
                ..example()
            }
            .severity(),
            severity,
            "{mode:?} {percent}"
        );
        let closed = ThresholdCrossed {
            mode,
            percent,
            window_closed: true,
            ..example()
        };
        assert_eq!((closed.severity(), closed.by_email()), (Severity::Info, false));
    }

    #[test]
    fn what_stops_matters_more_than_what_costs() {
        check(LimitMode::Hard, 80, Severity::Info);
        check(LimitMode::Hard, 94, Severity::Info);
        check(LimitMode::Hard, 95, Severity::Warning);
        check(LimitMode::Hard, 100, Severity::Critical);
        check(LimitMode::Soft, 95, Severity::Info);
        check(LimitMode::Soft, 100, Severity::Warning);
        check(LimitMode::Soft, 1000, Severity::Warning);
        check(LimitMode::Shadow, 100, Severity::Info);
    }

    #[test]
    fn a_limit_that_is_only_observed_sends_no_email() {
        assert!(example().by_email());
        assert!(
            !ThresholdCrossed {
                mode: LimitMode::Shadow,
                ..example()
            }
            .by_email()
        );
    }

    #[test]
    fn a_crossing_is_the_same_whatever_was_used_and_another_at_another_amount() {
        let first = example();
        let again = ThresholdCrossed {
            used: Units::MAX,
            window_closed: true,
            ..example()
        };
        assert_eq!(first.dedupe_key(), again.dedupe_key());
        let next = Window {
            start: first.window.end,
            end: Timestamp::MAX,
        };
        for other in [
            ThresholdCrossed {
                percent: 95,
                ..example()
            },
            ThresholdCrossed {
                limit: Units::MAX,
                ..example()
            },
            ThresholdCrossed {
                period: Period::Day,
                ..example()
            },
            ThresholdCrossed {
                window: next,
                ..example()
            },
            ThresholdCrossed {
                metric: MetricSlug::parse("exports.run").expect("a slug"),
                ..example()
            },
        ] {
            assert_ne!(first.dedupe_key(), other.dedupe_key());
        }
    }

    proptest! {
        #[test]
        fn facts_give_back_what_they_were_made_of(
            used in 0..=Units::MAX.get(),
            percent in 1_u32..=1000,
            start_us in 0_i64..4_000_000_000_000_000,
            length_us in prop::option::of(1_i64..4_000_000_000_000),
            window_closed: bool,
            period in prop::sample::select(&Period::ALL[..]),
            mode in prop::sample::select(&[LimitMode::Hard, LimitMode::Soft, LimitMode::Shadow][..]),
        ) {
            let at = |us| Timestamp::from_microsecond(us).expect("in range");
            let end = length_us.map_or(Timestamp::MAX, |length_us| at(start_us + length_us));
            let window = Window { start: at(start_us), end };
            let used = Units::new(used).expect("in range");
            let crossed = ThresholdCrossed { used, percent, window, window_closed, period, mode, ..example() };
            prop_assert_eq!(ThresholdCrossed::from_facts(&crossed.to_facts()), Some(crossed.clone()));
            prop_assert!(crossed.dedupe_key().len() <= 300);
        }
    }
}
