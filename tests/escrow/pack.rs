//! States as few words, so that millions of them fit into memory.

use crate::state::{
    Attempt, Budget, Event, Kind, LIMITS, Limit, Lowering, Pay, Phase, REQUESTS, Request, SLICES, Settler,
    Slice, Stage, State, Told,
};

/// The words of the largest state.
const WORDS: usize = 11;

const KINDS: [Kind; 6] = [
    Kind::Free,
    Kind::Pool,
    Kind::Replica,
    Kind::Buffered,
    Kind::Hold,
    Kind::Extra,
];
const STAGES: [Stage; 3] = [Stage::Open, Stage::Closing, Stage::Sealed];
const TOLDS: [Told; 3] = [Told::Nothing, Told::Yes, Told::No];
const PHASES: [Phase; 6] = [
    Phase::Idle,
    Phase::Working,
    Phase::Sent,
    Phase::Orphan,
    Phase::Yes,
    Phase::No,
];
const LOWERINGS: [Lowering; 3] = [Lowering::No, Lowering::Set, Lowering::Done];

/// Writes fields into one word, the first one lowest. A value that does not fit is a mistake of the model, and is
/// not cut.
#[derive(Default)]
struct Word {
    bits: u64,
    used: u32,
}

impl Word {
    fn push(&mut self, value: u8, bits: u32) -> &mut Self {
        assert!(
            u32::from(value) >> bits == 0,
            "{value} does not fit into {bits} bits"
        );
        self.bits |= u64::from(value) << self.used;
        self.used += bits;
        self
    }

    fn flag(&mut self, value: bool) -> &mut Self {
        self.push(value.into(), 1)
    }
}

/// Reads fields out of one word.
struct Fields(u64);

impl Fields {
    fn pull(&mut self, bits: u32) -> u8 {
        let value = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        u8::try_from(value).expect("a field has eight bits at most")
    }

    fn index(&mut self, bits: u32) -> usize {
        self.pull(bits).into()
    }

    fn flag(&mut self) -> bool {
        self.pull(1) == 1
    }
}

impl Slice {
    const BITS: u32 = 42;

    /// All of it; a free place is 0.
    pub fn pack(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.kind as u8, 3).push(self.stage as u8, 2);
        word.push(self.cap, 3)
            .push(self.charge, 3)
            .push(self.limits, 3)
            .push(self.owner, 2);
        word.flag(self.old)
            .flag(self.row)
            .push(self.spent, 4)
            .flag(self.sealed)
            .flag(self.ended);
        word.push(self.left, 3).push(self.copy, 3);
        word.push(self.answered, 3)
            .push(self.buffer, 3)
            .push(self.flush, 3)
            .push(self.flights, 2);
        word.flag(self.landed);
        word.bits
    }

    fn unpack(word: u64) -> Self {
        let mut word = Fields(word);
        Self {
            kind: KINDS[word.index(3)],
            stage: STAGES[word.index(2)],
            cap: word.pull(3),
            charge: word.pull(3),
            limits: word.pull(3),
            owner: word.pull(2),
            old: word.flag(),
            row: word.flag(),
            spent: word.pull(4),
            sealed: word.flag(),
            ended: word.flag(),
            left: word.pull(3),
            copy: word.pull(3),
            answered: word.pull(3),
            buffer: word.pull(3),
            flush: word.pull(3),
            flights: word.pull(2),
            landed: word.flag(),
        }
    }
}

impl Attempt {
    const BITS: u32 = 19;

    fn pack(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.phase as u8, 3)
            .push(self.replica, 1)
            .push(self.hour, 1);
        word.flag(self.late).flag(self.begun);
        for pay in &self.pays {
            word.push(pay.slice, 3).push(pay.amount, 3);
        }
        word.bits
    }

    fn unpack(word: u64) -> Self {
        let mut word = Fields(word);
        Self {
            phase: PHASES[word.index(3)],
            replica: word.pull(1),
            hour: word.pull(1),
            late: word.flag(),
            begun: word.flag(),
            pays: [(); 2].map(|()| Pay {
                slice: word.pull(3),
                amount: word.pull(3),
            }),
        }
    }
}

