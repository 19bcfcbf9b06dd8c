//! Use out of the ordinary: which hours are looked at, what is expected of each, and what hours beyond it become.
//!
//! An hour is compared with the same hour of the week, in the account's zone, of the weeks before: with their median,
//! and with a robust deviation made of the median of their distances from it (*baseline*). An hour outside is a
//! *finding*; findings of one kind that are close to each other are one *anomaly* (*course*). All arithmetic is in
//! whole numbers, and exact but where a rounding is named.

mod baseline;
mod course;
mod hours;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Window, named};
use uuid::Uuid;

pub use self::{
    baseline::{AROUND, Baseline, Finding, Sample, judge},
    course::{Course, Peak, Step, next},
    hours::{HOUR, Todo, hours_ended, plan, reach_back, samples_of},
};

/// How use leaves what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// More was used.
    Spike,
    /// Less was used.
    Drop,
}

named!(Kind { Spike => "spike", Drop => "drop" });

/// How sensitive the look is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The most weeks that an hour is compared with.
    pub weeks: u32,
    /// How many thousandths of a robust deviation an hour must be away from the median.
    pub score_min: u64,
    /// How many units it must be away besides.
    pub difference_min: u64,
}

/// Of fewer weeks nothing can be said.
pub const WEEKS_MIN: u32 = 3;

/// An anomaly as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its id.
    pub id: Uuid,
    /// Whose use.
    pub account: AccountId,
    /// Of what.
    pub metric: MetricSlug,
    /// Its hours so far.
    pub course: Course,
    /// When it was found.
    pub detected_at: Timestamp,
}

impl Anomaly {
    /// Whether the newest hour that was looked at is one of its hours, where the hours that ended by `looked_until`
    /// were. An hour of the account may end up to an hour before.
    #[must_use]
    pub fn is_ongoing(&self, looked_until: Timestamp) -> bool {
        looked_until.duration_since(self.course.end_at) < HOUR
    }
}

/// Which anomalies of an account are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomaliesQuery {
    /// The account.
    pub account: AccountId,
    /// Only of these metrics; none means all.
    pub metrics: Vec<MetricSlug>,
    /// Only what was going on in it.
    pub range: Window,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only what stands behind it; the newest come first.
    pub after: Option<Place>,
}

/// The place of an anomaly among those of its account: by its first instant, then by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first instant.
    pub start_at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// As a page token carries it.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.start_at.as_microsecond(), self.id)
    }
}

/// The text is not a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a place in the list of anomalies")]
pub struct NotAPlace;

impl std::str::FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (start_at, id) = text.split_once('.').ok_or(NotAPlace)?;
        let start_at = start_at.parse().map_err(|_| NotAPlace)?;
        Ok(Self {
            start_at: Timestamp::from_microsecond(start_at).map_err(|_| NotAPlace)?,
            id: id.parse().map_err(|_| NotAPlace)?,
        })
    }
}

#[cfg(test)]
mod tests;
