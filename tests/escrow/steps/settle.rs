//! Settlement: close, seal, apply, by anybody at any instant; and the time that passes over slices.

use crate::{
    config::{Config, Hints},
    ledger,
    moves::Moves,
    quota,
    rules::Rule,
    sights::Sight,
    state::{AT_REST, Kind, NO_SLICE, Phase, Settler, Slice, Stage, State},
};

/// What settlers may do. Closing reads nothing, so a settler is only kept from its seal to its apply: whoever sealed
/// a slice may be another than who closed it.
pub fn settle(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    for place in 0..config.slices {
        let slice = &from.slices[place];
        if slice.stage == Stage::Open && quota::anybody_may_close(config, slice) {
            let mut state = *from;
            state.slices[place].stage = Stage::Closing;
            moves.see_if(slice.kind == Kind::Hold, Sight::Expired);
            moves.go(state, "slice # is closed", &[place]);
        }
        if slice.stage == Stage::Closing {
            seal(moves, from, place);
        }
    }
    for (settler, doing) in from.settlers[..config.settlers].iter().enumerate() {
        if *doing == AT_REST {
            continue;
        }
        let place = usize::from(doing.slice);
        let mut state = *from;
        quota::apply(config, &mut state, place, doing.spent, doing.granted);
        state.settlers[settler] = AT_REST;
        let text = "settler # applies the charge of slice #: %";
        moves.go(state, text, &[settler, place, doing.spent.into()]);
        let mut state = *from;
        state.settlers[settler] = AT_REST;
        moves.see(Sight::SettlerCrashed);
        moves.go(state, "settler # crashes", &[settler]);
    }
}

fn seal(moves: &mut Moves<'_>, from: &State, place: usize) {
    let config = moves.config;
    // Settlers with nothing to do are all alike.
    let Some(settler) = from.settlers[..config.settlers]
        .iter()
        .position(|settler| *settler == AT_REST)
    else {
        return;
    };
    let mut state = *from;
    let spent = ledger::seal(&mut state.slices[place]);
    let granted = if config.rules.hold(Rule::AppliedOnce) {
        0
    } else {
        from.limits[0].granted
    };
    state.settlers[settler] = Settler {
        slice: u8::try_from(place).unwrap_or(NO_SLICE),
        spent,
        granted,
    };
    let other = from
        .settlers
        .iter()
        .any(|other| usize::from(other.slice) == place);
    moves.see_if(other, Sight::SettledByTwo);
    moves.see_if(is_charged_by_somebody(from, place), Sight::SettledUnderway);
    moves.go(
        state,
        "settler # seals slice #, to which % was charged",
        &[settler, place, spent.into()],
    );
}

fn is_charged_by_somebody(state: &State, place: usize) -> bool {
    attempts_with(state, place).any(|attempt| matches!(attempt.phase, Phase::Sent | Phase::Orphan))
}

fn attempts_with(state: &State, place: usize) -> impl Iterator<Item = &crate::state::Attempt> {
    let attempts = state.requests.iter().flat_map(|request| &request.attempts);
    attempts.filter(move |attempt| attempt.pays.iter().any(|pay| usize::from(pay.slice) == place))
}

/// Whether anything in this state may still name a slice.
pub fn is_mentioned(state: &State, place: usize) -> bool {
    let slice = &state.slices[place];
    let number = u8::try_from(place).unwrap_or(NO_SLICE);
    slice.left > 0
        || slice.copy > 0
        || state.settlers.iter().any(|settler| settler.slice == number)
        || state
            .requests
            .iter()
            .any(|request| request.answer == number || request.answer_copy == number)
        || attempts_with(state, place).next().is_some()
}

/// Whether a slice is over: nobody can do anything with it any more.
pub fn is_over(config: &Config, state: &State, place: usize) -> bool {
    let slice: &Slice = &state.slices[place];
    let whole = slice.kind != Kind::Buffered || (slice.answered == slice.spent && slice.flights == 0);
    slice.stage == Stage::Sealed
        && config.hints != Hints::Anything
        // Without its rule, a hold whose row is deleted may be charged yet.
        && (!config.ends || config.rules.hold(Rule::EndRefuses))
        && whole
        && !is_mentioned(state, place)
}

/// Time passes over slices: they end, their rows are deleted, and in the end nobody remembers them.
pub fn time(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    for place in 0..config.slices {
        let slice = &from.slices[place];
        if config.ends && slice.kind != Kind::Free && !slice.ended {
            let mut state = *from;
            state.slices[place].ended = true;
            moves.see(Sight::Ended);
            moves.go(state, "the hard end of slice # passes", &[place]);
        }
        if config.ends && slice.ended && slice.row && may_be_deleted(config, from, place) {
            let mut state = *from;
            let deleted = &mut state.slices[place];
            (deleted.row, deleted.sealed, deleted.spent) = (false, false, 0);
            moves.see(Sight::RowDeleted);
            moves.go(state, "the row of slice # is deleted", &[place]);
        }
        if config.hints == Hints::Anything && slice.stage == Stage::Sealed && !is_mentioned(from, place) {
            let mut state = *from;
            forget(&mut state, place);
            moves.go(state, "everybody has forgotten slice #", &[place]);
        }
    }
    if config.hours && from.hour == 0 {
        let mut state = *from;
        state.hour = 1;
        moves.see(Sight::HourEnded);
        moves.go(state, "the hour ends, and the next begins", &[]);
    }
}

fn may_be_deleted(config: &Config, state: &State, place: usize) -> bool {
    let slice = &state.slices[place];
    let applied = slice.stage == Stage::Sealed || !config.rules.hold(Rule::AppliedBeforeDeleted);
    let waited =
        !config.rules.hold(Rule::DeletionWaits) || attempts_with(state, place).all(|attempt| !attempt.begun);
    slice.sealed && applied && waited
}

/// Frees the place of a slice that is over. A hold that it was has ended.
pub fn forget(state: &mut State, place: usize) {
    state.slices[place] = Slice::default();
    for request in &mut state.requests {
        if usize::from(request.hold) == place {
            request.hold = crate::state::ENDED;
        }
    }
}
