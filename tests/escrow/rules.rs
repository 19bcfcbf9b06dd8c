//! The rules that keep the limit, each of which can be switched off to see what it is for.

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R1: the ledger refuses a sealed slice, in the event's own transaction.
    SealedRefuses,
    /// R2: the ledger refuses what is beyond the cap, in the same transaction.
    CapRefuses,
    /// R3: the id of an event follows from its request.
    IdFollowsRequest,
    /// R4: what was charged is applied once to each slice, and what a limit has granted is never assigned.
    AppliedOnce,
    /// R5: a hold is a slice in PostgreSQL.
    HoldIsSlice,
    /// R6: what a hold does not pay of a commit is carved, or else it is overrun.
    LateIsCarved,
    /// A commit leaves its hold only where the hold itself refuses, not where the slice of its excess does.
    HoldPaysFirst,
    /// R7: past the hard end of a slice the ledger refuses.
    EndRefuses,
    /// R7, second part: the row of a slice is deleted only after its charge was applied.
    AppliedBeforeDeleted,
    /// R7, third part: and only after the last transaction that began before the hard end.
    DeletionWaits,
    /// R8: the denial of a repeat is written into the ledger.
    DenialIsWritten,
    /// R8, second part: a caller takes the answer of its latest attempt only.
    LatestAnswerCounts,
    /// R9: a buffered slice is closed only after its owner has flushed.
    FlushedBeforeClosed,
    /// R10: a buffered slice whose owner died is not settled.
    DeadOwnerKeeps,
    /// R11: a buffered request is paid only by slices that nobody but their owner settles.
    KeptPays,
    /// A call over several metrics is recorded as a whole or not at all.
    WholeCall,
    /// Where one of its slices refuses, an event takes nothing from the others either.
    WholeEvent,
    /// Where a slice refuses the sum of a batch, its events are tried one by one.
    BatchFallsBack,
    /// A flush that is repeated carries the same sum.
    FlushIsFrozen,
    /// A slice pays only for what happens in all of its windows.
    OwnWindows,
    /// A window is told once of what entered without permission or was given back.
    ToldOnce,
    /// Units are given back to a limit only once the ledger has them.
    ReturnAfterLedger,
    /// The ledger refuses to give back more than an account holds.
    LevelFloor,
    /// The refusal of a repeated return is written into the ledger.
    RefusedReturnIsWritten,
    /// Whoever lowers a limit settles the durable slices that were carved before.
    LoweringSettles,
    /// The limit is read in the transaction that carves.
    LimitIsRead,
    /// Anybody settles the durable slices of a replica that died.
    AnybodySettles,
}

/// The rules that hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// Every rule.
    pub const ALL: Self = Self(u32::MAX);

    /// All but one.
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u32))
    }

    /// Whether a rule holds.
    pub fn hold(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u32) != 0
    }
}
