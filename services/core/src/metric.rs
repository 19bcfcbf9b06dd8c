//! What is counted.

use serde::{Deserialize, Serialize};

use crate::MetricSlug;

/// Whether a metric adds up in windows or says what is held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Amounts of at least 1 that add up in windows.
    Flow,
    /// What is held now: LIFETIME only, never below 0.
    Level,
}

impl MetricKind {
    /// Its name, as configuration and databases write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Level => "level",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Flow, Self::Level]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// How the amounts of one metric become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// The sum of the amounts.
    Sum,
    /// The number of events.
    Count,
    /// The largest amount.
    Max,
    /// The number of distinct values of a property.
    Unique,
    /// The amount of the newest event.
    Latest,
}

impl Aggregation {
    /// Every aggregation.
    pub const ALL: [Self; 5] = [Self::Sum, Self::Count, Self::Max, Self::Unique, Self::Latest];

    /// Its name, as configuration and databases write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Max => "max",
            Self::Unique => "unique",
            Self::Latest => "latest",
        }
    }

    /// The aggregation of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|aggregation| aggregation.as_str() == name)
    }

    /// Whether a FLOW metric with this aggregation may carry limits: only what adds up can be taken from.
    #[must_use]
    pub const fn may_be_limited(self) -> bool {
        matches!(self, Self::Sum | Self::Count)
    }
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub slug: MetricSlug,
    /// Whether it adds up or is held.
    pub kind: MetricKind,
    /// How amounts become one figure.
    pub aggregation: Aggregation,
    /// The name people read, in English.
    pub display_name_en: String,
    /// The name people read, in French.
    pub display_name_fr: String,
    /// The unit of an amount, such as `token`.
    pub unit: String,
    /// Whether use of it changes the customer's data; the READ_ONLY stage stops it.
    pub write: bool,
}
