//! Slices of limits: what quota carves from a limit and the ledger charges.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use crate::Units;

/// A slice of a limit, of one account and metric. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceId(Uuid);

impl SliceId {
    /// The id that is this number. Whoever carves makes a random one.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of these 16 bytes; none where there are more or less.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SliceId({})", self.0)
    }
}

impl fmt::Display for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Units of a usage event that a slice pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The slice.
    pub slice: SliceId,
    /// The most that may ever be charged to it.
    pub cap: Units,
    /// How much: at least 1.
    pub amount: Units,
    /// From when on nothing can be charged to it, whether it was sealed or not.
    pub hard_end_at: Timestamp,
}
