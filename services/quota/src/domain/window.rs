//! The windows in which limits count.

use jiff::Timestamp;
use octroi_core::{MetricSlug, Period, Window};
use serde::{Deserialize, Serialize};

/// One window of one account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// The metric.
    pub metric: MetricSlug,
    /// The period.
    pub period: Period,
    /// The window's first instant.
    pub start: Timestamp,
    /// The first instant after it; [`Timestamp::MAX`] where there is none.
    pub end: Timestamp,
}

impl WindowKey {
    /// The window of a metric's limit.
    #[must_use]
    pub fn new(metric: &MetricSlug, period: Period, window: Window) -> Self {
        Self {
            metric: metric.clone(),
            period,
            start: window.start,
            end: window.end,
        }
    }

    /// Its time.
    #[must_use]
    pub fn window(&self) -> Window {
        Window {
            start: self.start,
            end: self.end,
        }
    }
}
