//! Callers, their attempts, and what they are told.

use super::consume;
use crate::{
    config::{Config, Purpose},
    ledger::{self, Outcome},
    moves::{Moves, Step},
    rules::Rule,
    sights::Sight,
    state::{ATTEMPTS, Attempt, NO_ATTEMPT, NO_PAY, NO_SLICE, Phase, REPLICAS, State, Told},
};

/// The caller sends its request, or sends it again because no answer came.
pub fn ask(moves: &mut Moves<'_>, from: &State, request: usize) {
    let config = moves.config;
    let of = &from.requests[request];
    let wish = &config.wishes[request];
    let open = of.told == Told::Nothing || (of.told == Told::No && config.asks_after_no);
    // The place of the second attempt may be taken by the duplicate of a message of the first.
    if of.asks >= config.asks || !open || of.attempts[usize::from(of.asks)] != NO_ATTEMPT {
        return;
    }
    if matches!(wish.purpose, Purpose::Hold { .. }) && of.held != Told::Yes {
        return;
    }
    for replica in 0..REPLICAS {
        let mut state = *from;
        let to = &mut state.requests[request];
        let number = usize::from(to.asks);
        to.asks += 1;
        moves.see_if(to.told == Told::No, Sight::AskedAfterNo);
        to.told = Told::Nothing;
        if number > 0 {
            moves.see_if(
                matches!(to.attempts[0].phase, Phase::Working | Phase::Sent),
                Sight::Hedged,
            );
        }
        to.attempts[number] = Attempt {
            phase: Phase::Working,
            replica: u8::try_from(replica).unwrap_or_default(),
            hour: from.hour,
            ..NO_ATTEMPT
        };
        let text = match (number, wish.purpose) {
            (0, Purpose::Hold { .. }) => "the caller commits hold # at replica @",
            (0, _) => "the caller sends request # to replica @",
            (..) if of.told == Told::No => "the caller sends request # once more, to replica @",
            (_, Purpose::Hold { .. }) => "no answer has come: the caller commits hold # again, at replica @",
            (..) => "no answer has come: the caller sends request # again, to replica @",
        };
        moves.go(state, text, &[request, replica]);
    }
}

/// The attempt ends with this answer, which goes to the caller if it still listens.
pub fn answer(config: &Config, state: &mut State, request: usize, number: usize, yes: bool) {
    let of = &mut state.requests[request];
    let latest = number + 1 == usize::from(of.asks) || !config.rules.hold(Rule::LatestAnswerCounts);
    let listens = of.told == Told::Nothing && latest;
    of.attempts[number] = Attempt {
        phase: match (listens, yes) {
            (false, _) => Phase::Idle,
            (true, true) => Phase::Yes,
            (true, false) => Phase::No,
        },
        ..NO_ATTEMPT
    };
}

/// Adds a step after which an answer may be on its way. An answer that comes late changes nothing that one at once
/// does not, so it is heard at once or never. Only where callers take any attempt's answer does its way matter.
pub fn go(moves: &mut Moves<'_>, state: State, request: usize, step: Step) {
    let of = &state.requests[request];
    let phases = of.attempts.map(|attempt| attempt.phase);
    let told = if phases.contains(&Phase::Yes) {
        Told::Yes
    } else {
        Told::No
    };
    if !(told == Told::Yes || phases.contains(&Phase::No))
        || !moves.config.rules.hold(Rule::LatestAnswerCounts)
    {
        moves.go_step(state, step);
        return;
    }
    let heard = if told == Told::Yes {
        "; its caller is told yes"
    } else {
        "; its caller is told no"
    };
    moves.go_heard(told_to(&state, request, told), step, heard);
    if of.asks < moves.config.asks {
        moves.see(Sight::AnswerLost);
        moves.go_heard(
            told_to(&state, request, Told::Nothing),
            step,
            "; the answer is lost",
        );
    }
}

fn told_to(from: &State, request: usize, told: Told) -> State {
    let mut state = *from;
    let of = &mut state.requests[request];
    of.told = told;
    for attempt in &mut of.attempts {
        if matches!(attempt.phase, Phase::Yes | Phase::No) {
            *attempt = NO_ATTEMPT;
        }
    }
    state
}

/// An answer that was on its way reaches the caller.
pub fn tell(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    match from.requests[request].attempts[number].phase {
        Phase::Yes => {
            let text = "the caller of request # is told yes by attempt #";
            moves.go(told_to(from, request, Told::Yes), text, &[request, number]);
        }
        Phase::No => {
            let text = "the caller of request # is told no by attempt #";
            moves.go(told_to(from, request, Told::No), text, &[request, number]);
        }
        _ => {}
    }
}

/// Whether the charge of an attempt is on its way.
fn under_way(attempt: &Attempt) -> bool {
    matches!(attempt.phase, Phase::Sent | Phase::Orphan)
}

/// A charge reaches the ledger.
pub fn land(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    let config = moves.config;
    let attempt = from.requests[request].attempts[number];
    if !under_way(&attempt) {
        return;
    }
    if config.slow_commits && !attempt.begun {
        begin(moves, from, request, number);
        return;
    }
    let mut state = *from;
    let outcome = ledger::record(moves, &mut state, request, number);
    moves.see_if(
        attempt.phase == Phase::Orphan && outcome == Outcome::Recorded,
        Sight::OrphanCharged,
    );
    learn(moves, &mut state, request, number, outcome);
    let text = match outcome {
        Outcome::Recorded => "the ledger records attempt # of request #",
        Outcome::Known => "the ledger knows the event already that attempt # of request # brings",
        Outcome::Denied => "the ledger knows that the request was denied of which attempt # comes: request #",
        Outcome::Refused(_) => "the ledger refuses attempt # of request #",
    };
    go(moves, state, request, Step::new(text, &[number, request]));
}

