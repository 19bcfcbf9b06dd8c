//! What is asked: amounts of metrics, and features.

use jiff::Timestamp;
use octroi_core::{AccountId, FeatureSlug, MetricSlug, RequestId, Units};
use sha2::{Digest as _, Sha256};

/// The most metrics of one check.
pub const ITEMS_MAX: usize = 16;
/// The most features of one check.
pub const FEATURES_MAX: usize = 16;

/// One metric and how much of it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The metric.
    pub metric: MetricSlug,
    /// How much: at least 1.
    pub amount: Units,
}

/// Whether a check takes what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Look only.
    Peek,
    /// Take and record, once for this request id.
    Consume(RequestId),
}

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Whose limits.
    pub account: AccountId,
    /// What amounts; each metric once.
    pub items: Vec<Item>,
    /// What features; all are required.
    pub features: Vec<FeatureSlug>,
    /// Look or take.
    pub mode: Mode,
    /// When, for recorded traffic.
    pub event_at: Option<Timestamp>,
    /// Whether that may lie any time back.
    pub backfill: bool,
}

impl Check {
    /// SHA-256 over what must not differ between repeats of one request id.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by(|a, b| a.metric.cmp(&b.metric));
        let mut features: Vec<&FeatureSlug> = self.features.iter().collect();
        features.sort();
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        for item in items {
            part(item.metric.as_str().as_bytes());
            part(&item.amount.get().to_be_bytes());
        }
        part(b"features");
        for feature in features {
            part(feature.as_str().as_bytes());
        }
        if let Some(at) = self.event_at {
            part(&at.as_microsecond().to_be_bytes());
        }
        hash.finalize().into()
    }
}
