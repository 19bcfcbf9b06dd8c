//! Every step that the world can take.

mod answer;
mod buffered;
mod consume;
mod direct;
mod faults;
mod hold;
mod settle;

pub use self::{
    buffered::arrive,
    settle::{forget, is_over},
};
use crate::{
    config::Purpose,
    moves::Moves,
    state::{ATTEMPTS, State},
};

/// Gathers every step that a state allows.
pub fn gather(moves: &mut Moves<'_>, from: &State) {
    let config = moves.config;
    for (request, wish) in config.wishes.iter().enumerate() {
        match wish.purpose {
            Purpose::Consume => answer::ask(moves, from, request),
            Purpose::Hold { .. } => {
                hold::reserve(moves, from, request);
                answer::ask(moves, from, request);
            }
            Purpose::Return => answer::ask(moves, from, request),
            Purpose::Buffered => buffered::ask(moves, from, request),
        }
        answer::duplicate(moves, from, request);
        for number in 0..ATTEMPTS {
            match wish.purpose {
                Purpose::Consume => consume::work(moves, from, request, number),
                Purpose::Hold { .. } => hold::work(moves, from, request, number),
                Purpose::Return => direct::give_back(moves, from, request, number),
                Purpose::Buffered => {}
            }
            answer::land(moves, from, request, number);
            answer::tell(moves, from, request, number);
        }
    }
    if config.batches {
        answer::land_both(moves, from);
    }
    settle::settle(moves, from);
    settle::time(moves, from);
    buffered::flush(moves, from);
    direct::direct(moves, from);
    direct::tell_windows(moves, from);
    direct::change_limit(moves, from);
    faults::crash(moves, from);
    faults::redis(moves, from);
}
