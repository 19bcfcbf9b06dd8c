//! The routing key of each event.

use crate::events::v1;

/// An event that travels over the bus.
pub trait Event: prost::Message + Default + 'static {
    /// Owner and past tense, such as `usage.recorded`.
    const ROUTING_KEY: &'static str;
}

macro_rules! routing_keys {
    ($($message:ident => $key:literal),* $(,)?) => {
        $(impl Event for v1::$message {
            const ROUTING_KEY: &'static str = $key;
        })*

        /// Every routing key, in the order of `octroi/events/v1/README.md`.
        pub const ROUTING_KEYS: &[&str] = &[$($key),*];
    };
}

routing_keys! {
    AccountCreated => "account.created",
    AccountZoneChanged => "account.zone_changed",
    AccountClosed => "account.closed",
    UsageRecorded => "usage.recorded",
    UsageCorrected => "usage.corrected",
    AnomalyDetected => "usage.anomaly_detected",
    ThresholdCrossed => "quota.threshold_crossed",
    BackToNormal => "quota.back_to_normal",
    SubscriptionChanged => "billing.subscription_changed",
    CatalogApplied => "billing.catalog_applied",
}

/// Every queue of the fleet and what it listens to: the part of the contract between publishers and
/// consumers that no service may know alone.
pub const QUEUES: &[(&str, &[&str])] = &[
    ("usage.rollup", &["usage.recorded"]),
    ("usage.rollup_corrections", &["usage.corrected"]),
    ("quota.usage", &["usage.recorded"]),
    ("quota.usage_corrections", &["usage.corrected"]),
    ("quota.entitlements", &["billing.subscription_changed"]),
    ("quota.zones", &["account.zone_changed"]),
    ("notification.thresholds", &["quota.threshold_crossed"]),
    ("notification.anomalies", &["usage.anomaly_detected"]),
];
