//! Slices of a limit: what may be spent without asking anybody.

use jiff::{Timestamp, ToSpan as _};
use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units, Window, named};

use super::window::WindowKey;

/// How long a slice of a window that is over may be spent, for recorded traffic, in minutes.
const BACKFILL_MINUTES: i64 = 10;
/// How long any slice may be spent, in hours.
const SPEND_HOURS_MAX: i64 = 24;
/// How long after that the ledger may still be told, in hours.
const CHARGE_HOURS: i64 = 1;

/// Who spends a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SliceKind {
    /// A replica, from its memory.
    Replica,
    /// A hold: only its commit.
    Hold,
    /// A commit that needed more than its hold, or came after its end.
    Extra,
}

named!(SliceKind { Replica => "replica", Hold => "hold", Extra => "extra" });

/// A slice of every window that an account's limits of one metric have at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its id.
    pub id: SliceId,
    /// Whose limit it is of.
    pub account: AccountId,
    /// Of which metric.
    pub metric: MetricSlug,
    /// Who spends it.
    pub kind: SliceKind,
    /// Whether decisions that it pays for are answered before the ledger has them, always or while that is away. Such a
    /// slice is settled by its owner alone, after its last units were recorded.
    pub kept: bool,
    /// The most that may be charged to it. It never grows.
    pub cap: Units,
    /// The windows that it was carved from.
    pub windows: Vec<WindowKey>,
    /// The instants that lie in all of them: what it pays for happened then.
    pub covers: Window,
    /// Until when it may be spent.
    pub spend_until: Timestamp,
    /// From when on the ledger charges nothing to it any more.
    pub hard_end_at: Timestamp,
}

impl Slice {
    /// What the ledger is told to take from it.
    #[must_use]
    pub fn charge(&self, amount: Units) -> Charge {
        Charge {
            slice: self.id,
            cap: self.cap,
            amount,
            hard_end_at: self.hard_end_at,
        }
    }
}

/// The instants that lie in every window; LIFETIME where there are none.
#[must_use]
pub fn common<'w>(windows: impl Iterator<Item = &'w WindowKey> + Clone) -> Window {
    let start = windows.clone().map(|one| one.start).max();
    let end = windows.map(|one| one.end).min();
    Window {
        start: start.unwrap_or(Window::LIFETIME.start),
        end: end.unwrap_or(Window::LIFETIME.end),
    }
}

/// Until when a replica may spend a slice of these instants that it carves `now`, and when the ledger closes it: to
/// the end of the shortest window, but some minutes only where that is over already, and never longer than a day.
#[must_use]
pub fn terms(covers: Window, now: Timestamp) -> (Timestamp, Timestamp) {
    let natural = if covers.end > now {
        covers.end
    } else {
        now + BACKFILL_MINUTES.minutes()
    };
    let spend_until = natural.min(now + SPEND_HOURS_MAX.hours());
    (spend_until, spend_until + CHARGE_HOURS.hours())
}
