//! What an account subscribed to.

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, PlanSlug, Stage, named};
use uuid::Uuid;

use super::{billing_period::BillingPeriod, catalog::Interval};

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionStatus {
    /// Free of charge until the trial ends.
    Trialing,
    /// In force.
    Active,
    /// In force, with an invoice overdue.
    PastDue,
    /// Ended.
    Canceled,
}

named!(SubscriptionStatus {
    Trialing => "trialing",
    Active => "active",
    PastDue => "past_due",
    Canceled => "canceled",
});

/// Who takes the payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Our own invoices, paid by transfer and marked paid by an operator.
    Manual,
    /// Stripe.
    Stripe,
}

named!(Provider { Manual => "manual", Stripe => "stripe" });

/// Who computes a subscription's invoices; never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BilledBy {
    /// We do.
    Octroi,
    /// Stripe does, and we mirror.
    Stripe,
}

named!(BilledBy { Octroi => "octroi", Stripe => "stripe" });

/// An account's subscription to a version of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: Uuid,
    /// The account.
    pub account: AccountId,
    /// The plan.
    pub plan: PlanSlug,
    /// The version that it keeps until it changes plan.
    pub plan_version: u32,
    /// How long its periods are.
    pub interval: Interval,
    /// Where it stands.
    pub status: SubscriptionStatus,
    /// Who takes the payments.
    pub provider: Provider,
    /// Who computes the invoices.
    pub billed_by: BilledBy,
    /// The first instant of its first period.
    pub anchor_at: Timestamp,
    /// Its newest period.
    pub period: BillingPeriod,
    /// Where the account stands with its payments.
    pub stage: Stage,
}

/// How far ahead a first period may begin: what clocks may differ by.
const ANCHOR_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// How far back a first period may begin: its periods are written at once.
const ANCHOR_BACK_MAX: SignedDuration = SignedDuration::from_hours(24 * 366 * 10);

/// A first instant that no subscription may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be at most 5 minutes ahead and 10 years back")]
pub struct InvalidAnchor;

/// Checks the first instant of a subscription's first period.
///
/// # Errors
/// [`InvalidAnchor`].
pub fn check_anchor(anchor_at: Timestamp, now: Timestamp) -> Result<(), InvalidAnchor> {
    let back = now.duration_since(anchor_at);
    if back < -ANCHOR_AHEAD_MAX || back > ANCHOR_BACK_MAX {
        Err(InvalidAnchor)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_begins_about_now_or_some_years_ago() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("an instant");
        for (anchor, ok) in [
            ("2026-11-22T12:00:00Z", true),
            ("2026-11-22T12:05:00Z", true),
            ("2026-11-22T12:05:01Z", false),
            ("2023-11-16T18:15:46Z", true),
            ("2016-11-22T12:00:00Z", true),
            ("2016-01-01T00:00:00Z", false),
            ("-009999-01-02T01:59:59Z", false),
        ] {
            assert_eq!(
                check_anchor(anchor.parse().expect("an instant"), now).is_ok(),
                ok,
                "{anchor}"
            );
        }
    }
}
