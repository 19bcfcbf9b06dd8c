//! One state of the model.

/// The most slices at a time. A configuration uses fewer: the last one is for whoever looks whether there is a way
/// to full use.
pub const SLICES: usize = 6;
/// The most requests.
pub const REQUESTS: usize = 4;
/// Each request is sent twice at most.
pub const ATTEMPTS: usize = 2;
/// Replicas.
pub const REPLICAS: usize = 2;
/// The most limits: of one metric by the day, by this hour and by the next, or of two metrics.
pub const LIMITS: usize = 3;
/// Settlers.
pub const SETTLERS: usize = 2;
/// No slice.
pub const NO_SLICE: u8 = 7;
/// The slice of a hold that is settled and that nobody mentions any more.
pub const ENDED: u8 = 6;
/// The owner of a slice whose replica has crashed since. The replica that starts in its place is another owner.
pub const DEAD: u8 = 2;

/// Who spends a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// This place is free.
    #[default]
    Free,
    /// All replicas, out of Redis.
    Pool,
    /// The replica that owns it, from memory.
    Replica,
    /// The same, for a metric that is answered before it is recorded.
    Buffered,
    /// A hold.
    Hold,
    /// A commit that is late or beyond its hold.
    Extra,
}

/// How far the settlement of a slice has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It may be spent.
    #[default]
    Open,
    /// It is being settled, and counts at its cap still.
    Closing,
    /// It is settled, and counts at its charge.
    Sealed,
}

/// A slice: what quota has of it, what usage has, and what is believed elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Who spends it.
    pub kind: Kind,
    /// How far its settlement has come.
    pub stage: Stage,
    /// The most that may be charged to it.
    pub cap: u8,
    /// What was charged to it, once it is settled.
    pub charge: u8,
    /// The limits that it is carved from, a bit each.
    pub limits: u8,
    /// The replica that spends it, or [`DEAD`].
    pub owner: u8,
    /// It was carved before the limit was lowered.
    pub old: bool,
    /// Usage has a row of it.
    pub row: bool,
    /// Usage: what was charged to it.
    pub spent: u8,
    /// Usage: nothing more is charged to it.
    pub sealed: bool,
    /// Its hard end has passed.
    pub ended: bool,
    /// What is believed to be left of it: in its owner's memory, or in Redis.
    pub left: u8,
    /// The same in the copy of Redis.
    pub copy: u8,
    /// Buffered: what callers were told they have.
    pub answered: u8,
    /// Buffered: the sum in memory.
    pub buffer: u8,
    /// Buffered: the sum that is being flushed.
    pub flush: u8,
    /// Buffered: messages with that sum on their way.
    pub flights: u8,
    /// Buffered: usage has that sum.
    pub landed: bool,
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Yes.
    Yes,
    /// No.
    No,
}

/// Where one attempt of a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was not begun, or it is over.
    #[default]
    Idle,
    /// A replica looks for slices that pay.
    Working,
    /// The charge is on its way to the ledger, and the replica waits.
    Sent,
    /// The charge is on its way to the ledger, and nobody waits.
    Orphan,
    /// "Yes" is on its way to the caller.
    Yes,
    /// "No" is on its way to the caller.
    No,
}

/// A part of an amount that a slice pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pay {
    /// The slice, or [`NO_SLICE`].
    pub slice: u8,
    /// How much.
    pub amount: u8,
}

/// Nobody pays.
pub const NO_PAY: Pay = Pay {
    slice: NO_SLICE,
    amount: 0,
};

/// One attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where it is.
    pub phase: Phase,
    /// The replica that it was sent to.
    pub replica: u8,
    /// The hour that it counts in.
    pub hour: u8,
    /// A commit: the hold did not pay.
    pub late: bool,
    /// The ledger's transaction has begun, before the hard end of the slice.
    pub begun: bool,
    /// What pays.
    pub pays: [Pay; 2],
}

/// No attempt.
pub const NO_ATTEMPT: Attempt = Attempt {
    phase: Phase::Idle,
    replica: 0,
    hour: 0,
    late: false,
    begun: false,
    pays: [NO_PAY; 2],
};

impl Attempt {
    /// Whether its replica matters: where nobody waits for it, it does not.
    pub fn is_at_replica(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Orphan)
    }
}

/// What the ledger has of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// It is there.
    pub present: bool,
    /// It stands for a denial.
    pub denied: bool,
    /// What slices paid of each part.
    pub charged: [u8; 2],
    /// What no slice paid.
    pub overrun: u8,
    /// The hour that it counts in.
    pub hour: u8,
    /// It was taken back.
    pub voided: bool,
    /// It was corrected upwards.
    pub corrected: bool,
}