fn begin(moves: &mut Moves<'_>, from: &State, request: usize, number: usize) {
    let config = moves.config;
    let mut state = *from;
    let attempt = &mut state.requests[request].attempts[number];
    let paying = attempt.pays.iter().filter(|pay| pay.slice != NO_SLICE);
    let ended = paying
        .clone()
        .any(|pay| from.slices[usize::from(pay.slice)].ended);
    if ended && config.rules.hold(Rule::EndRefuses) {
        let outcome = ledger::record(moves, &mut state, request, number);
        learn(moves, &mut state, request, number, outcome);
        let text = "the ledger answers attempt # of request #, whose slice is past its end";
        go(moves, state, request, Step::new(text, &[number, request]));
        return;
    }
    attempt.begun = true;
    moves.go(
        state,
        "the ledger's transaction for attempt # of request # begins",
        &[number, request],
    );
}

/// A charge is delivered twice: the second time to nobody's account.
pub fn duplicate(moves: &mut Moves<'_>, from: &State, request: usize) {
    let of = &from.requests[request];
    if moves.config.duplicates
        && of.asks == 1
        && of.attempts[0].phase == Phase::Sent
        && of.attempts[1] == NO_ATTEMPT
    {
        let mut state = *from;
        state.requests[request].attempts[1] = Attempt {
            phase: Phase::Orphan,
            replica: 0,
            ..of.attempts[0]
        };
        moves.see(Sight::Duplicated);
        moves.go(state, "the charge of request # is on its way twice", &[request]);
    }
}

/// Two charges reach the ledger in one batch.
pub fn land_both(moves: &mut Moves<'_>, from: &State) {
    let places = || {
        (0..moves.config.wishes.len()).flat_map(|request| (0..ATTEMPTS).map(move |number| (request, number)))
    };
    let ways: Vec<(usize, usize)> = places()
        .filter(|(request, number)| under_way(&from.requests[*request].attempts[*number]))
        .collect();
    for first in &ways {
        for second in ways.iter().filter(|second| second.0 != first.0) {
            let mut state = *from;
            moves.see(Sight::Batch);
            let batch = [*first, *second];
            let outcomes = ledger::record_both(moves, &mut state, batch);
            for ((request, number), outcome) in batch.into_iter().zip(outcomes) {
                learn(moves, &mut state, request, number, outcome);
            }
            let taken = outcomes.map(|outcome| usize::from(outcome == Outcome::Recorded));
            let text = "one batch of requests # and # reaches the ledger, which records % and %";
            let step = Step::new(text, &[first.0, second.0, taken[0], taken[1]]);
            go_both(moves, &state, batch.map(|one| one.0), step);
        }
    }
}

/// Adds a step after which answers to two requests may be on their way.
fn go_both(moves: &mut Moves<'_>, state: &State, requests: [usize; 2], step: Step) {
    let before = moves.found.len();
    go(moves, *state, requests[0], step);
    for (step, one) in moves.found.split_off(before) {
        go(moves, one, requests[1], step);
    }
}

/// What whoever waits makes of the ledger's word.
fn learn(moves: &mut Moves<'_>, state: &mut State, request: usize, number: usize, outcome: Outcome) {
    let config = moves.config;
    let attempt = state.requests[request].attempts[number];
    if attempt.phase == Phase::Orphan {
        state.requests[request].attempts[number] = NO_ATTEMPT;
        return;
    }
    match outcome {
        Outcome::Recorded => answer(config, state, request, number, true),
        Outcome::Known => {
            moves.see(Sight::RepeatFoundEvent);
            answer(config, state, request, number, true);
        }
        Outcome::Denied => {
            let given_back = config.wishes[request].purpose == Purpose::Return;
            moves.see(if given_back {
                Sight::ReturnMetTombstone
            } else {
                Sight::TombstoneMet
            });
            answer(config, state, request, number, false);
        }
        Outcome::Refused(_) if config.wishes[request].purpose == Purpose::Return => {
            moves.see(Sight::ReturnRefused);
            deny(moves, state, request, number, Rule::RefusedReturnIsWritten);
        }
        Outcome::Refused(refused) => {
            for (pay, refused) in attempt.pays.iter().zip(refused) {
                consume::forget_or_give_back(config, state, attempt.replica, *pay, refused);
            }
            if state.requests[request].answer != NO_SLICE || state.requests[request].answer_copy != NO_SLICE {
                consume::forget_answer(state, request, attempt.replica);
            }
            let again = &mut state.requests[request].attempts[number];
            (again.phase, again.pays, again.begun) = (Phase::Working, [NO_PAY; 2], false);
            let is_hold = matches!(config.wishes[request].purpose, Purpose::Hold { .. });
            // The hold, where it pays, is the first that does.
            again.late |= is_hold && (refused[0] || !config.rules.hold(Rule::HoldPaysFirst));
        }
    }
}

/// Says no, after it was written down that the request is denied where this may be a repeat. Where the ledger has
/// the request, the answer is yes.
pub fn deny(moves: &mut Moves<'_>, state: &mut State, request: usize, number: usize, rule: Rule) {
    let config = moves.config;
    moves.see(Sight::Denied);
    let written = number > 0 && config.rules.hold(rule);
    let recorded = written && ledger::write_denial(state, request);
    moves.see_if(
        written,
        if recorded {
            Sight::DenialFoundEvent
        } else {
            Sight::Tombstone
        },
    );
    answer(config, state, request, number, recorded);
}
