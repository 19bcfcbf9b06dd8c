//! A replica looks for what pays for a request.

use super::answer;
use crate::{
    config::{Config, Hints},
    moves::{Moves, Step},
    quota::{self, Carving},
    rules::Rule,
    sights::Sight,
    state::{Attempt, Kind, NO_SLICE, Pay, Phase, Slice, State},
};

/// Whether a replica uses the copy of Redis.
fn uses_copy(state: &State, replica: u8) -> bool {
    state.redis_split && replica == 1
}

/// What a replica believes to be left of a slice.
pub fn left(config: &Config, state: &State, replica: u8, slice: &Slice) -> u8 {
    match (config.hints, slice.kind) {
        (Hints::Memory, Kind::Replica) if slice.owner == replica => slice.left,
        (Hints::Redis, Kind::Pool) if uses_copy(state, replica) => slice.copy,
        (Hints::Redis, Kind::Pool) => slice.left,
        _ => 0,
    }
}

/// Takes `amount` of what is believed to be left.
pub fn take(state: &mut State, replica: u8, slice: usize, amount: u8) {
    let copied = uses_copy(state, replica);
    let slice = &mut state.slices[slice];
    let left = if copied { &mut slice.copy } else { &mut slice.left };
    *left = left.saturating_sub(amount);
}

/// Forgets a slice that the ledger refused, or gives back what was not charged.
pub fn forget_or_give_back(config: &Config, state: &mut State, replica: u8, pay: Pay, refused: bool) {
    if pay.slice == NO_SLICE || config.hints == Hints::Anything {
        return;
    }
    let copied = uses_copy(state, replica);
    let slice = &mut state.slices[usize::from(pay.slice)];
    let known = match slice.kind {
        Kind::Replica => slice.owner == replica,
        Kind::Pool => true,
        _ => false,
    };
    if known {
        let cap = slice.cap;
        let left = if copied { &mut slice.copy } else { &mut slice.left };
        *left = if refused { 0 } else { (*left + pay.amount).min(cap) };
    }
}

/// Forgets which slice was taken from for a request.
pub fn forget_answer(state: &mut State, request: usize, replica: u8) {
    let copied = uses_copy(state, replica);
    let of = &mut state.requests[request];
    *(if copied {
        &mut of.answer_copy
    } else {
        &mut of.answer
    }) = NO_SLICE;
}

/// What a request still needs: of which part, and how much.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// Where in its attempt what pays for it is written.
    place: usize,
    amount: u8,
    limits: u8,
}

fn need(config: &Config, request: usize, attempt: &Attempt) -> Option<Need> {
    let wish = &config.wishes[request];
    let place = attempt.pays.iter().position(|pay| pay.slice == NO_SLICE)?;
    let (part, amount) = if wish.is_of_two() {
        (place, wish.amounts[place])
    } else {
        let paid: u8 = attempt.pays.iter().map(|pay| pay.amount).sum();
        (0, wish.amounts[0] - paid)
    };
    (amount > 0).then(|| Need {
        place,
        amount,
        limits: config.limits_of(part, attempt.hour),
    })
}

impl Need {
    /// Whether a slice may pay for it.
    fn suits(&self, config: &Config, slice: &Slice) -> bool {
        let durable = matches!(slice.kind, Kind::Pool | Kind::Replica);
        let same = slice.limits == self.limits;
        // Without its rule, a slice pays in the windows that begin after it was carved as well.
        let later = config.hours && !config.rules.hold(Rule::OwnWindows);
        durable && (same || later)
    }

    /// Whether a part of it may be left to another slice.
    fn may_be_spread(&self, config: &Config, request: usize) -> bool {
        config.spread && self.place == 0 && !config.wishes[request].is_of_two()
    }
}

/// What a replica may do for an attempt that it works on.
pub fn work(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    let config = moves.config;
    let attempt = from.requests[request].attempts[number];
    if attempt.phase != Phase::Working {
        return;
    }
    let Some(need) = need(config, request, &attempt) else {
        return;
    };
    if recall(moves, from, request, number) {
        return;
    }
    let mut paid = false;
    // An event names a slice once.
    let named = |place: usize| attempt.pays.iter().any(|pay| usize::from(pay.slice) == place);
    let suiting = |(place, slice): &(usize, &Slice)| need.suits(config, slice) && !named(*place);
    for (place, slice) in from.slices.iter().enumerate().filter(suiting) {
        let spreads = need.may_be_spread(config, request);
        let amounts = if config.hints == Hints::Anything {
            if spreads {
                1..=need.amount
            } else {
                need.amount..=need.amount
            }
        } else {
            let left = left(config, from, attempt.replica, slice);
            let part = left.min(need.amount);
            paid |= left >= need.amount;
            if part == need.amount || (part > 0 && spreads) {
                part..=part
            } else {
                continue;
            }
        };
        for amount in amounts {
            let mut state = *from;
            pay(config, &mut state, (request, number), need.place, place, amount);
            moves.go(
                state,
                "replica @ takes % of slice # for request #",
                &[attempt.replica.into(), amount.into(), place, request],
            );
        }
    }
    // Whoever has enough does not ask quota, unless what it has is not to be believed.
    if !paid || config.hints == Hints::Anything {
        carve(moves, from, request, number, need);
        deny(moves, from, request, number, need);
    }
}

