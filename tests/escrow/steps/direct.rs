//! What enters without permission, what is given back, and limits that change.

use crate::{
    config::Purpose,
    moves::Moves,
    quota::each,
    rules::Rule,
    sights::Sight,
    state::{Kind, Lowering, Phase, Stage, State},
    sums,
};

/// Direct use, corrections, and events that are taken back: the ledger takes each.
pub fn direct(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    if from.budget.direct > 0 {
        let mut state = *from;
        state.budget.direct -= 1;
        for limit in each(config.limits_of(0, from.hour)) {
            state.limits[limit].owed_overrun += 1;
        }
        moves.see(Sight::Direct);
        moves.go(state, "one unit is recorded without asking", &[]);
    }
    for (request, wish) in config.wishes.iter().enumerate() {
        let event = &from.requests[request].event;
        if !event.present
            || event.denied
            || event.voided
            || wish.purpose != Purpose::Consume
            || wish.is_of_two()
        {
            continue;
        }
        let limits = config.limits_of(0, event.hour);
        if config.corrections && !event.corrected {
            let mut state = *from;
            state.requests[request].event.corrected = true;
            for limit in each(limits) {
                state.limits[limit].owed_overrun += 1;
            }
            moves.see(Sight::Corrected);
            moves.go(
                state,
                "the event of request # is corrected to one unit more",
                &[request],
            );
        }
        // Where the metric is a level, taking an event back must not bring it below nothing either.
        let is_level = config.has(|purpose| *purpose == Purpose::Return);
        if config.voids && (!is_level || sums::level(config, from) >= i16::from(wish.total())) {
            let mut state = *from;
            // The event stays: it says that its request was counted.
            state.requests[request].event.voided = true;
            for limit in each(limits) {
                state.limits[limit].owed_return += wish.total();
            }
            moves.see(Sight::Voided);
            moves.go(state, "the event of request # is taken back", &[request]);
        }
    }
}

/// A return is sent to the ledger.
pub fn give_back(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    let attempt = &from.requests[request].attempts[number];
    if attempt.phase != Phase::Working {
        return;
    }
    let mut state = *from;
    state.requests[request].attempts[number].phase = Phase::Sent;
    if !moves.config.rules.hold(Rule::ReturnAfterLedger) && number == 0 {
        state.limits[0].returned += moves.config.wishes[request].amounts[0];
    }
    moves.see(Sight::Returned);
    moves.go(
        state,
        "replica @ sends return # to the ledger",
        &[attempt.replica.into(), request],
    );
}

/// Windows are told what the ledger has, by the consumer or by whoever recorded it.
pub fn tell_windows(moves: &mut Moves<'_>, from: &State) {
    for (number, limit) in from.limits.iter().enumerate() {
        if limit.owed_overrun > 0 {
            let mut state = *from;
            let to = &mut state.limits[number];
            (to.overrun, to.owed_overrun) = (to.overrun + to.owed_overrun, 0);
            moves.go(
                state,
                "limit # is told of % that entered without permission",
                &[number, limit.owed_overrun.into()],
            );
        }
        if limit.owed_return > 0 {
            let mut state = *from;
            let to = &mut state.limits[number];
            (to.returned, to.owed_return) = (to.returned + to.owed_return, 0);
            moves.go(
                state,
                "limit # is told of % that were given back",
                &[number, limit.owed_return.into()],
            );
        }
        if limit.returned > 0 && !from.told_twice && !moves.config.rules.hold(Rule::ToldOnce) {
            let mut state = *from;
            state.limits[number].returned += 1;
            state.told_twice = true;
            moves.go(
                state,
                "limit # is told once more of a unit that was given back",
                &[number],
            );
        }
    }
}

/// The first limit is lowered or raised.
pub fn change_limit(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    let durable = |slice: &crate::state::Slice| {
        matches!(slice.kind, Kind::Pool | Kind::Replica | Kind::Extra) && slice.stage != Stage::Sealed
    };
    if from.budget.lower {
        let mut state = *from;
        state.budget.lower = false;
        state.limits[0].most = config.lower_to;
        state.lowering = Lowering::Set;
        for slice in state.slices.iter_mut().filter(|slice| durable(slice)) {
            slice.old = true;
        }
        moves.see(Sight::Lowered);
        moves.see_if(from.limits[0].granted > config.lower_to, Sight::LoweredBelow);
        moves.go(state, "the limit is lowered to %", &[config.lower_to.into()]);
    }
    if from.budget.raise {
        let mut state = *from;
        state.budget.raise = false;
        state.limits[0].most = config.raise_to;
        state.highest = from.highest.max(config.raise_to);
        state.lowering = Lowering::No;
        for slice in &mut state.slices {
            slice.old = false;
        }
        moves.see(Sight::Raised);
        moves.go(state, "the limit is raised to %", &[config.raise_to.into()]);
    }
    let settled = !from
        .slices
        .iter()
        .any(|slice| slice.old && slice.stage != Stage::Sealed);
    if from.lowering == Lowering::Set && (settled || !config.rules.hold(Rule::LoweringSettles)) {
        let mut state = *from;
        state.lowering = Lowering::Done;
        state.base = sums::promised(config, from, 0);
        for slice in &mut state.slices {
            slice.old = false;
        }
        moves.see(Sight::LoweringDone);
        moves.go(state, "whoever lowered the limit is told that it holds", &[]);
    }
}
