//! Which events of the ledger are asked for, and the place of one among them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Source, Window};

/// Which events of an account are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsQuery {
    /// The account.
    pub account: AccountId,
    /// Only of this metric.
    pub metric: Option<MetricSlug>,
    /// Only of these times.
    pub range: Window,
    /// Only what this source said.
    pub source: Option<Source>,
    /// Only events that have all of these properties.
    pub properties: BTreeMap<String, String>,
    /// Only events before this place; the newest come first.
    pub before: Place,
}

/// The place of an event among those of its account: by its time, and by the ledger where times are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it counts.
    pub event_at: Timestamp,
    /// Its number in the ledger.
    pub sequence: i64,
}

impl Place {
    /// Behind every event.
    pub const END: Self = Self {
        event_at: Timestamp::MAX,
        sequence: i64::MAX,
    };
}

/// As a page token carries it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event_at.as_microsecond(), self.sequence)
    }
}

/// The text is not a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a place in the ledger")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (event_at, sequence) = text.split_once('.').ok_or(NotAPlace)?;
        let event_at = event_at.parse().map_err(|_| NotAPlace)?;
        Ok(Self {
            event_at: Timestamp::from_microsecond(event_at).map_err(|_| NotAPlace)?,
            sequence: sequence.parse().map_err(|_| NotAPlace)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_was_written_of_it() {
        let place = Place {
            event_at: "1969-12-31T23:59:59.999999Z".parse().expect("an instant"),
            sequence: 7,
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "1", "1.", ".1", "1.x", "9999999999999999999.1"] {
            assert_eq!(text.parse::<Place>(), Err(NotAPlace), "{text}");
        }
    }
}