impl Request {
    const BITS: u32 = 36;

    /// All of it but its attempts.
    fn pack(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.asks, 2)
            .push(self.told as u8, 2)
            .push(self.reserves, 2);
        word.flag(self.reserving).flag(self.reserving_older);
        word.push(self.held as u8, 2)
            .push(self.hold, 3)
            .push(self.hour, 1);
        let event = &self.event;
        word.flag(event.present).flag(event.denied);
        word.push(event.charged[0], 4)
            .push(event.charged[1], 4)
            .push(event.overrun, 3);
        word.push(event.hour, 1).flag(event.voided).flag(event.corrected);
        word.push(self.answer, 3).push(self.answer_copy, 3);
        word.bits
    }

    fn unpack(word: u64, attempts: [Attempt; 2]) -> Self {
        let mut word = Fields(word);
        Self {
            asks: word.pull(2),
            told: TOLDS[word.index(2)],
            reserves: word.pull(2),
            reserving: word.flag(),
            reserving_older: word.flag(),
            held: TOLDS[word.index(2)],
            hold: word.pull(3),
            hour: word.pull(1),
            event: Event {
                present: word.flag(),
                denied: word.flag(),
                charged: [word.pull(4), word.pull(4)],
                overrun: word.pull(3),
                hour: word.pull(1),
                voided: word.flag(),
                corrected: word.flag(),
            },
            answer: word.pull(3),
            answer_copy: word.pull(3),
            attempts,
        }
    }

    /// What tells requests apart apart from the slices that they name, whose numbers mean nothing.
    pub fn rank(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.asks, 2)
            .push(self.told as u8, 2)
            .push(self.held as u8, 2);
        for attempt in &self.attempts {
            word.push(attempt.phase as u8, 3)
                .push(attempt.replica, 1)
                .flag(attempt.late);
            word.push(attempt.pays[0].amount, 3)
                .push(attempt.pays[1].amount, 3);
        }
        word.push(self.event.charged[0], 4)
            .flag(self.event.present)
            .flag(self.event.denied);
        word.push(self.event.overrun, 3)
            .push(self.event.hour, 1)
            .flag(self.event.voided)
            .flag(self.event.corrected);
        word.push(self.reserves, 2)
            .push(self.hour, 1)
            .flag(self.reserving)
            .flag(self.reserving_older);
        word.bits
    }
}

impl Settler {
    const BITS: u32 = 11;

    /// All of it.
    pub fn pack(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.slice, 3).push(self.spent, 4).push(self.granted, 4);
        word.bits
    }

    fn unpack(word: u64) -> Self {
        let mut word = Fields(word);
        Self {
            slice: word.pull(3),
            spent: word.pull(4),
            granted: word.pull(4),
        }
    }
}

impl Limit {
    const BITS: u32 = 23;

    fn pack(&self) -> u64 {
        let mut word = Word::default();
        word.push(self.most, 3)
            .push(self.granted, 4)
            .push(self.overrun, 4)
            .push(self.returned, 3);
        word.push(self.owed_overrun, 3)
            .push(self.owed_return, 3)
            .push(self.flushed, 3);
        word.bits
    }

    fn unpack(word: u64) -> Self {
        let mut word = Fields(word);
        Self {
            most: word.pull(3),
            granted: word.pull(4),
            overrun: word.pull(4),
            returned: word.pull(3),
            owed_overrun: word.pull(3),
            owed_return: word.pull(3),
            flushed: word.pull(3),
        }
    }
}

const REST_BITS: u32 = 25;

fn pack_rest(state: &State) -> u64 {
    let mut word = Word::default();
    let budget = &state.budget;
    word.push(budget.crashes, 2)
        .push(budget.redis_faults, 2)
        .push(budget.direct, 2);
    word.flag(budget.lower).flag(budget.raise);
    word.flag(state.redis_copy)
        .flag(state.redis_split)
        .push(state.lowering as u8, 2);
    word.push(state.base, 3)
        .push(state.highest, 3)
        .push(state.hour, 1)
        .push(state.broken, 5);
    word.flag(state.told_twice);
    word.bits
}

