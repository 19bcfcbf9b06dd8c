//! How large a world is searched, and what may happen in it.

use crate::{
    pack::Shape,
    rules::{Rule, Rules},
    sights::Sight,
    state::{Budget, Kind, LIMITS, REQUESTS, SLICES, State},
};

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Units of a durable metric, answered after the ledger has them.
    Consume,
    /// Units that are held, and of which some are committed or not.
    Hold {
        /// How much is committed.
        commit: u8,
    },
    /// Units of a buffered metric, answered before the ledger has them.
    Buffered,
    /// To give back units of a level.
    Return,
}

/// A request that somebody makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it wants.
    pub purpose: Purpose,
    /// How much of each metric; 0 where it is of one metric only.
    pub amounts: [u8; 2],
}

/// What replicas know of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// What is left of their own, in memory.
    Memory,
    /// What is left of pooled ones, in Redis.
    Redis,
    /// Anything: they charge any slice that ever was, at any time. Whatever memory and Redis may say is part of
    /// this, so a limit that is kept here is kept without them.
    Anything,
}

/// A world with its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What it is called.
    pub name: &'static str,
    /// What the limits are in the beginning; 0 where there are fewer.
    pub limits: [u8; LIMITS],
    /// The limits are of one metric: the day, this hour, the next.
    pub hours: bool,
    /// The requests that come, in any order. Equal ones stand beside each other.
    pub wishes: &'static [Wish],
    /// How often each is sent at most.
    pub asks: u8,
    /// A caller that was told no may ask again.
    pub asks_after_no: bool,
    /// A charge may reach the ledger twice.
    pub duplicates: bool,
    /// Slices at a time.
    pub slices: usize,
    /// The caps that slices may have, where a request does not need more.
    pub caps: &'static [u8],
    /// What replicas know of slices.
    pub hints: Hints,
    /// An amount may be spread over two slices.
    pub spread: bool,
    /// Two charges may share one transaction.
    pub batches: bool,
    /// Settlers.
    pub settlers: usize,
    /// Crashes of replicas.
    pub crashes: u8,
    /// Faults of Redis.
    pub redis_faults: u8,
    /// What the first limit is lowered to; 0 where it is not.
    pub lower_to: u8,
    /// What it is raised to; 0 where it is not.
    pub raise_to: u8,
    /// Units that are recorded without asking.
    pub direct: u8,
    /// Events may be corrected upwards.
    pub corrections: bool,
    /// Events may be taken back.
    pub voids: bool,
    /// Hard ends pass, and rows are deleted.
    pub ends: bool,
    /// Time passes between the beginning of a transaction and its end.
    pub slow_commits: bool,
    /// The rules that hold.
    pub rules: Rules,
    /// Fewer states than this, and something is wrong with the model.
    pub states_min: usize,
    /// What has to happen somewhere.
    pub sights: &'static [Sight],
}

/// Nothing happens here; configurations say what does.
pub const EMPTY: Config = Config {
    name: "",
    limits: [2, 0, 0],
    hours: false,
    wishes: &[],
    asks: 2,
    asks_after_no: false,
    duplicates: false,
    slices: 3,
    caps: &[1],
    hints: Hints::Memory,
    spread: false,
    batches: false,
    settlers: 1,
    crashes: 0,
    redis_faults: 0,
    lower_to: 0,
    raise_to: 0,
    direct: 0,
    corrections: false,
    voids: false,
    ends: false,
    slow_commits: false,
    rules: Rules::ALL,
    states_min: 0,
    sights: &[],
};

/// A request for units of a durable metric.
pub const fn consume(amount: u8) -> Wish {
    Wish {
        purpose: Purpose::Consume,
        amounts: [amount, 0],
    }
}

/// A request for units of two metrics.
pub const fn consume_both(first: u8, second: u8) -> Wish {
    Wish {
        purpose: Purpose::Consume,
        amounts: [first, second],
    }
}

/// A hold of which this much is committed.
pub const fn hold(amount: u8, commit: u8) -> Wish {
    Wish {
        purpose: Purpose::Hold { commit },
        amounts: [amount, 0],
    }
}

/// A request for units of a buffered metric.
pub const fn buffered(amount: u8) -> Wish {
    Wish {
        purpose: Purpose::Buffered,
        amounts: [amount, 0],
    }
}

/// A request that gives back.
pub const fn give_back(amount: u8) -> Wish {
    Wish {
        purpose: Purpose::Return,
        amounts: [amount, 0],
    }
}

impl Wish {
    /// How much its event is of, all parts together.
    pub fn total(&self) -> u8 {
        match self.purpose {
            Purpose::Hold { commit } => commit,
            _ => self.amounts[0] + self.amounts[1],
        }
    }

    /// Whether it is of two metrics.
    pub fn is_of_two(&self) -> bool {
        self.amounts[1] > 0
    }
}

impl Config {
    /// The same world without one of the rules.
    pub const fn without(self, rule: Rule) -> Self {
        Self {
            rules: self.rules.without(rule),
            ..self
        }
    }

    /// What of a state is written.
    pub fn shape(&self) -> Shape {
        assert!(self.wishes.len() <= REQUESTS, "more requests than a state has");
        assert!(self.slices < SLICES, "more slices than a state has");
        Shape {
            slices: self.slices,
            requests: self.wishes.len(),
            limits: self
                .limits
                .iter()
                .rposition(|most| *most > 0)
                .map_or(0, |last| last + 1),
        }
    }

    /// The first state.
    pub fn first(&self) -> State {
        let mut state = State {
            budget: Budget {
                crashes: self.crashes,
                redis_faults: self.redis_faults,
                direct: self.direct,
                lower: self.lower_to > 0,
                raise: self.raise_to > 0,
            },
            highest: self.limits[0],
            ..State::default()
        };
        for (limit, most) in state.limits.iter_mut().zip(self.limits) {
            limit.most = most;
        }
        state
    }

    /// The limits that a part of a request counts against, a bit each.
    pub fn limits_of(&self, part: usize, hour: u8) -> u8 {
        if self.hours {
            0b001 | (0b010 << hour)
        } else {
            1 << part
        }
    }

    /// The kind of slice that a replica carves for itself.
    pub fn kind(&self) -> Kind {
        match self.hints {
            Hints::Memory => Kind::Replica,
            Hints::Redis | Hints::Anything => Kind::Pool,
        }
    }

    /// Whether somebody wants this.
    pub fn has(&self, purpose: fn(&Purpose) -> bool) -> bool {
        self.wishes.iter().any(|wish| purpose(&wish.purpose))
    }
}
