//! Buffered metrics: answered from a slice in memory, and flushed to the ledger later.

use crate::{
    ledger,
    moves::Moves,
    quota::{self, Carving},
    rules::Rule,
    sights::Sight,
    state::{DEAD, Kind, REPLICAS, Slice, Stage, State, Told},
};

/// A request comes, is answered, and the answer may be lost.
pub fn ask(moves: &mut Moves<'_>, from: &State, request: usize) {
    let config = moves.config;
    let of = &from.requests[request];
    if of.told != Told::Nothing || of.asks >= config.asks {
        return;
    }
    let amount = config.wishes[request].amounts[0];
    let limits = config.limits_of(0, from.hour);
    for replica in 0..REPLICAS {
        let own = |slice: &Slice| {
            slice.kind == Kind::Buffered && usize::from(slice.owner) == replica && slice.stage == Stage::Open
        };
        let mut can = false;
        for place in 0..config.slices {
            let slice = &from.slices[place];
            if !own(slice) || slice.left < amount || slice.limits != limits {
                continue;
            }
            can = true;
            for heard in [true, false] {
                if heard || of.asks + 1 < config.asks {
                    answer(moves, from, request, replica, place, heard);
                }
            }
        }
        if !can {
            carve(moves, from, replica, limits, amount);
            if !quota::has_room(config, from, limits, amount) {
                let mut state = *from;
                let to = &mut state.requests[request];
                (to.asks, to.told) = (to.asks + 1, Told::No);
                moves.see(Sight::Denied);
                moves.go(
                    state,
                    "replica @ has no room for request # and says no",
                    &[replica, request],
                );
            }
        }
    }
}

fn answer(moves: &mut Moves<'_>, from: &State, request: usize, replica: usize, place: usize, heard: bool) {
    let amount = moves.config.wishes[request].amounts[0];
    let mut state = *from;
    let slice = &mut state.slices[place];
    slice.left -= amount;
    slice.answered += amount;
    slice.buffer += amount;
    let to = &mut state.requests[request];
    to.asks += 1;
    if heard {
        to.told = Told::Yes;
    }
    moves.see(Sight::Buffered);
    moves.see_if(!heard, Sight::AnswerLost);
    let text = if heard {
        "replica @ says yes to request #, from slice #"
    } else {
        "replica @ says yes to request #, from slice #, but nobody hears it"
    };
    moves.go(state, text, &[replica, request, place]);
}

fn carve(moves: &mut Moves<'_>, from: &State, replica: usize, limits: u8, amount: u8) {
    let config = moves.config;
    for cap in config.caps.iter().filter(|cap| **cap >= amount) {
        let mut state = *from;
        let carving = Carving {
            kind: Kind::Buffered,
            owner: u8::try_from(replica).unwrap_or_default(),
            cap: *cap,
            limits,
        };
        if let Some(place) = quota::carve(config, &mut state, carving) {
            state.slices[place].left = *cap;
            moves.go(
                state,
                "replica @ carves buffered slice # with cap %",
                &[replica, place, (*cap).into()],
            );
        }
    }
}

/// Sums are flushed, and slices are closed by their owners.
pub fn flush(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    for place in 0..config.slices {
        let slice = &from.slices[place];
        if slice.kind != Kind::Buffered {
            continue;
        }
        if slice.owner != DEAD {
            send(moves, from, place);
            learn(moves, from, place);
        }
        if slice.flights > 0 {
            let mut state = *from;
            arrive(moves, &mut state, place);
            moves.go(state, "a flush of slice # reaches the ledger", &[place]);
        }
        if quota::owner_may_close(config, slice) {
            let mut state = *from;
            let closed = &mut state.slices[place];
            (closed.stage, closed.left) = (Stage::Closing, 0);
            moves.see(Sight::BufferedClosed);
            moves.go(state, "the owner of slice # closes it", &[place]);
        }
    }
}

fn send(moves: &mut Moves<'_>, from: &State, place: usize) {
    let slice = &from.slices[place];
    let mut state = *from;
    let to = &mut state.slices[place];
    if slice.flush == 0 && slice.buffer > 0 {
        (to.flush, to.buffer, to.flights, to.landed) = (slice.buffer, 0, 1, false);
        moves.go(
            state,
            "the owner of slice # flushes %",
            &[place, slice.buffer.into()],
        );
    } else if slice.flush > 0 && slice.flights < 2 {
        if !moves.config.rules.hold(Rule::FlushIsFrozen) {
            // Without its rule, what came meanwhile goes along, under the same event id.
            (to.flush, to.buffer) = (slice.flush + slice.buffer, 0);
        }
        to.flights += 1;
        let sum = to.flush;
        moves.see(Sight::FlushRepeated);
        moves.go(
            state,
            "the owner of slice # does not hear of its flush, and sends it again: %",
            &[place, sum.into()],
        );
    }
}

/// The owner learns that its flush is in the ledger. Messages with it that are on their way change nothing.
fn learn(moves: &mut Moves<'_>, from: &State, place: usize) {
    if from.slices[place].landed {
        let mut state = *from;
        let to = &mut state.slices[place];
        (to.flush, to.flights, to.landed) = (0, 0, false);
        moves.go(
            state,
            "the owner of slice # learns that its flush is there",
            &[place],
        );
    }
}

/// A flush reaches the ledger.
pub fn arrive(moves: &mut Moves<'_>, state: &mut State, place: usize) {
    let config = moves.config;
    let slice = &mut state.slices[place];
    slice.flights -= 1;
    if slice.landed {
        return;
    }
    moves.see_if(slice.owner == DEAD, Sight::FlushOrphaned);
    let sum = slice.flush;
    if ledger::charge_alone(config, slice, sum) {
        slice.landed = true;
        for limit in quota::each(slice.limits) {
            state.limits[limit].flushed += sum;
        }
    } else {
        state.broken |= ledger::ANSWER_BROKEN;
    }
}
