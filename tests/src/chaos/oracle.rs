//! What was sent, answered and found. Times are since the load of a run began.

use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `CheckQuota`, CONSUME.
    Consume,
    /// `ReserveQuota`; its units count from the answer until it is released, or committed with less.
    Reserve,
    /// `RecordUsage`, which asks for no permission.
    Record,
    /// `TrackUsage`, which asks nobody but the ledger.
    Track,
}

impl Kind {
    /// Whether units of it must fit into the limit.
    #[must_use]
    pub fn is_permitted(self) -> bool {
        matches!(self, Self::Consume | Self::Reserve)
    }
}

/// What an attempt was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was allowed, or recorded.
    Yes,
    /// It was denied.
    No,
    /// Nothing: it failed, or nobody waited long enough.
    Nothing,
}

/// One try of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which replica was asked, from 1.
    pub replica: usize,
    /// When it was sent.
    pub sent: Duration,
    /// When its answer, or the failure, came.
    pub answered: Duration,
    /// What it was told.
    pub told: Told,
}

/// How a hold was ended by whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What of it was used; nothing where it was released.
    pub used: u64,
    /// When the first attempt to end it was sent.
    pub sent: Duration,
    /// When the answer came.
    pub answered: Option<Duration>,
    /// The part of `used` that no limit had room for, as the answer says.
    pub overrun: u64,
    /// The hold had ended before, as the answer says.
    pub late: bool,
}

/// What became of a reservation that was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: String,
    /// How long it lives.
    pub ttl: Duration,
    /// How it was ended; nothing where it was left to expire.
    pub end: Option<End>,
}

/// A request with all that was tried of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// What it asks for.
    pub kind: Kind,
    /// How much.
    pub amount: u64,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// The first second of the hour that the answer speaks of.
    pub window: Option<i64>,
    /// Of a reservation that was allowed.
    pub hold: Option<Hold>,
}

impl Request {
    /// One that was not sent yet.
    #[must_use]
    pub fn new(id: String, kind: Kind, amount: u64) -> Self {
        Self {
            id,
            kind,
            amount,
            attempts: Vec::new(),
            window: None,
            hold: None,
        }
    }

    /// What its latest attempt was told.
    #[must_use]
    pub fn told(&self) -> Told {
        self.attempts.last().map_or(Told::Nothing, |attempt| attempt.told)
    }

    /// When it was sent first.
    #[must_use]
    pub fn sent(&self) -> Duration {
        self.attempts
            .first()
            .map_or(Duration::MAX, |attempt| attempt.sent)
    }

    /// When it was allowed.
    #[must_use]
    pub fn allowed_at(&self) -> Option<Duration> {
        let yes = self.attempts.iter().find(|attempt| attempt.told == Told::Yes)?;
        Some(yes.answered)
    }

    /// What the ledger must have of it, where it was told yes.
    #[must_use]
    pub fn used(&self) -> u64 {
        match (self.kind, &self.hold) {
            (Kind::Reserve, Some(hold)) => hold.end.map_or(0, |end| end.used),
            (Kind::Reserve, None) => 0,
            _ => self.amount,
        }
    }
}

/// A limit that came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// When it was asked for.
    pub sent: Duration,
    /// When it held for sure.
    pub holds: Duration,
    /// The limit.
    pub amount: u64,
}

/// All that was seen from outside.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The requests.
    pub requests: Vec<Request>,
    /// The limits, the first being in force from the beginning.
    pub limits: Vec<Limit>,
    /// From when to when the fleet's clock was moved past the end of the hour, replica by replica.
    pub clock_moved: Vec<(Duration, Duration)>,
    /// Whether decisions are answered before the ledger has them.
    pub buffered: bool,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The request that it belongs to; of a buffered metric, the sum's own id.
    pub request: String,
    /// Its units.
    pub amount: u64,
    /// The first second of its hour.
    pub window: i64,
}

/// A window as quota's database has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowRow {
    /// Its period.
    pub period: String,
    /// Its first second.
    pub start: i64,
    /// Caps of slices that are not settled.
    pub open_cap: u64,
    /// The part of them that holds have.
    pub held: u64,
    /// What was charged to slices that are settled.
    pub charged: u64,
    /// What entered without permission.
    pub overrun: u64,
    /// What was given back.
    pub returned: u64,
    /// What it followed of the ledger.
    pub used: u64,
    /// What the ledger has of its time.
    pub ledger: u64,
}

/// What was found in the databases and at the replicas after everything was healed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The ledger.
    pub ledger: Vec<Entry>,
    /// The windows.
    pub windows: Vec<WindowRow>,
    /// What each replica says was used and is held in the hour that runs.
    pub standing: Vec<(u64, u64)>,
    /// What the ledger has of the hour that runs.
    pub used_now: u64,
    /// The limit in force.
    pub limit: u64,
    /// What could still be consumed, to the last unit.
    pub rest: u64,
    /// What slices of dead replicas of a buffered metric keep.
    pub stranded: u64,
    /// The most that the slices of those that were killed may keep.
    pub stranded_max: u64,
    /// Holds that should have ended and did not.
    pub overdue_holds: u64,
    /// How many holds there were.
    pub holds: u64,
    /// How long it took until all of it was as it should, where it was in time.
    pub settled: Option<Duration>,
    /// What was not so until then, as it was seen last.
    pub waited_for: Option<String>,
}