/// A state in words.
pub type Packed = ([u64; WORDS], usize);

struct Stream {
    words: [u64; WORDS],
    used: usize,
}

impl Stream {
    fn push(&mut self, value: u64, bits: u32) {
        let (word, offset) = (self.used / 64, self.used % 64);
        self.words[word] |= value << offset;
        let over = offset + bits as usize;
        if over > 64 {
            self.words[word + 1] = value >> (64 - offset);
        }
        self.used += bits as usize;
    }
}

struct Source<'w> {
    words: &'w [u64],
    used: usize,
}

impl Source<'_> {
    fn pull(&mut self, bits: u32) -> u64 {
        let (word, offset) = (self.used / 64, self.used % 64);
        let mut value = self.words[word] >> offset;
        if offset + bits as usize > 64 {
            value |= self.words[word + 1] << (64 - offset);
        }
        self.used += bits as usize;
        value & ((1 << bits) - 1)
    }
}

/// How many of what a state has are written; the others are as they were in the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Slices.
    pub slices: usize,
    /// Requests.
    pub requests: usize,
    /// Limits.
    pub limits: usize,
}

impl Shape {
    /// How many words a state has.
    pub fn words(self) -> usize {
        self.write(&State::default()).1
    }

    /// Writes a state.
    pub fn write(self, state: &State) -> Packed {
        let mut stream = Stream {
            words: [0; WORDS],
            used: 0,
        };
        for slice in &state.slices[..self.slices] {
            stream.push(slice.pack(), Slice::BITS);
        }
        for request in &state.requests[..self.requests] {
            stream.push(request.pack(), Request::BITS);
            for attempt in &request.attempts {
                stream.push(attempt.pack(), Attempt::BITS);
            }
        }
        for limit in &state.limits[..self.limits] {
            stream.push(limit.pack(), Limit::BITS);
        }
        for settler in &state.settlers {
            stream.push(settler.pack(), Settler::BITS);
        }
        stream.push(pack_rest(state), REST_BITS);
        (stream.words, stream.used.div_ceil(64))
    }

    /// Reads a state.
    pub fn read(self, words: &[u64]) -> State {
        let mut source = Source { words, used: 0 };
        let mut state = State::default();
        for slice in &mut state.slices[..self.slices] {
            *slice = Slice::unpack(source.pull(Slice::BITS));
        }
        for request in &mut state.requests[..self.requests] {
            let rest = source.pull(Request::BITS);
            let attempts = [(); 2].map(|()| Attempt::unpack(source.pull(Attempt::BITS)));
            *request = Request::unpack(rest, attempts);
        }
        for limit in &mut state.limits[..self.limits] {
            *limit = Limit::unpack(source.pull(Limit::BITS));
        }
        for settler in &mut state.settlers {
            *settler = Settler::unpack(source.pull(Settler::BITS));
        }
        let mut rest = Fields(source.pull(REST_BITS));
        state.budget = Budget {
            crashes: rest.pull(2),
            redis_faults: rest.pull(2),
            direct: rest.pull(2),
            lower: rest.flag(),
            raise: rest.flag(),
        };
        state.redis_copy = rest.flag();
        state.redis_split = rest.flag();
        state.lowering = LOWERINGS[rest.index(2)];
        state.base = rest.pull(3);
        state.highest = rest.pull(3);
        state.hour = rest.pull(1);
        state.broken = rest.pull(5);
        state.told_twice = rest.flag();
        state
    }
}

const _: () = assert!(
    (SLICES * Slice::BITS as usize
        + REQUESTS * (Request::BITS + 2 * Attempt::BITS) as usize
        + LIMITS * Limit::BITS as usize
        + 2 * Settler::BITS as usize
        + REST_BITS as usize)
        <= 64 * WORDS,
    "the largest state fits"
);
