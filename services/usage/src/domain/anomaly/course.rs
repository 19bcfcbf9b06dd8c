//! What findings become: anomalies that grow, and are told when they begin.

use jiff::{SignedDuration, Timestamp};

use super::{Finding, Kind};

/// So long after its last hour an anomaly may still go on: a night, or a quiet day in between, does not begin another.
const COOL_DOWN: SignedDuration = SignedDuration::from_hours(24);
/// An anomaly is told again where its score is so many times that which was told.
const TOLD_AGAIN: u64 = 2;

/// Findings of one series and kind, no two neighbours of them further apart than the cool-down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// To which side.
    pub kind: Kind,
    /// The first instant of the first hour.
    pub start_at: Timestamp,
    /// The first instant after the last hour.
    pub end_at: Timestamp,
    /// How many hours were found; others may lie between them.
    pub hours: u32,
    /// The hour with the highest score, of equal ones the first.
    pub peak: Peak,
    /// What was used in all of its hours.
    pub actual: u128,
    /// What is expected of them.
    pub expected: u128,
    /// The score that was last told.
    pub told_score: u64,
}

/// The hour that is farthest from what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Its first instant.
    pub start_at: Timestamp,
    /// What was used.
    pub actual: u64,
    /// The median, rounded half up.
    pub expected: u64,
    /// The least that is still expected.
    pub low: u64,
    /// The most.
    pub high: u64,
    /// How far the use is from the median, in thousandths of a robust deviation.
    pub score: u64,
}

impl Peak {
    fn of(finding: &Finding) -> Self {
        Self {
            start_at: finding.hour.start,
            actual: finding.actual,
            expected: finding.expected,
            low: finding.low,
            high: finding.high,
            score: finding.score,
        }
    }
}

/// What a finding does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: its hour was counted before.
    Known,
    /// It begins an anomaly, which is told, where the account may have another.
    Begin(Course),
    /// It makes the last one longer.
    Grow {
        /// What it is from now on.
        course: Course,
        /// It has become so much larger that it is told again.
        tell: bool,
    },
}

/// What a finding does, where `last` is the newest anomaly of its series and kind.
#[must_use]
pub fn next(last: Option<&Course>, finding: &Finding) -> Step {
    match last {
        Some(last) if finding.hour.end <= last.end_at => Step::Known,
        Some(last) if finding.hour.start.duration_since(last.end_at) <= COOL_DOWN => grow(last, finding),
        _ => Step::Begin(begin(finding)),
    }
}

fn begin(finding: &Finding) -> Course {
    Course {
        kind: finding.kind,
        start_at: finding.hour.start,
        end_at: finding.hour.end,
        hours: 1,
        peak: Peak::of(finding),
        actual: finding.actual.into(),
        expected: finding.expected.into(),
        told_score: finding.score,
    }
}

fn grow(last: &Course, finding: &Finding) -> Step {
    let peak = if finding.score > last.peak.score {
        Peak::of(finding)
    } else {
        last.peak
    };
    let tell = peak.score >= last.told_score.saturating_mul(TOLD_AGAIN);
    let course = Course {
        end_at: finding.hour.end,
        hours: last.hours.saturating_add(1),
        peak,
        actual: last.actual.saturating_add(finding.actual.into()),
        expected: last.expected.saturating_add(finding.expected.into()),
        told_score: if tell { peak.score } else { last.told_score },
        ..last.clone()
    };
    Step::Grow { course, tell }
}
