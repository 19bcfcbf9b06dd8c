//! What may happen next in a state: every step, with the state that it leads to.

use std::fmt;

use crate::{
    config::Config,
    sights::{Sight, Sights},
    state::State,
};

/// A step, in words. In its text `#` is the next number counted from one, `@` names a replica, `%` is an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    text: &'static str,
    numbers: [u8; 4],
    /// What its caller hears of it.
    heard: &'static str,
}

impl Step {
    /// A step with the numbers that its text asks for, in their order.
    pub fn new(text: &'static str, numbers: &[usize]) -> Self {
        let mut step = Self {
            text,
            numbers: [0; 4],
            heard: "",
        };
        for (place, number) in step.numbers.iter_mut().zip(numbers) {
            *place = u8::try_from(*number).expect("numbers of a model are small");
        }
        step
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.numbers.iter();
        for letter in self.text.chars() {
            match letter {
                '#' | '@' | '%' => {
                    let number = numbers.next().copied().unwrap_or_default();
                    match letter {
                        '#' => write!(f, "{}", number + 1)?,
                        '@' => write!(f, "{}", if number == 0 { 'A' } else { 'B' })?,
                        _ => write!(f, "{number}")?,
                    }
                }
                other => write!(f, "{other}")?,
            }
        }
        f.write_str(self.heard)
    }
}

/// The steps that a state allows, gathered.
pub struct Moves<'c> {
    /// The world.
    pub config: &'c Config,
    /// Each step with where it leads.
    pub found: Vec<(Step, State)>,
    /// What was come across, in all states so far.
    pub sights: Sights,
}

impl<'c> Moves<'c> {
    /// Nothing yet.
    pub fn new(config: &'c Config) -> Self {
        Self {
            config,
            found: Vec::new(),
            sights: Sights::default(),
        }
    }

    /// Adds a step.
    pub fn go(&mut self, state: State, text: &'static str, numbers: &[usize]) {
        self.go_step(state, Step::new(text, numbers));
    }

    /// Adds a step that was made before.
    pub fn go_step(&mut self, state: State, step: Step) {
        self.found.push((step, state));
    }

    /// Adds a step that was made before, and what its caller hears of it.
    pub fn go_heard(&mut self, state: State, step: Step, heard: &'static str) {
        self.found.push((Step { heard, ..step }, state));
    }

    /// Notes that something happens in the step that is being made.
    pub fn see(&mut self, sight: Sight) {
        self.sights.add(sight);
    }

    /// Notes it where it does.
    pub fn see_if(&mut self, does: bool, sight: Sight) {
        if does {
            self.sights.add(sight);
        }
    }
}
