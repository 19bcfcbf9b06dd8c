//! Holds: reserved, and then committed, released or forgotten.

use crate::{
    config::{Config, Purpose},
    moves::Moves,
    quota::{self, Carving},
    rules::Rule,
    sights::Sight,
    state::{ENDED, Kind, NO_SLICE, Pay, Phase, Stage, State, Told},
};

/// Reservations, their answers, and releases.
pub fn reserve(moves: &mut Moves<'_>, from: &State, request: usize) {
    let config = moves.config;
    let of = &from.requests[request];
    if of.held == Told::Nothing && of.reserves < config.asks {
        let mut state = *from;
        let to = &mut state.requests[request];
        to.reserving_older |= to.reserving;
        (to.reserving, to.reserves) = (true, to.reserves + 1);
        moves.see_if(of.reserves > 0, Sight::AnswerLost);
        moves.go(state, "the caller asks for hold #", &[request]);
    }
    if of.reserving {
        arrive(moves, from, request, true);
        if of.reserves < config.asks {
            arrive(moves, from, request, false);
        }
    }
    if of.reserving_older {
        arrive(moves, from, request, false);
    }
    release(moves, from, request);
}

/// A reservation arrives. Only the answer to the latest is listened to, where it is not lost.
fn arrive(moves: &mut Moves<'_>, from: &State, request: usize, listened: bool) {
    let mut state = *from;
    let of = &mut state.requests[request];
    if of.reserving_older && !listened {
        of.reserving_older = false;
    } else {
        of.reserving = false;
    }
    moves.see_if(of.hold != NO_SLICE, Sight::ReservedTwice);
    let Some(yes) = make(moves.config, &mut state, request) else {
        return;
    };
    if listened {
        state.requests[request].held = if yes { Told::Yes } else { Told::No };
        moves.see_if(!yes, Sight::Denied);
    }
    let text = match (yes, listened) {
        (true, true) => "hold # is there, and its caller is told",
        (true, false) => "hold # is there, and its caller is not told",
        (false, true) => "there is no room for hold #, and its caller is told",
        (false, false) => "there is no room for hold #, and its caller is not told",
    };
    moves.go(state, text, &[request]);
}

/// Makes the hold, where it is not there yet. None where this world has no place for it.
fn make(config: &Config, state: &mut State, request: usize) -> Option<bool> {
    if state.requests[request].hold != NO_SLICE {
        return Some(true);
    }
    let amount = config.wishes[request].amounts[0];
    let limits = config.limits_of(0, state.hour);
    state.requests[request].hour = state.hour;
    let place = if config.rules.hold(Rule::HoldIsSlice) {
        if !quota::has_room(config, state, limits, amount) {
            return Some(false);
        }
        let carving = Carving {
            kind: Kind::Hold,
            owner: 0,
            cap: amount,
            limits,
        };
        quota::carve(config, state, carving)?
    } else {
        // Without its rule, a hold takes from a pooled slice, and only Redis knows.
        let pooled = |slice: &crate::state::Slice| slice.kind == Kind::Pool && slice.left >= amount;
        let place = state.slices.iter().position(pooled)?;
        state.slices[place].left -= amount;
        place
    };
    state.requests[request].hold = u8::try_from(place).unwrap_or(NO_SLICE);
    Some(true)
}

fn release(moves: &mut Moves<'_>, from: &State, request: usize) {
    let of = &from.requests[request];
    let Some(slice) = from.slices.get(usize::from(of.hold)) else {
        return;
    };
    if of.held == Told::Yes && slice.kind == Kind::Hold && slice.stage == Stage::Open {
        let mut state = *from;
        state.slices[usize::from(of.hold)].stage = Stage::Closing;
        moves.see(Sight::Released);
        moves.go(state, "hold # is released", &[request]);
    }
}

/// A replica looks for what pays for a commit, and sends it.
pub fn work(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    let config = moves.config;
    let of = &from.requests[request];
    let attempt = &of.attempts[number];
    let Purpose::Hold { commit } = config.wishes[request].purpose else {
        return;
    };
    if attempt.phase != Phase::Working {
        return;
    }
    let late = attempt.late || of.hold == ENDED;
    let held = if late {
        0
    } else {
        commit.min(config.wishes[request].amounts[0])
    };
    let mut state = *from;
    let to = &mut state.requests[request].attempts[number];
    (to.phase, to.late) = (Phase::Sent, late);
    // What is committed counts where it was reserved, also in the next hour.
    if config.rules.hold(Rule::OwnWindows) {
        to.hour = of.hour;
    }
    if held > 0 {
        to.pays[0] = Pay {
            slice: of.hold,
            amount: held,
        };
    }
    let rest = commit - held;
    if rest == 0 || !config.rules.hold(Rule::LateIsCarved) {
        moves.go(
            state,
            "replica @ sends the commit of hold # to the ledger",
            &[attempt.replica.into(), request],
        );
        return;
    }
    let limits = config.limits_of(0, to.hour);
    // As much as there is room for; the rest is overrun.
    let cap = quota::each(limits)
        .map(|limit| quota::room(config, from, limit))
        .fold(rest, u8::min);
    if cap == 0 {
        let text = "replica @ finds no room for % of the commit of hold #, and sends it to the ledger";
        moves.go(state, text, &[attempt.replica.into(), rest.into(), request]);
        return;
    }
    let carving = Carving {
        kind: Kind::Extra,
        owner: 0,
        cap,
        limits,
    };
    if let Some(place) = quota::carve(config, &mut state, carving) {
        let pays = &mut state.requests[request].attempts[number].pays;
        pays[usize::from(held > 0)] = Pay {
            slice: u8::try_from(place).unwrap_or(NO_SLICE),
            amount: cap,
        };
        let text = "replica @ carves slice # with cap % for the commit of hold #, and sends it to the ledger";
        moves.go(state, text, &[attempt.replica.into(), place, cap.into(), request]);
    }
}