/// Notes that a slice pays, and sends the charge where nothing is missing any more.
fn pay(
    config: &Config,
    state: &mut State,
    (request, number): (usize, usize),
    place: usize,
    slice: usize,
    amount: u8,
) {
    let replica = state.requests[request].attempts[number].replica;
    if config.hints != Hints::Anything {
        take(state, replica, slice, amount);
    }
    let copied = uses_copy(state, replica);
    let of = &mut state.requests[request];
    let paying = u8::try_from(slice).unwrap_or(NO_SLICE);
    if config.hints == Hints::Redis && !config.spread {
        // One script takes the units and remembers for whom.
        *(if copied {
            &mut of.answer_copy
        } else {
            &mut of.answer
        }) = paying;
    }
    let attempt = &mut of.attempts[number];
    attempt.pays[place] = Pay {
        slice: paying,
        amount,
    };
    if need(config, request, attempt).is_none() {
        attempt.phase = Phase::Sent;
    }
}

/// A repeat finds in Redis which slice was taken from before.
fn recall(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) -> bool {
    let config = moves.config;
    let of = &from.requests[request];
    let replica = of.attempts[number].replica;
    let known = if uses_copy(from, replica) {
        of.answer_copy
    } else {
        of.answer
    };
    if number == 0 || known == NO_SLICE || config.wishes[request].is_of_two() {
        return false;
    }
    let mut state = *from;
    let attempt = &mut state.requests[request].attempts[number];
    attempt.pays[0] = Pay {
        slice: known,
        amount: config.wishes[request].amounts[0],
    };
    attempt.phase = Phase::Sent;
    moves.see(Sight::RepeatFoundAnswer);
    moves.go(
        state,
        "replica @ finds in Redis that slice # pays for request #",
        &[replica.into(), known.into(), request],
    );
    true
}

fn carve(moves: &mut Moves<'_>, from: &State, request: usize, number: usize, need: Need) {
    let config = moves.config;
    let replica = from.requests[request].attempts[number].replica;
    let mut caps = [0_u8; 8];
    for cap in config.caps {
        let enough = *cap >= need.amount || need.may_be_spread(config, request);
        caps[usize::from(if enough { *cap } else { need.amount })] = 1;
    }
    for (cap, _) in (0..).zip(caps).filter(|(_, wanted)| *wanted == 1) {
        let mut state = *from;
        let carving = Carving {
            kind: config.kind(),
            owner: replica,
            cap,
            limits: need.limits,
        };
        let Some(place) = quota::carve(config, &mut state, carving) else {
            continue;
        };
        if config.hints != Hints::Anything {
            let copied = uses_copy(&state, replica);
            let slice = &mut state.slices[place];
            *(if copied { &mut slice.copy } else { &mut slice.left }) = cap;
        }
        if config.hints != Hints::Memory {
            // A pooled slice is nobody's.
            state.slices[place].owner = 0;
        }
        let again = quota::each(need.limits).any(|limit| from.limits[limit].returned > 0);
        moves.see_if(again, Sight::CarvedAgain);
        moves.go(
            state,
            "replica @ carves slice # with cap %",
            &[replica.into(), place, cap.into()],
        );
    }
}

fn deny(moves: &mut Moves<'_>, from: &State, request: usize, number: usize, need: Need) {
    let config = moves.config;
    if quota::has_room(config, from, need.limits, need.amount) {
        return;
    }
    let mut state = *from;
    let attempt = from.requests[request].attempts[number];
    for pay in attempt.pays {
        forget_or_give_back(config, &mut state, attempt.replica, pay, false);
    }
    answer::deny(moves, &mut state, request, number, Rule::DenialIsWritten);
    let written = number > 0 && config.rules.hold(Rule::DenialIsWritten);
    let text = if written {
        "replica @ finds no room for request #, and tells the ledger that it is denied"
    } else {
        "replica @ finds no room for request #"
    };
    answer::go(
        moves,
        state,
        request,
        Step::new(text, &[attempt.replica.into(), request]),
    );
}
