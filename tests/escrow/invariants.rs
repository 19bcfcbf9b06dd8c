//! What has to hold in every state.

use std::fmt;

use crate::{
    config::{Config, Purpose},
    heal, ledger,
    state::{Lowering, State, Told},
    sums,
};

/// Something that has to hold in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// I0: what was allowed is within the highest limit that was in force.
    WithinLimit,
    /// I1: it is within what was granted.
    WithinGranted,
    /// I2: once every slice is settled, what was granted is what the ledger charged.
    NothingLeaks,
    /// I3: whoever was told no was not charged, and nothing of that is recorded later.
    NoMeansNo,
    /// I4: what a caller of a buffered metric was told is never refused.
    AnswersStand,
    /// Whoever was told yes is in the ledger.
    YesMeansYes,
    /// A request is counted once.
    CountedOnce,
    /// A commit in time is paid by its hold.
    HoldPays,
    /// What the ledger refuses did not fit.
    RefusedDoesNotFit,
    /// An account does not hold less than nothing.
    LevelNotNegative,
    /// Once a lowered limit was said to hold, nothing more is allowed beyond it.
    LoweredHolds,
    /// There is a way to full use of the limit, without any fault.
    FullUse,
}

/// All of them.
pub const ALL: &[Invariant] = &[
    Invariant::WithinLimit,
    Invariant::WithinGranted,
    Invariant::NothingLeaks,
    Invariant::NoMeansNo,
    Invariant::AnswersStand,
    Invariant::YesMeansYes,
    Invariant::CountedOnce,
    Invariant::HoldPays,
    Invariant::RefusedDoesNotFit,
    Invariant::LevelNotNegative,
    Invariant::LoweredHolds,
    Invariant::FullUse,
];

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithinLimit => "what was allowed is within the limit",
            Self::WithinGranted => "what was allowed is within what was granted",
            Self::NothingLeaks => "settling everything leaves granted what the ledger charged",
            Self::NoMeansNo => "whoever was told no was not charged",
            Self::AnswersStand => "what was answered is not refused later",
            Self::YesMeansYes => "whoever was told yes is in the ledger",
            Self::CountedOnce => "a request is counted once",
            Self::HoldPays => "a commit in time is paid by its hold",
            Self::RefusedDoesNotFit => "what the ledger refuses did not fit",
            Self::LevelNotNegative => "nobody holds less than nothing",
            Self::LoweredHolds => "a lowered limit holds once its caller was told",
            Self::FullUse => "there is a way to full use of the limit",
        })
    }
}

impl Invariant {
    /// Whether it holds in a state, of which `healed` is what it becomes where everything is settled.
    fn holds(self, config: &Config, state: &State, healed: &State) -> bool {
        let limits = || (0..config.limits.len()).filter(|limit| config.limits[*limit] > 0);
        match self {
            Self::WithinLimit => limits().all(|limit| {
                let most = if limit == 0 {
                    state.highest
                } else {
                    state.limits[limit].most
                };
                sums::allowed(config, state, limit) <= most
            }),
            Self::WithinGranted => limits().all(|limit| {
                let sum = sums::charged(config, state, limit)
                    + sums::held(config, state, limit)
                    + sums::answered(state, limit);
                sum <= state.limits[limit].granted
            }),
            Self::NothingLeaks => heal::adds_up(config, healed),
            Self::NoMeansNo => durable(config, state).all(|(request, _)| {
                let event = &request.event;
                request.told != Told::No || (event.charged == [0; 2] && (!event.present || event.denied))
            }),
            Self::AnswersStand => state.broken & ledger::ANSWER_BROKEN == 0,
            Self::YesMeansYes => durable(config, state).all(|(request, _)| {
                request.told != Told::Yes || (request.event.present && !request.event.denied)
            }),
            Self::CountedOnce => durable(config, state).all(|(request, wish)| {
                request.event.charged[0] + request.event.charged[1] + request.event.overrun <= wish.total()
            }),
            Self::HoldPays => state.broken & ledger::HOLD_PASSED == 0,
            Self::RefusedDoesNotFit => state.broken & ledger::REFUSED_WRONGLY == 0,
            Self::LevelNotNegative => sums::level(config, state) >= 0,
            Self::LoweredHolds => {
                let most = state.limits[0].most.max(state.base);
                state.lowering != Lowering::Done || sums::allowed(config, state, 0) <= most
            }
            Self::FullUse => heal::use_all(config, *healed),
        }
    }
}

/// The first of `watched` that a state breaks.
pub fn broken(config: &Config, state: &State, watched: &[Invariant]) -> Option<Invariant> {
    let healed = heal::heal(config, state);
    watched
        .iter()
        .copied()
        .find(|invariant| !invariant.holds(config, state, &healed))
}

fn durable<'s>(
    config: &'s Config,
    state: &'s State,
) -> impl Iterator<Item = (&'s crate::state::Request, &'s crate::config::Wish)> {
    let all = state.requests.iter().zip(config.wishes);
    all.filter(|(_, wish)| wish.purpose != Purpose::Buffered)
}
