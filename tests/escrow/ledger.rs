//! The transactions of usage: they decide.

use crate::{
    config::{Config, Purpose},
    moves::Moves,
    quota::each,
    rules::Rule,
    sights::Sight,
    state::{Attempt, NO_SLICE, Slice, State},
    sums,
};

/// A refused charge could have been paid.
pub const REFUSED_WRONGLY: u8 = 1;
/// What a caller of a buffered metric was told was refused at the flush.
pub const ANSWER_BROKEN: u8 = 2;

/// A commit went past its hold, which would have paid.
pub const HOLD_PASSED: u8 = 4;

/// What the ledger says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there now.
    Recorded,
    /// It was there before.
    Known,
    /// Its request was denied.
    Denied,
    /// These of its two slices do not pay, or nothing may be given back.
    Refused([bool; 2]),
}

/// Why a slice does not pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Sealed,
    Cap,
    Ended,
}

/// What the row of a slice says to a charge, in one statement: it makes the row where there is none.
fn refusal(config: &Config, slice: &Slice, amount: u8, begun: bool) -> Option<Refusal> {
    // The time of a transaction is when it began.
    if slice.ended && !begun && config.rules.hold(Rule::EndRefuses) {
        return Some(Refusal::Ended);
    }
    if slice.sealed && config.rules.hold(Rule::SealedRefuses) {
        return Some(Refusal::Sealed);
    }
    (slice.spent + amount > slice.cap && config.rules.hold(Rule::CapRefuses)).then_some(Refusal::Cap)
}

/// Charges a slice that takes it.
fn charge(slice: &mut Slice, amount: u8) {
    slice.row = true;
    slice.spent += amount;
}

/// Charges a slice on its own, where it takes the amount.
pub fn charge_alone(config: &Config, slice: &mut Slice, amount: u8) -> bool {
    let takes = refusal(config, slice, amount, false).is_none();
    if takes {
        charge(slice, amount);
    }
    takes
}

/// Lets nothing more be charged to a slice, and answers what was.
pub fn seal(slice: &mut Slice) -> u8 {
    (slice.row, slice.sealed) = (true, true);
    slice.spent
}

/// What the slices of an attempt say, each on its own.
fn refusals(config: &Config, state: &State, attempt: &Attempt) -> [Option<Refusal>; 2] {
    attempt.pays.map(|pay| {
        (pay.slice != NO_SLICE)
            .then(|| {
                refusal(
                    config,
                    &state.slices[usize::from(pay.slice)],
                    pay.amount,
                    attempt.begun,
                )
            })
            .flatten()
    })
}

/// Records the event of an attempt, in one transaction.
pub fn record(moves: &mut Moves<'_>, state: &mut State, request: usize, number: usize) -> Outcome {
    let config = moves.config;
    let event = state.requests[request].event;
    let known = event.present && (config.rules.hold(Rule::IdFollowsRequest) || event.denied);
    if known && event.denied {
        return Outcome::Denied;
    }
    if known {
        return Outcome::Known;
    }
    if config.wishes[request].purpose == Purpose::Return {
        return give_back(config, state, request);
    }
    let attempt = state.requests[request].attempts[number];
    let refusals = refusals(config, state, &attempt);
    for (refusal, pay) in refusals.iter().zip(attempt.pays) {
        match refusal {
            None => {}
            Some(Refusal::Sealed) => moves.see(Sight::RefusedSealed),
            Some(Refusal::Cap) => moves.see(Sight::RefusedCap),
            Some(Refusal::Ended) => {
                moves.see(Sight::RefusedEnded);
                moves.see_if(!state.slices[usize::from(pay.slice)].row, Sight::RowMissed);
            }
        }
    }
    let refused = refusals.map(|one| one.is_some());
    if refused.contains(&true) {
        let some = refused.contains(&false) && attempt.pays[1].slice != NO_SLICE;
        let two = config.wishes[request].is_of_two();
        moves.see_if(
            some,
            if two {
                Sight::TwoMetricsUndone
            } else {
                Sight::SpreadRefused
            },
        );
        keep_shares(config, state, request, &attempt, refused);
        return Outcome::Refused(refused);
    }
    pay(config, state, request, &attempt);
    see_recorded(moves, state, request, &attempt);
    Outcome::Recorded
}

/// Without the rules against it, what one slice pays stays where the other refuses: of a call over two metrics as an
/// event, of an event over two slices as a charge.
fn keep_shares(config: &Config, state: &mut State, request: usize, attempt: &Attempt, refused: [bool; 2]) {
    let two = config.wishes[request].is_of_two();
    if config
        .rules
        .hold(if two { Rule::WholeCall } else { Rule::WholeEvent })
    {
        return;
    }
    for (part, pay) in attempt.pays.iter().enumerate() {
        let recorded = &mut state.requests[request].event.charged[part];
        if refused[part] || pay.slice == NO_SLICE || *recorded > 0 {
            continue;
        }
        if two {
            *recorded += pay.amount;
        }
        charge(&mut state.slices[usize::from(pay.slice)], pay.amount);
    }
}

