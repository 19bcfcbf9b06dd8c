//! The search: every state that can be reached, the nearest first.

use std::time::{Duration, Instant};

use crate::{
    config::Config,
    invariants::{self, Invariant},
    moves::{Moves, Step},
    pack::Shape,
    sights::Sights,
    state::State,
    steps::gather,
    symmetry::{Names, settle_names},
};

/// What a search found.
pub struct Report {
    /// States.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The most steps that it takes to reach one.
    pub depth: usize,
    /// What was come across.
    pub sights: Sights,
    /// How long it took.
    pub took: Duration,
    /// The words that one state takes.
    pub words: usize,
    /// What does not hold in some state, with the shortest way there where names were kept.
    pub broken: Option<(Invariant, Vec<Step>)>,
}

/// States in the order in which they were found, each once.
struct Found {
    shape: Shape,
    words: usize,
    /// In pieces, so that growing does not copy millions of states.
    pieces: Vec<Vec<u64>>,
    /// From which state each was found.
    parents: Vec<u32>,
    /// Where a state with a given hash stands, plus one; 0 where there is none.
    table: Vec<u32>,
}

/// States in one piece.
const PIECE: usize = 1 << 14;

impl Found {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            words: shape.words(),
            pieces: Vec::new(),
            parents: Vec::new(),
            table: vec![0; 1 << 12],
        }
    }

    fn words_of(&self, index: usize) -> &[u64] {
        let at = index % PIECE * self.words;
        &self.pieces[index / PIECE][at..at + self.words]
    }

    fn state(&self, index: usize) -> State {
        self.shape.read(self.words_of(index))
    }

    /// Where the state with these words stands in the table, or would.
    fn slot(&self, words: &[u64]) -> usize {
        let mut hash = 0_u64;
        for word in words {
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        hash ^= hash >> 29;
        let mask = self.table.len() - 1;
        let mut slot = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) as usize & mask;
        while self.table[slot] != 0 && self.words_of(self.table[slot] as usize - 1) != words {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Adds a state, and answers whether it is new.
    fn add(&mut self, state: &State, parent: usize) -> bool {
        let (words, length) = self.shape.write(state);
        debug_assert_eq!(length, self.words, "every state of a configuration is as long");
        let words = &words[..length];
        let slot = self.slot(words);
        if self.table[slot] != 0 {
            return false;
        }
        if self.parents.len().is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE * self.words));
        }
        let piece = self.pieces.last_mut().expect("one was added");
        piece.extend_from_slice(words);
        self.parents
            .push(u32::try_from(parent).expect("fewer states than 32 bits count"));
        self.table[slot] = u32::try_from(self.parents.len()).expect("fewer states than 32 bits count");
        if self.parents.len() * 2 > self.table.len() {
            self.grow();
        }
        true
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for index in 0..self.parents.len() {
            let slot = self.slot(self.words_of(index));
            self.table[slot] = u32::try_from(index + 1).expect("fewer states than 32 bits count");
        }
    }

    /// The steps that lead to a state, where names were kept.
    fn way_to(&self, config: &Config, index: usize) -> Vec<Step> {
        let mut way = vec![index];
        while let Some(last) = way.last().filter(|last| **last > 0) {
            way.push(self.parents[*last] as usize);
        }
        way.reverse();
        way.windows(2)
            .map(|pair| self.step_between(config, pair[0], pair[1]))
            .collect()
    }

    fn step_between(&self, config: &Config, from: usize, to: usize) -> Step {
        let mut moves = Moves::new(config);
        gather(&mut moves, &self.state(from));
        let leads_there = |(_, state): &mut (Step, State)| {
            settle_names(config, state, Names::Kept);
            let (words, length) = self.shape.write(state);
            words[..length] == *self.words_of(to)
        };
        let found = moves
            .found
            .iter_mut()
            .find_map(|one| leads_there(one).then_some(one.0));
        found.expect("a state was found from its parent")
    }
}

/// Every state of a world.
pub fn states(config: &Config, names: Names) -> Vec<State> {
    let (_, found) = explore(config, &[], names);
    (0..found.parents.len()).map(|index| found.state(index)).collect()
}

/// Searches a world until one of the `watched` does not hold, or to its end.
pub fn search(config: &Config, watched: &[Invariant], names: Names) -> Report {
    explore(config, watched, names).0
}

fn explore(config: &Config, watched: &[Invariant], names: Names) -> (Report, Found) {
    let began = Instant::now();
    let mut found = Found::new(config.shape());
    let mut first = config.first();
    settle_names(config, &mut first, names);
    found.add(&first, 0);
    let mut moves = Moves::new(config);
    let mut report = Report {
        states: 0,
        steps: 0,
        depth: 0,
        sights: Sights::default(),
        took: Duration::ZERO,
        words: found.words,
        broken: invariants::broken(config, &first, watched).map(|broken| (broken, Vec::new())),
    };
    let (mut next, mut level_end) = (0, 1);
    while next < found.parents.len() && report.broken.is_none() {
        if next == level_end {
            report.depth += 1;
            level_end = found.parents.len();
        }
        let from = found.state(next);
        moves.found.clear();
        gather(&mut moves, &from);
        report.steps += moves.found.len();
        for (_, to) in &mut moves.found {
            settle_names(config, to, names);
            if !found.add(to, next) {
                continue;
            }
            if let Some(broken) = invariants::broken(config, to, watched) {
                let last = found.parents.len() - 1;
                let way = if names == Names::Kept {
                    found.way_to(config, last)
                } else {
                    Vec::new()
                };
                report.broken = Some((broken, way));
                break;
            }
        }
        next += 1;
    }
    report.states = found.parents.len();
    report.sights = moves.sights;
    report.took = began.elapsed();
    (report, found)
}
