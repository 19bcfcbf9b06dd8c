//! The operations of quota's own schema: each is one transaction.

use crate::{
    config::Config,
    rules::Rule,
    state::{DEAD, Kind, LIMITS, Lowering, Slice, Stage, State},
};

/// The limits in a set of bits.
pub fn each(limits: u8) -> impl Iterator<Item = usize> {
    (0..LIMITS).filter(move |limit| limits & (1 << limit) != 0)
}

/// The most that whoever carves believes a limit to be.
fn most(config: &Config, state: &State, limit: usize) -> u8 {
    let stale = limit == 0 && state.lowering != Lowering::No && !config.rules.hold(Rule::LimitIsRead);
    if stale {
        state.highest
    } else {
        state.limits[limit].most
    }
}

/// How much room a limit has.
pub fn room(config: &Config, state: &State, limit: usize) -> u8 {
    let of = &state.limits[limit];
    (most(config, state, limit) + of.returned).saturating_sub(of.granted + of.overrun)
}

/// Whether every one of these limits has room for `cap`.
pub fn has_room(config: &Config, state: &State, limits: u8, cap: u8) -> bool {
    each(limits).all(|limit| cap <= room(config, state, limit))
}

/// What is carved.
#[derive(Clone, Copy, Debug)]
pub struct Carving {
    /// Who will spend it.
    pub kind: Kind,
    /// The replica that asks.
    pub owner: u8,
    /// Its cap.
    pub cap: u8,
    /// Of which limits.
    pub limits: u8,
}

/// Carves a slice, where all its limits have room, and answers its place. None where there is no room, or no place
/// for another slice in this world.
pub fn carve(config: &Config, state: &mut State, carving: Carving) -> Option<usize> {
    let place = state.slices[..config.slices]
        .iter()
        .position(|slice| slice.kind == Kind::Free)?;
    carve_into(config, state, place, carving).then_some(place)
}

/// Carves a slice into this place, where all its limits have room.
pub fn carve_into(config: &Config, state: &mut State, place: usize, carving: Carving) -> bool {
    if !has_room(config, state, carving.limits, carving.cap) {
        return false;
    }
    state.slices[place] = Slice {
        kind: carving.kind,
        cap: carving.cap,
        limits: carving.limits,
        owner: carving.owner,
        ..Slice::default()
    };
    for limit in each(carving.limits) {
        state.limits[limit].granted += carving.cap;
    }
    true
}

/// Whether anybody may settle this slice now, even where its spender is alive.
pub fn anybody_may_close(config: &Config, slice: &Slice) -> bool {
    match slice.kind {
        Kind::Free => false,
        Kind::Buffered => {
            // Without its rule, what was carved for a check that waits for the ledger pays for others that do not.
            let rule = if slice.owner == DEAD {
                Rule::DeadOwnerKeeps
            } else {
                Rule::KeptPays
            };
            !config.rules.hold(rule)
        }
        Kind::Replica => slice.owner != DEAD || config.rules.hold(Rule::AnybodySettles),
        Kind::Pool | Kind::Hold | Kind::Extra => true,
    }
}

/// Whether the owner of a buffered slice may close it.
pub fn owner_may_close(config: &Config, slice: &Slice) -> bool {
    let flushed = slice.buffer == 0 && slice.flush == 0;
    slice.kind == Kind::Buffered
        && slice.stage == Stage::Open
        && slice.owner != DEAD
        && (flushed || !config.rules.hold(Rule::FlushedBeforeClosed))
}

/// Notes what was charged to a slice. Its limits have the rest of the cap back.
pub fn apply(config: &Config, state: &mut State, place: usize, spent: u8, granted_before: u8) {
    let slice = &mut state.slices[place];
    if config.rules.hold(Rule::AppliedOnce) {
        if slice.stage != Stage::Closing {
            return;
        }
        slice.stage = Stage::Sealed;
        slice.charge = spent;
        let (limits, back) = (slice.limits, slice.cap.saturating_sub(spent));
        for limit in each(limits) {
            let granted = &mut state.limits[limit].granted;
            *granted = granted.saturating_sub(back);
        }
    } else {
        // What the limit had granted when the settler looked, less what this slice has not used.
        slice.stage = Stage::Sealed;
        slice.charge = spent;
        let back = slice.cap.saturating_sub(spent);
        state.limits[0].granted = granted_before.saturating_sub(back);
    }
}
