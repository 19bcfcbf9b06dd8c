//! States that differ only in names are one.
//!
//! A step never asks for the number of a slice, a settler or a replica but to name it, and requests that want the
//! same are not told apart. So a state whose names are exchanged has the same future under other names, and one of
//! them stands for all. Which one is chosen by sorting. Where two parts cannot be told apart by what the sort looks
//! at, they may be sorted either way: then two states stand for one, which costs time and is never wrong.

use crate::{
    config::Config,
    state::{ATTEMPTS, DEAD, ENDED, Kind, NO_SLICE, REPLICAS, REQUESTS, SLICES, State},
    steps,
};

/// Whether states that differ only in names are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They are.
    Sorted,
    /// They are not: every name stays as it is, which makes a way that a reader can follow.
    Kept,
}

/// Frees the places of slices that are over, and replaces a state by the one that stands for it.
pub fn settle_names(config: &Config, state: &mut State, names: Names) {
    for place in 0..config.slices {
        if steps::is_over(config, state, place) {
            steps::forget(state, place);
        }
    }
    if names == Names::Kept {
        return;
    }
    if !state.redis_split {
        sort_replicas(config, state);
    }
    sort_requests(config, state);
    sort_slices(config, state);
    state.settlers[..config.settlers].sort_unstable_by_key(|settler| std::cmp::Reverse(settler.pack()));
}

/// What a replica has and does, as a sum in which no order shows.
fn rank_of_replica(config: &Config, state: &State, replica: u8) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut rank = 0_u64;
    for slice in &state.slices[..config.slices] {
        if matches!(slice.kind, Kind::Replica | Kind::Buffered) && slice.owner == replica {
            let mut nameless = *slice;
            nameless.owner = 0;
            rank = rank.wrapping_add(nameless.pack().wrapping_mul(SPREAD) >> 8);
        }
    }
    for request in &state.requests[..config.wishes.len()] {
        let mut phases = 0_u64;
        for attempt in &request.attempts {
            let here = attempt.is_at_replica() && attempt.replica == replica;
            phases = phases * 8 + if here { attempt.phase as u64 } else { 0 };
        }
        rank = rank.wrapping_add((phases + 64 * u64::from(request.asks)).wrapping_mul(SPREAD) >> 8);
    }
    rank
}

fn sort_replicas(config: &Config, state: &mut State) {
    if rank_of_replica(config, state, 0) < rank_of_replica(config, state, 1) {
        exchange_replicas(state);
    }
}

fn exchange_replicas(state: &mut State) {
    debug_assert_eq!(REPLICAS, 2, "two are exchanged");
    for slice in &mut state.slices {
        if matches!(slice.kind, Kind::Replica | Kind::Buffered) && slice.owner != DEAD {
            slice.owner = 1 - slice.owner;
        }
    }
    let attempts = state
        .requests
        .iter_mut()
        .flat_map(|request| &mut request.attempts);
    for attempt in attempts.filter(|attempt| attempt.is_at_replica()) {
        attempt.replica = 1 - attempt.replica;
    }
}

/// Requests that want the same stand beside each other in the configuration, and are sorted among themselves.
fn sort_requests(config: &Config, state: &mut State) {
    let mut from = 0;
    while from < config.wishes.len() {
        let same = config.wishes[from..]
            .iter()
            .take_while(|wish| **wish == config.wishes[from])
            .count();
        if same > 1 {
            state.requests[from..from + same].sort_by_key(|request| std::cmp::Reverse(request.rank()));
        }
        from += same;
    }
}

fn sort_slices(config: &Config, state: &mut State) {
    // Where each slice is mentioned tells equal ones apart.
    let mut mentions = [0_u64; SLICES];
    let mut bit = 0;
    for request in &state.requests[..config.wishes.len()] {
        let pays = request
            .attempts
            .iter()
            .flat_map(|attempt| attempt.pays.map(|pay| pay.slice));
        for slice in pays.chain([request.hold, request.answer, request.answer_copy]) {
            if let Some(mentions) = mentions.get_mut(usize::from(slice)) {
                *mentions |= 1 << bit;
            }
            bit += 1;
        }
    }
    for settler in &state.settlers {
        if let Some(mentions) = mentions.get_mut(usize::from(settler.slice)) {
            *mentions += (u64::from(settler.spent) + 1) << 40;
        }
    }
    let rank = |place: usize| (std::cmp::Reverse(state.slices[place].pack()), mentions[place]);
    let mut order = UNSORTED;
    if !order[..config.slices].is_sorted_by_key(|place| rank(*place)) {
        order[..config.slices].sort_by_key(|place| rank(*place));
        order_slices(state, order);
    }
}

const UNSORTED: [usize; SLICES] = [0, 1, 2, 3, 4, 5];

/// Puts slices into another order, and every mention of them with it.
fn order_slices(state: &mut State, order: [usize; SLICES]) {
    let mut names = [NO_SLICE; 8];
    names[usize::from(ENDED)] = ENDED;
    for (new, old) in (0..).zip(order) {
        names[old] = new;
    }
    let before = state.slices;
    state.slices = order.map(|old| before[old]);
    let name = |slice: &mut u8| *slice = names[usize::from(*slice)];
    for request in &mut state.requests {
        name(&mut request.hold);
        name(&mut request.answer);
        name(&mut request.answer_copy);
        for attempt in &mut request.attempts {
            for pay in &mut attempt.pays {
                name(&mut pay.slice);
            }
        }
    }
    for settler in &mut state.settlers {
        name(&mut settler.slice);
    }
}

/// A state under every name: of replicas, slices, requests that want the same, and settlers.
pub fn every_name(config: &Config, state: &State) -> Vec<State> {
    let mut found = vec![*state];
    let mut exchange = |exchanged: &dyn Fn(&mut State)| {
        for mut other in found.clone() {
            exchanged(&mut other);
            found.push(other);
        }
    };
    exchange(&exchange_replicas);
    if config.settlers == 2 {
        exchange(&|state| state.settlers.swap(0, 1));
    }
    // Exchanging neighbours, in rounds, gives every order.
    for round in (1..config.slices).rev() {
        for first in 0..round {
            exchange(&|state| {
                let mut order = UNSORTED;
                order.swap(first, first + 1);
                order_slices(state, order);
            });
        }
    }
    for round in (1..config.wishes.len()).rev() {
        for first in (0..round).filter(|first| config.wishes[*first] == config.wishes[first + 1]) {
            exchange(&|state| state.requests.swap(first, first + 1));
        }
    }
    found
}

const _: () = assert!(
    SLICES == 6 && ATTEMPTS == 2 && REQUESTS == 4,
    "the sums of bits above count with this"
);
