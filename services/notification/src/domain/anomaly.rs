//! Use out of the ordinary: what it is worth telling.

use jiff::Timestamp;
use octroi_core::{MetricSlug, Units, Window, named};
use uuid::Uuid;

use super::{Facts, Severity};

/// To which side use left what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// More was used.
    Spike,
    /// Less was used.
    Drop,
}

named!(Side { Spike => "spike", Drop => "drop" });

/// An account's use of a metric left what is expected, or left it further than was told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnomalyDetected {
    /// The anomaly.
    pub anomaly_id: Uuid,
    /// What is used.
    pub metric: MetricSlug,
    /// To which side.
    pub side: Side,
    /// From its first hour to its last so far.
    pub range: Window,
    /// The first instant of the hour that is farthest from what is expected.
    pub peak_at: Timestamp,
    /// What was used in that hour.
    pub used: Units,
    /// The least that is expected of it.
    pub low: Units,
    /// The most.
    pub high: Units,
    /// It was told before, and has grown since.
    pub grown: bool,
}

impl AnomalyDetected {
    /// The same for every telling of the same, and for no other: an anomaly that has grown is told again, by another hour.
    #[must_use]
    pub fn dedupe_key(&self) -> String {
        format!("{}/{}", self.anomaly_id, self.peak_at)
    }

    /// How much it matters: more use may cost more, or end at a limit.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self.side {
            Side::Spike => Severity::Warning,
            Side::Drop => Severity::Info,
        }
    }

    /// The facts, as the database keeps them and the contract shows them.
    #[must_use]
    pub fn to_facts(&self) -> Facts {
        let facts = [
            ("anomaly_id", self.anomaly_id.to_string()),
            ("metric", self.metric.to_string()),
            ("anomaly_kind", self.side.as_str().to_owned()),
            ("start_time", self.range.start.to_string()),
            ("end_time", self.range.end.to_string()),
            ("peak_time", self.peak_at.to_string()),
            ("used", self.used.to_string()),
            ("low", self.low.to_string()),
            ("high", self.high.to_string()),
            ("grown", self.grown.to_string()),
        ];
        facts.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// What [`AnomalyDetected::to_facts`] made; none where it did not make them.
    #[must_use]
    pub fn from_facts(facts: &Facts) -> Option<Self> {
        let get = |name: &str| facts.get(name).map(String::as_str);
        let units = |name: &str| Units::new(get(name)?.parse().ok()?).ok();
        Some(Self {
            anomaly_id: get("anomaly_id")?.parse().ok()?,
            metric: MetricSlug::parse(get("metric")?).ok()?,
            side: Side::from_name(get("anomaly_kind")?)?,
            range: Window {
                start: get("start_time")?.parse().ok()?,
                end: get("end_time")?.parse().ok()?,
            },
            peak_at: get("peak_time")?.parse().ok()?,
            used: units("used")?,
            low: units("low")?,
            high: units("high")?,
            grown: get("grown")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 8,012 requests in an hour of which 400 to 1,600 are expected.
    pub(crate) fn example() -> AnomalyDetected {
        let at = |text: &str| text.parse().expect("an instant");
        AnomalyDetected {
            anomaly_id: Uuid::from_u128(7),
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            side: Side::Spike,
            range: Window {
                start: at("2026-11-03T10:00:00Z"),
                end: at("2026-11-03T12:00:00Z"),
            },
            peak_at: at("2026-11-03T11:00:00Z"),
            used: Units::new(8_012).expect("in range"),
            low: Units::new(400).expect("in range"),
            high: Units::new(1_600).expect("in range"),
            grown: false,
        }
    }

    #[test]
    fn facts_give_back_what_they_were_made_of() {
        for side in Side::ALL {
            for grown in [false, true] {
                let detected = AnomalyDetected {
                    side,
                    grown,
                    ..example()
                };
                let facts = detected.to_facts();
                assert_eq!(AnomalyDetected::from_facts(&facts), Some(detected));
                for name in facts.keys() {
                    let mut fewer = facts.clone();
                    fewer.remove(name);
                    assert_eq!(AnomalyDetected::from_facts(&fewer), None, "without {name}");
                }
            }
        }
    }

    #[test]
    fn an_anomaly_is_told_again_by_another_hour_only() {
        let later = AnomalyDetected {
            range: Window {
                end: "2026-11-03T13:00:00Z".parse().expect("an instant"),
                ..example().range
            },
            ..example()
        };
        assert_eq!(later.dedupe_key(), example().dedupe_key());
        let grown = AnomalyDetected {
            peak_at: "2026-11-03T12:00:00Z".parse().expect("an instant"),
            ..later
        };
        assert_ne!(grown.dedupe_key(), example().dedupe_key());
        assert!(grown.dedupe_key().len() <= 300);
    }

    #[test]
    fn more_use_matters_more_than_less() {
        assert_eq!(example().severity(), Severity::Warning);
        let drop = AnomalyDetected {
            side: Side::Drop,
            ..example()
        };
        assert_eq!(drop.severity(), Severity::Info);
    }
}