/// A request, from its caller to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How often it was sent.
    pub asks: u8,
    /// What the caller was told.
    pub told: Told,
    /// A hold: how often its reservation was sent.
    pub reserves: u8,
    /// A hold: the last reservation sent has not arrived yet.
    pub reserving: bool,
    /// A hold: the one before has not arrived yet.
    pub reserving_older: bool,
    /// A hold: what the caller was told of the reservation.
    pub held: Told,
    /// A hold: its slice, [`NO_SLICE`] or [`ENDED`].
    pub hold: u8,
    /// A hold: the hour in which it was reserved.
    pub hour: u8,
    /// What the ledger has.
    pub event: Event,
    /// Redis: the slice that was taken from for it.
    pub answer: u8,
    /// The same in the copy of Redis.
    pub answer_copy: u8,
    /// Its attempts.
    pub attempts: [Attempt; ATTEMPTS],
}

/// A request that was not made.
pub const NO_REQUEST: Request = Request {
    asks: 0,
    told: Told::Nothing,
    reserves: 0,
    reserving: false,
    reserving_older: false,
    held: Told::Nothing,
    hold: NO_SLICE,
    hour: 0,
    event: Event {
        present: false,
        denied: false,
        charged: [0; 2],
        overrun: 0,
        hour: 0,
        voided: false,
        corrected: false,
    },
    answer: NO_SLICE,
    answer_copy: NO_SLICE,
    attempts: [NO_ATTEMPT; ATTEMPTS],
};

/// Somebody who settles slices, one at a time: what it has read and not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settler {
    /// Of which slice.
    pub slice: u8,
    /// What it read of the slice.
    pub spent: u8,
    /// What it read of the limit, where it will assign it.
    pub granted: u8,
}

/// A settler with nothing to do.
pub const AT_REST: Settler = Settler {
    slice: NO_SLICE,
    spent: 0,
    granted: 0,
};

/// A limit: what quota has of it, and what is owed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The most.
    pub most: u8,
    /// Caps of slices that are open or closing, and charges of those that are sealed.
    pub granted: u8,
    /// What entered without permission.
    pub overrun: u8,
    /// What was given back.
    pub returned: u8,
    /// The ledger has it, and it was not added to `overrun` yet.
    pub owed_overrun: u8,
    /// The ledger has it, and it was not added to `returned` yet.
    pub owed_return: u8,
    /// What the ledger has of buffered sums.
    pub flushed: u8,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Crashes of replicas.
    pub crashes: u8,
    /// Faults of Redis.
    pub redis_faults: u8,
    /// Amounts recorded without asking.
    pub direct: u8,
    /// The limit may be lowered.
    pub lower: bool,
    /// The limit may be raised.
    pub raise: bool,
}

/// How far lowering the limit has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lowering {
    /// Nobody lowers it.
    #[default]
    No,
    /// It is set, and slices are being settled.
    Set,
    /// Whoever lowered it was told that it holds.
    Done,
}

/// One state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The slices.
    pub slices: [Slice; SLICES],
    /// The requests.
    pub requests: [Request; REQUESTS],
    /// The settlers.
    pub settlers: [Settler; SETTLERS],
    /// The limits.
    pub limits: [Limit; LIMITS],
    /// What may still happen.
    pub budget: Budget,
    /// There is a copy of Redis.
    pub redis_copy: bool,
    /// The second replica uses the copy.
    pub redis_split: bool,
    /// How far lowering the first limit has come.
    pub lowering: Lowering,
    /// What was allowed of the first limit when lowering it was done, holds that may still be committed included.
    pub base: u8,
    /// The highest that the first limit was, and what it was before it was changed.
    pub highest: u8,
    /// The hour.
    pub hour: u8,
    /// What was broken in the last step, a bit each, where a single state does not show it.
    pub broken: u8,
    /// Something was told to the windows twice.
    pub told_twice: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            slices: [Slice::default(); SLICES],
            requests: [NO_REQUEST; REQUESTS],
            settlers: [AT_REST; SETTLERS],
            limits: [Limit::default(); LIMITS],
            budget: Budget::default(),
            redis_copy: false,
            redis_split: false,
            lowering: Lowering::No,
            base: 0,
            highest: 0,
            hour: 0,
            broken: 0,
            told_twice: false,
        }
    }
}
