//! A line a run, for people.

use std::{collections::BTreeMap, time::Duration};

use super::{
    oracle::{Found, Log},
    rules::counts,
};
use crate::chaos::rules::Verdict;

/// How many violations of a rule are printed.
const SHOWN_MAX: usize = 5;
/// What takes longer than this to settle is explained.
const SOON: Duration = Duration::from_secs(10);
/// The scenario without faults.
const UNBROKEN: &str = "nothing";

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken.
    pub scenario: &'static str,
    /// Of which seed.
    pub seed: u64,
    /// For how long events were sent.
    pub lasted: Duration,
    /// How many calls and events failed and were repeated.
    pub failed: u64,
    /// Why.
    pub failures: BTreeMap<String, u64>,
    /// What was seen from outside.
    pub log: Log,
    /// What was found after it.
    pub found: Found,
    /// The rules.
    pub verdicts: Vec<Verdict>,
}

impl Outcome {
    /// How many things were not as the rules say.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|verdict| verdict.violations.len()).sum()
    }

    /// How many events were told that the ledger has them.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let fates = self.log.fates.iter();
        fates.filter(|fate| fate.is_acknowledged()).count()
    }

    /// Prints the run's line, and below it what was not as it must be.
    pub fn print(&self) {
        let settled = self.found.settled.map_or_else(
            || "not settled".to_owned(),
            |settled| format!("settled in {:.1} s", settled.as_secs_f32()),
        );
        let sent: u32 = self.log.fates.iter().map(|fate| fate.sent).sum();
        let [missing, double, invented] = counts(&self.verdicts);
        println!(
            "{:<24} {:>4} {:>5} s {:>8} {:>12} {:>9} {:>7} {:>6} {:>8} {:>7} {:>6}  {settled}",
            self.scenario,
            self.seed,
            self.lasted.as_secs(),
            sent,
            self.acknowledged(),
            self.found.ledger.len(),
            missing,
            double,
            invented,
            self.failed,
            self.violations(),
        );
        if let (Some(waited_for), Some(settled)) = (&self.found.waited_for, self.found.settled)
            && settled > SOON
        {
            println!("    until then {waited_for}");
        }
        // Where nothing was broken, nothing should fail.
        let explained = self.violations() > 0 || self.scenario == UNBROKEN;
        for (why, count) in self.failures.iter().filter(|_| explained) {
            println!("    {count} failed: {why}");
        }
        for verdict in &self.verdicts {
            for violation in verdict.violations.iter().take(SHOWN_MAX) {
                println!("    {}: {violation}", verdict.invariant);
            }
        }
    }
}

/// Prints the head of the table.
pub fn print_head() {
    println!(
        "{:<24} {:>4} {:>7} {:>8} {:>12} {:>9} {:>7} {:>6} {:>8} {:>7} {:>6}",
        "scenario",
        "seed",
        "lasted",
        "sent",
        "acknowledged",
        "in ledger",
        "missing",
        "double",
        "invented",
        "failed",
        "broken"
    );
}
