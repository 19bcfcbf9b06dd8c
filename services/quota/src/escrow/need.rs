//! What a check takes, and what became of that.

use jiff::Timestamp;
use octroi_core::{AccountId, Charge, MetricSlug, Units, UnreachablePolicy};

use crate::domain::{
    decision::Level,
    holding::Revision,
    limits::{EffectiveLimit, hard_max},
    window::WindowKey,
};

/// What is taken of one metric.
#[derive(Clone, Debug)]
pub struct Need {
    /// The metric.
    pub metric: MetricSlug,
    /// How much.
    pub amount: Units,
    /// The windows that must give it, with the most that each may grant.
    pub windows: Vec<(WindowKey, Option<Units>)>,
    /// No slice is spent after this, where something says so.
    pub until: Option<Timestamp>,
    /// Whether it is answered before the ledger has it: then every need of the check is.
    pub buffered: bool,
    /// Whether such decisions are made of the metric, always or while the ledger is away: then nobody else settles the
    /// slices that are carved for it.
    pub kept: bool,
}

impl Need {
    /// So much of a metric, from every window of its limits.
    pub fn of<'l>(
        metric: MetricSlug,
        amount: Units,
        limits: impl Iterator<Item = (&'l EffectiveLimit, WindowKey)>,
        now: Timestamp,
    ) -> Self {
        let (mut windows, mut until, mut kept) = (Vec::with_capacity(3), None, false);
        for (effective, key) in limits {
            windows.push((key, hard_max(&effective.limit)));
            kept |= effective.limit.unreachable_policy == UnreachablePolicy::Lease;
            // Where an override ends, another limit begins.
            let end = effective.replaced_by.as_ref().and_then(|one| one.expires_at);
            until = until.into_iter().chain(end.filter(|end| *end > now)).min();
        }
        Self {
            metric,
            amount,
            windows,
            until,
            buffered: false,
            kept,
        }
    }
}

/// What is to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'w> {
    pub(super) account: &'w AccountId,
    /// Each metric once; where there are none, a slice is carved for later.
    pub(super) needs: &'w [Need],
    /// The state of the limits that the needs were read from.
    pub(super) revision: Revision,
    /// When it is used.
    pub(super) at: Timestamp,
}

/// What became of taking.
#[derive(Debug)]
pub enum Taken {
    /// The slices that pay, a list a need, and where the account stands in each window after it.
    Yes {
        /// A list a need.
        charges: Vec<Vec<Charge>>,
        /// A level a window, need by need.
        levels: Vec<Level>,
    },
    /// Some window had no room. Where the account stands, nothing being taken.
    No {
        /// A level a window, need by need.
        levels: Vec<Level>,
    },
    /// The limits have changed since they were read, and are of this revision now.
    Stale(Revision),
}
