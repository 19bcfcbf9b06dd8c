//! What a state comes to, seen from outside.

use crate::{
    config::{Config, Purpose},
    state::{Kind, Stage, State, Told},
};

/// What the ledger has charged to slices of a limit, whether it was taken back later or not.
pub fn charged(config: &Config, state: &State, limit: usize) -> u8 {
    let mut sum = state.limits[limit].flushed;
    for (request, wish) in state.requests.iter().zip(config.wishes) {
        let event = &request.event;
        let parts = if wish.is_of_two() { 2 } else { 1 };
        for (part, charged) in event.charged.iter().enumerate().take(parts) {
            if config.limits_of(part, event.hour) & (1 << limit) != 0 {
                sum += charged;
            }
        }
    }
    sum
}

/// What the ledger has as given back or taken back.
pub fn returned(config: &Config, state: &State, limit: usize) -> u8 {
    let of = |(request, wish): (&crate::state::Request, &crate::config::Wish)| {
        let event = &request.event;
        let there = event.present && !event.denied;
        match wish.purpose {
            Purpose::Return if there && limit == 0 => wish.amounts[0],
            Purpose::Consume if event.voided && config.limits_of(0, event.hour) & (1 << limit) != 0 => {
                wish.total()
            }
            _ => 0,
        }
    };
    state.requests.iter().zip(config.wishes).map(of).sum()
}

/// What open holds have that was not committed.
pub fn held(config: &Config, state: &State, limit: usize) -> u8 {
    let open = |slice: &&crate::state::Slice| {
        slice.kind == Kind::Hold && slice.stage == Stage::Open && slice.limits & (1 << limit) != 0
    };
    let slices = state
        .slices
        .iter()
        .filter(open)
        .map(|slice| slice.cap - slice.spent);
    // A hold that is not a slice of its own, where that rule is off.
    let elsewhere = state.requests.iter().zip(config.wishes).filter(|(request, _)| {
        let pooled = state
            .slices
            .get(usize::from(request.hold))
            .is_some_and(|slice| slice.kind == Kind::Pool);
        limit == 0 && request.held == Told::Yes && pooled && !request.event.present
    });
    slices.sum::<u8>() + elsewhere.map(|(_, wish)| wish.amounts[0]).sum::<u8>()
}

/// What callers of buffered metrics were told they have, and the ledger does not have yet.
pub fn answered(state: &State, limit: usize) -> u8 {
    let buffered = state
        .slices
        .iter()
        .filter(|slice| slice.kind == Kind::Buffered && slice.limits & (1 << limit) != 0);
    buffered
        .map(|slice| slice.answered.saturating_sub(slice.spent))
        .sum()
}

/// All that was allowed and not given back: what has to stay within the limit.
pub fn allowed(config: &Config, state: &State, limit: usize) -> u8 {
    let sum = charged(config, state, limit) + held(config, state, limit) + answered(state, limit);
    sum.saturating_sub(returned(config, state, limit))
}

/// The same, and what holds have that are being settled: their commits may be on their way.
pub fn promised(config: &Config, state: &State, limit: usize) -> u8 {
    let closing = state.slices.iter().filter(|slice| {
        slice.kind == Kind::Hold && slice.stage == Stage::Closing && slice.limits & (1 << limit) != 0
    });
    allowed(config, state, limit) + closing.map(|slice| slice.cap - slice.spent).sum::<u8>()
}

/// What the account holds of a LEVEL metric, in the ledger.
pub fn level(config: &Config, state: &State) -> i16 {
    let used = charged(config, state, 0) + state.limits[0].overrun + state.limits[0].owed_overrun;
    i16::from(used) - i16::from(returned(config, state, 0))
}
