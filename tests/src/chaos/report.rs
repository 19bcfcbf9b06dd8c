//! What runs found: a table for people, and a file for programs.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{load::Counts, oracle::Found, rules::Verdict};

/// How many violations of a rule are printed.
const SHOWN_MAX: usize = 5;
/// What takes longer than this to settle is explained.
const SOON: Duration = Duration::from_secs(10);
/// The scenario without faults.
const UNBROKEN: &str = "nothing";
/// The rule that a run keeps by coming to its end.
const ENDS: &str = "every request is answered once everything is healed";

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken.
    pub scenario: &'static str,
    /// Of which seed.
    pub seed: u64,
    /// What callers sent and were answered while they called.
    pub counts: Counts,
    /// For how long they did.
    pub lasted: Duration,
    /// How many requests there were, each with all its attempts.
    pub requests: usize,
    /// How many of them were told yes.
    pub allowed: usize,
    /// The most units above the limit in force at any instant.
    pub over_admission: u64,
    /// The rules.
    pub verdicts: Vec<Verdict>,
    /// Why attempts failed, and how many did.
    pub failures: BTreeMap<String, u64>,
    /// What was found after it.
    pub found: Found,
}

impl Outcome {
    /// How many things were not as the rules say.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|verdict| verdict.violations.len()).sum()
    }

    fn print(&self) {
        let settled = self.found.settled.map_or_else(
            || "not settled".to_owned(),
            |settled| format!("settled in {:.1} s", settled.as_secs_f32()),
        );
        let stranded = match self.found.stranded_max {
            0 => self.found.stranded.to_string(),
            max => format!("{}/{max}", self.found.stranded),
        };
        println!(
            "{:<32} {:>3} {:>6}/s {:>6}/s {:>6} {:>7} {:>7} {:>6} {:>5} {:>9} {:>6}  {settled}",
            self.scenario,
            self.seed,
            per_second(self.counts.offered, self.lasted),
            per_second(self.counts.answered, self.lasted),
            self.counts.failed,
            self.requests,
            self.allowed,
            self.found.limit,
            self.over_admission,
            stranded,
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
            println!("    {count} attempts failed: {why}");
        }
        for verdict in &self.verdicts {
            for violation in verdict.violations.iter().take(SHOWN_MAX) {
                println!("    {}: {violation}", verdict.invariant);
            }
        }
    }
}

fn per_second(count: u64, lasted: Duration) -> u128 {
    u128::from(count) * 1_000 / lasted.as_millis().max(1)
}

/// Prints the head of the table.
pub fn print_head() {
    println!(
        "{:<32} {:>3} {:>8} {:>8} {:>6} {:>7} {:>7} {:>6} {:>5} {:>9} {:>6}",
        "scenario",
        "seed",
        "offered",
        "served",
        "failed",
        "requests",
        "allowed",
        "limit",
        "over",
        "stranded",
        "broken"
    );
}

/// A row of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Row {
    /// What was broken.
    pub scenario: String,
    /// Of which seed.
    pub seed: u64,
    /// The rule.
    pub invariant: String,
    /// How many things it looked at.
    pub checked: usize,
    /// How many were not so.
    pub violations: usize,
    /// Whether all were.
    pub met: bool,
}

/// The rows of all runs, those of before included where a series goes on.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    rows: Vec<Row>,
}

impl Report {
    /// The report in this file, with what it has already.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: PathBuf) -> Result<Self> {
        let rows = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("the report of before cannot be read")?,
            Err(_) => Vec::new(),
        };
        Ok(Self { path, rows })
    }

    /// Whether it has a run already.
    #[must_use]
    pub fn has(&self, scenario: &str, seed: u64) -> bool {
        self.rows
            .iter()
            .any(|row| row.scenario == scenario && row.seed == seed)
    }

    /// Adds a run, prints its line, writes the file, and answers whether every rule held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, outcome: &Outcome) -> Result<bool> {
        outcome.print();
        self.add_verdicts(
            (outcome.scenario, outcome.seed),
            outcome.requests,
            &outcome.verdicts,
        )
    }

    /// Adds what the rules say of a run of a scenario and a seed, in which so many requests were answered, writes the
    /// file, and answers whether every rule held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_verdicts(
        &mut self,
        (scenario, seed): (&str, u64),
        requests: usize,
        verdicts: &[Verdict],
    ) -> Result<bool> {
        let row = |verdict: &Verdict| Row {
            scenario: scenario.to_owned(),
            seed,
            invariant: verdict.invariant.to_owned(),
            checked: verdict.checked,
            violations: verdict.violations.len(),
            met: verdict.violations.is_empty(),
        };
        let ends = Verdict {
            invariant: ENDS,
            checked: requests,
            violations: Vec::new(),
        };
        self.rows.extend(verdicts.iter().chain([&ends]).map(row));
        self.write()?;
        Ok(verdicts.iter().all(|verdict| verdict.violations.is_empty()))
    }

    /// Adds a run that did not come to its end, which is a rule as well: it answers `false`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_failure(&mut self, scenario: &str, seed: u64, error: &anyhow::Error) -> Result<bool> {
        println!("{scenario:<32} {seed:>3} did not come to its end: {error:#}");
        self.rows.push(Row {
            scenario: scenario.to_owned(),
            seed,
            invariant: ENDS.to_owned(),
            checked: 1,
            violations: 1,
            met: false,
        });
        self.write()?;
        Ok(false)
    }

    fn write(&self) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&self.path, serde_json::to_vec_pretty(&self.rows)?)?;
        Ok(())
    }

    /// Whether every rule held in every run.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.rows.iter().all(|row| row.met)
    }

    /// How many runs there are, and how many things were not as the rules say.
    #[must_use]
    pub fn totals(&self) -> (usize, usize) {
        let runs = self.rows.iter().filter(|row| row.invariant == ENDS).count();
        (runs, self.rows.iter().map(|row| row.violations).sum())
    }
}
