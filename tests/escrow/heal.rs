//! The way to full use of the limit: from any state, and with steps of the protocol only, everything is settled and
//! what is left is used.

use crate::{
    config::Config,
    ledger,
    moves::Moves,
    quota::{self, Carving},
    state::{AT_REST, DEAD, Kind, LIMITS, SETTLERS, SLICES, Slice, Stage, State},
    steps, sums,
};

/// The place that no configuration uses.
const SPARE: usize = SLICES - 1;

/// The state after everything that can be settled is settled, and the windows were told what the ledger has.
/// Messages that are on their way stay there: nobody needs to wait for them.
pub fn heal(config: &Config, from: &State) -> State {
    let mut state = *from;
    for settler in &from.settlers[..config.settlers] {
        if *settler != AT_REST {
            quota::apply(
                config,
                &mut state,
                settler.slice.into(),
                settler.spent,
                settler.granted,
            );
        }
    }
    state.settlers = [AT_REST; SETTLERS];
    for place in 0..config.slices {
        let slice = &state.slices[place];
        if slice.kind == Kind::Buffered && slice.owner != DEAD && slice.stage == Stage::Open {
            flush(config, &mut state, place);
            close_as_owner(config, &mut state.slices[place]);
        }
        let slice = &mut state.slices[place];
        if slice.stage == Stage::Open && quota::anybody_may_close(config, slice) {
            slice.stage = Stage::Closing;
        }
        if slice.stage == Stage::Closing {
            settle(config, &mut state, place);
        }
    }
    for limit in &mut state.limits {
        limit.overrun += std::mem::take(&mut limit.owed_overrun);
        limit.returned += std::mem::take(&mut limit.owed_return);
    }
    state
}

fn settle(config: &Config, state: &mut State, place: usize) {
    let granted = state.limits[0].granted;
    let spent = ledger::seal(&mut state.slices[place]);
    quota::apply(config, state, place, spent, granted);
}

/// The owner waits for what it flushes, and flushes the rest.
fn flush(config: &Config, state: &mut State, place: usize) {
    let mut moves = Moves::new(config);
    loop {
        let slice = &mut state.slices[place];
        if slice.flush == 0 {
            (slice.flush, slice.buffer) = (slice.buffer, 0);
        }
        if slice.flush == 0 {
            return;
        }
        slice.flights = slice.flights.max(1);
        steps::arrive(&mut moves, state, place);
        let slice = &mut state.slices[place];
        (slice.flush, slice.flights, slice.landed) = (0, 0, false);
    }
}

fn close_as_owner(config: &Config, slice: &mut Slice) {
    if quota::owner_may_close(config, slice) {
        (slice.stage, slice.left) = (Stage::Closing, 0);
    }
}

/// What slices that are not settled have, and nobody charged.
fn stranded(state: &State, limit: usize, which: impl Fn(&Slice) -> bool) -> u8 {
    let there = |slice: &&Slice| {
        slice.kind != Kind::Free
            && slice.stage != Stage::Sealed
            && slice.limits & (1 << limit) != 0
            && which(slice)
    };
    state
        .slices
        .iter()
        .filter(there)
        .map(|slice| slice.cap.saturating_sub(slice.spent))
        .sum()
}

/// Whether every unit that was granted, and not charged, is in a slice that is not settled.
pub fn adds_up(config: &Config, healed: &State) -> bool {
    (0..LIMITS)
        .filter(|limit| config.limits[*limit] > 0)
        .all(|limit| {
            let charged = sums::charged(config, healed, limit) + stranded(healed, limit, |_| true);
            healed.limits[limit].granted == charged
        })
}

/// Uses what is left, and answers whether the limit is used up then. Only the slices of buffered metrics whose
/// owners died are out of reach, until their window ends.
pub fn use_all(config: &Config, mut state: State) -> bool {
    let parts = if config.wishes.iter().any(|wish| wish.is_of_two()) {
        2
    } else {
        1
    };
    (0..parts).all(|part| {
        let limits = config.limits_of(part, state.hour);
        let room = quota::each(limits)
            .map(|limit| quota::room(config, &state, limit))
            .min()
            .unwrap_or(0);
        if room > 0 && !use_room(config, &mut state, limits, room) {
            return false;
        }
        let lost = |slice: &Slice| slice.kind == Kind::Buffered && slice.owner == DEAD;
        quota::each(limits).any(|limit| {
            let of = &state.limits[limit];
            let used = of.granted + of.overrun;
            let idle = stranded(&state, limit, |slice| !lost(slice));
            idle == 0 && used >= of.most + of.returned
        })
    })
}

/// Carves all that there is room for, and charges it.
fn use_room(config: &Config, state: &mut State, limits: u8, room: u8) -> bool {
    let carving = Carving {
        kind: config.kind(),
        owner: 0,
        cap: room,
        limits,
    };
    if !quota::carve_into(config, state, SPARE, carving) {
        return false;
    }
    let charged = ledger::charge_alone(config, &mut state.slices[SPARE], room);
    state.slices[SPARE].stage = Stage::Closing;
    settle(config, state, SPARE);
    charged && state.slices[SPARE].charge == room
}
