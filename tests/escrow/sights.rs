//! What a search has to come across: a model in which nothing happens keeps every limit.

use std::fmt;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A replica crashed.
    Crash,
    /// A replica crashed while a charge of its was on its way, and the charge came.
    OrphanCharged,
    /// An answer was lost, and the caller asked again.
    AnswerLost,
    /// A request was repeated while its first attempt was still under way.
    Hedged,
    /// A caller that was told no asked again.
    AskedAfterNo,
    /// A charge came to the ledger twice.
    Duplicated,
    /// A repeat found its event in the ledger.
    RepeatFoundEvent,
    /// The ledger refused a slice that was sealed.
    RefusedSealed,
    /// The ledger refused a charge beyond a cap.
    RefusedCap,
    /// The ledger refused a slice past its end.
    RefusedEnded,
    /// Two settlers settled one slice.
    SettledByTwo,
    /// A settler crashed half-way.
    SettlerCrashed,
    /// A slice was settled while a charge to it was on its way.
    SettledUnderway,
    /// A request was denied.
    Denied,
    /// A denial was written down.
    Tombstone,
    /// A charge came after its request was denied.
    TombstoneMet,
    /// A denial found that the request had been charged.
    DenialFoundEvent,
    /// A limit was used up.
    FullUse,
    /// Redis was lost.
    RedisLost,
    /// Redis was rolled back.
    RedisRolledBack,
    /// Redis was split in two.
    RedisSplit,
    /// A repeat found the answer in Redis.
    RepeatFoundAnswer,
    /// A hold was committed in time.
    Committed,
    /// A hold was released.
    Released,
    /// A hold expired.
    Expired,
    /// A commit came late, and found room.
    LateCommit,
    /// A commit was above its hold, and found room.
    CommitAbove,
    /// A commit found no room.
    CommitOverrun,
    /// A commit found room for a part of what its hold did not pay.
    CommitOverrunInPart,
    /// A reservation came twice.
    ReservedTwice,
    /// A call over two metrics was recorded.
    TwoMetrics,
    /// One metric of a call was refused, and the other not recorded.
    TwoMetricsUndone,
    /// An event was spread over two slices.
    Spread,
    /// One of two slices refused.
    SpreadRefused,
    /// Two charges came in one batch.
    Batch,
    /// The sum of a batch was refused and one of its charges taken.
    BatchFellBack,
    /// The limit was lowered.
    Lowered,
    /// The limit was lowered below what was granted.
    LoweredBelow,
    /// Lowering the limit was answered.
    LoweringDone,
    /// The limit was raised.
    Raised,
    /// Units entered without permission.
    Direct,
    /// An event was corrected.
    Corrected,
    /// An event was taken back.
    Voided,
    /// Units that were given back were carved again.
    CarvedAgain,
    /// Units of a level were given back.
    Returned,
    /// A return was refused.
    ReturnRefused,
    /// A return came after its refusal was written down.
    ReturnMetTombstone,
    /// A buffered request was answered.
    Buffered,
    /// A flush was repeated.
    FlushRepeated,
    /// A sum that was not flushed died with its replica.
    SumLost,
    /// A flush came after its replica had crashed.
    FlushOrphaned,
    /// An owner closed its buffered slice.
    BufferedClosed,
    /// The hard end of a slice passed.
    Ended,
    /// The row of a slice was deleted.
    RowDeleted,
    /// A charge came whose row was deleted.
    RowMissed,
    /// A transaction was slow.
    SlowCommit,
    /// The hour ended.
    HourEnded,
    /// A request was charged in another hour than it was repeated in.
    RepeatInNextHour,
}

/// What a search has come across.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sights(u64);

impl Sights {
    /// Adds one.
    pub fn add(&mut self, sight: Sight) {
        self.0 |= 1 << sight as u64;
    }

    /// Whether it is among them.
    pub fn has(self, sight: Sight) -> bool {
        self.0 & (1 << sight as u64) != 0
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