/// Everything that an attempt charges, where all its slices take it.
fn pay(config: &Config, state: &mut State, request: usize, attempt: &Attempt) {
    let wish = &config.wishes[request];
    let mut paid = 0;
    for (part, pay) in attempt
        .pays
        .iter()
        .enumerate()
        .filter(|(_, pay)| pay.slice != NO_SLICE)
    {
        charge(&mut state.slices[usize::from(pay.slice)], pay.amount);
        paid += pay.amount;
        let part = if wish.is_of_two() { part } else { 0 };
        state.requests[request].event.charged[part] += pay.amount;
    }
    let of = &mut state.requests[request];
    (of.event.present, of.event.hour) = (true, attempt.hour);
    let rest = wish.total() - paid;
    if let Some(hold) = state.slices.get(usize::from(of.hold)) {
        let could_pay = refusal(config, hold, wish.amounts[0].min(wish.total()), false).is_none();
        if rest > wish.total().saturating_sub(wish.amounts[0]) && could_pay {
            state.broken |= HOLD_PASSED;
        }
    }
    let event = &mut of.event;
    if rest > 0 && config.rules.hold(Rule::LateIsCarved) {
        event.overrun = rest;
        for limit in each(config.limits_of(0, attempt.hour)) {
            state.limits[limit].owed_overrun += rest;
        }
    } else {
        event.charged[0] += rest;
    }
}

fn see_recorded(moves: &mut Moves<'_>, state: &State, request: usize, attempt: &Attempt) {
    let config = moves.config;
    let wish = &config.wishes[request];
    let event = &state.requests[request].event;
    let used = sums::charged(config, state, 0) + state.limits[0].overrun;
    moves.see_if(
        used >= state.limits[0].most + state.limits[0].returned,
        Sight::FullUse,
    );
    if let Purpose::Hold { commit } = wish.purpose {
        moves.see_if(event.overrun > 0, Sight::CommitOverrun);
        let extra = attempt.pays[usize::from(!attempt.late)].slice != NO_SLICE;
        moves.see_if(event.overrun > 0 && extra, Sight::CommitOverrunInPart);
        let carved = event.overrun == 0;
        moves.see_if(carved && attempt.late, Sight::LateCommit);
        moves.see_if(
            carved && !attempt.late && commit > wish.amounts[0],
            Sight::CommitAbove,
        );
        moves.see_if(carved && !attempt.late, Sight::Committed);
        return;
    }
    let two = attempt.pays[1].slice != NO_SLICE;
    moves.see_if(two && wish.is_of_two(), Sight::TwoMetrics);
    moves.see_if(two && !wish.is_of_two(), Sight::Spread);
    let ended = attempt
        .pays
        .iter()
        .any(|pay| pay.slice != NO_SLICE && state.slices[usize::from(pay.slice)].ended);
    moves.see_if(ended && attempt.begun, Sight::SlowCommit);
    moves.see_if(
        attempt.hour != state.hour && state.requests[request].asks > 1,
        Sight::RepeatInNextHour,
    );
}

fn give_back(config: &Config, state: &mut State, request: usize) -> Outcome {
    let amount = config.wishes[request].amounts[0];
    if config.rules.hold(Rule::LevelFloor) && sums::level(config, state) < i16::from(amount) {
        return Outcome::Refused([true, false]);
    }
    state.requests[request].event.present = true;
    if config.rules.hold(Rule::ReturnAfterLedger) {
        state.limits[0].owed_return += amount;
    }
    Outcome::Recorded
}

/// Writes down that a request was denied. Answers whether it is in the ledger, so that it was not.
pub fn write_denial(state: &mut State, request: usize) -> bool {
    let event = &mut state.requests[request].event;
    if event.present {
        return !event.denied;
    }
    (event.present, event.denied) = (true, true);
    false
}

/// Records the events of two attempts of different requests in one transaction.
pub fn record_both(moves: &mut Moves<'_>, state: &mut State, batch: [(usize, usize); 2]) -> [Outcome; 2] {
    let config = moves.config;
    let attempt = |state: &State, (request, number): (usize, usize)| state.requests[request].attempts[number];
    let new = batch.map(|(request, _)| !state.requests[request].event.present);
    if new.contains(&false) || sums_fit(config, state, batch.map(|one| attempt(state, one))) {
        return batch.map(|(request, number)| record(moves, state, request, number));
    }
    let alone = batch.map(|(request, number)| {
        let mut other = *state;
        record(&mut Moves::new(config), &mut other, request, number)
    });
    if config.rules.hold(Rule::BatchFallsBack) {
        let outcomes = batch.map(|(request, number)| record(moves, state, request, number));
        moves.see_if(
            alone == [Outcome::Recorded; 2] && outcomes.contains(&Outcome::Recorded),
            Sight::BatchFellBack,
        );
        return outcomes;
    }
    if alone.contains(&Outcome::Recorded) {
        state.broken |= REFUSED_WRONGLY;
    }
    [Outcome::Refused([true; 2]); 2]
}

/// Whether every slice takes the sum of what both charge to it.
fn sums_fit(config: &Config, state: &State, attempts: [Attempt; 2]) -> bool {
    let pays = || {
        attempts
            .iter()
            .flat_map(|attempt| attempt.pays.iter().map(|pay| (pay, attempt.begun)))
    };
    pays()
        .filter(|(pay, _)| pay.slice != NO_SLICE)
        .all(|(pay, begun)| {
            let sum = pays()
                .filter(|(other, _)| other.slice == pay.slice)
                .map(|(other, _)| other.amount)
                .sum();
            refusal(config, &state.slices[usize::from(pay.slice)], sum, begun).is_none()
        })
}
