//! Crashes of replicas, and what may become of Redis.

use crate::{
    config::Hints,
    moves::Moves,
    sights::Sight,
    state::{DEAD, Kind, NO_ATTEMPT, NO_SLICE, Phase, REPLICAS, State},
};

/// A replica crashes, and another incarnation starts in its place, which knows nothing.
pub fn crash(moves: &mut Moves<'_>, from: &State) {
    if from.budget.crashes == 0 {
        return;
    }
    for replica in 0..REPLICAS {
        let mut state = *from;
        state.budget.crashes -= 1;
        for slice in &mut state.slices {
            let own =
                matches!(slice.kind, Kind::Replica | Kind::Buffered) && usize::from(slice.owner) == replica;
            if own {
                moves.see_if(slice.buffer > 0, Sight::SumLost);
                (slice.owner, slice.left, slice.buffer) = (DEAD, 0, 0);
                if slice.flights == 0 {
                    (slice.flush, slice.landed) = (0, false);
                }
            }
        }
        let attempts = state
            .requests
            .iter_mut()
            .flat_map(|request| &mut request.attempts);
        for attempt in
            attempts.filter(|attempt| attempt.is_at_replica() && usize::from(attempt.replica) == replica)
        {
            match attempt.phase {
                Phase::Working => *attempt = NO_ATTEMPT,
                Phase::Sent => (attempt.phase, attempt.replica) = (Phase::Orphan, 0),
                _ => {}
            }
        }
        moves.see(Sight::Crash);
        moves.go(
            state,
            "replica @ crashes, and starts anew with nothing in memory",
            &[replica],
        );
    }
}

/// Redis loses what it has, falls back to an earlier copy, or is two for a while.
pub fn redis(moves: &mut Moves<'_>, from: &State) {
    if moves.config.hints != Hints::Redis {
        return;
    }
    if from.budget.redis_faults > 0 {
        if !from.redis_copy {
            let mut state = copied(from);
            state.redis_copy = true;
            moves.go(state, "a copy of Redis is made", &[]);
            let mut state = copied(from);
            state.budget.redis_faults -= 1;
            (state.redis_copy, state.redis_split) = (true, true);
            moves.see(Sight::RedisSplit);
            moves.go(state, "Redis splits in two, and replica B uses the other", &[]);
        }
        let mut state = *from;
        state.budget.redis_faults -= 1;
        for slice in &mut state.slices {
            slice.left = 0;
        }
        for request in &mut state.requests {
            request.answer = NO_SLICE;
        }
        moves.see(Sight::RedisLost);
        moves.go(state, "Redis loses everything", &[]);
        if from.redis_copy && !from.redis_split {
            let mut state = *from;
            state.budget.redis_faults -= 1;
            for slice in &mut state.slices {
                slice.left = slice.copy;
            }
            for request in &mut state.requests {
                request.answer = request.answer_copy;
            }
            moves.see(Sight::RedisRolledBack);
            moves.go(without_copy(&state), "Redis falls back to its copy", &[]);
        }
    }
    if from.redis_split {
        moves.go(
            without_copy(from),
            "Redis is one again, and what the other half was told is lost",
            &[],
        );
    }
}

fn copied(from: &State) -> State {
    let mut state = *from;
    for slice in &mut state.slices {
        slice.copy = slice.left;
    }
    for request in &mut state.requests {
        request.answer_copy = request.answer;
    }
    state
}

fn without_copy(from: &State) -> State {
    let mut state = *from;
    for slice in &mut state.slices {
        slice.copy = 0;
    }
    for request in &mut state.requests {
        request.answer_copy = NO_SLICE;
    }
    (state.redis_copy, state.redis_split) = (false, false);
    state
}
