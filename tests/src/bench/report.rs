//! What a bench found: a table for people, and a file for programs.
//!
//! Targets are stated once, before anything is measured. Whether one is met is computed from the very numbers
//! that the file has, and a report that lacks a row for one of them is a failure of the bench.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    load::Round,
    rounds::{Figure, Series, Spread},
};

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Answers.
    RequestsPerSecond,
    /// Decisions, of which a batch has many.
    DecisionsPerSecond,
    /// Usage events that were recorded, or copied into a table.
    EventsPerSecond,
    /// CPU time for each answer.
    CpuMicrosPerRequest,
    /// CPU time for each million of events.
    CpuSecondsPerMillion,
    /// Latency.
    Micros,
    /// Accounts that were decided for the first time.
    AccountsPerSecond,
    /// Holds that were taken and committed.
    PairsPerSecond,
    /// Amounts of a metric, or things that are counted.
    Units,
    /// How many times as much: less is better.
    Times,
    /// How long something took.
    Seconds,
    /// Memory.
    Megabytes,
    /// Pieces of memory that were asked for, for each answer.
    AllocationsPerRequest,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests/s",
            Self::DecisionsPerSecond => "decisions/s",
            Self::EventsPerSecond => "events/s",
            Self::CpuMicrosPerRequest => "CPU µs/request",
            Self::CpuSecondsPerMillion => "CPU s/million",
            Self::Micros => "µs",
            Self::AccountsPerSecond => "accounts/s",
            Self::PairsPerSecond => "pairs/s",
            Self::Units => "units",
            Self::Times => "×",
            Self::Seconds => "s",
            Self::Megabytes => "MB",
            Self::AllocationsPerRequest => "allocations/request",
        }
    }

    /// Of rates more is better, of all else less.
    fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::RequestsPerSecond
                | Self::DecisionsPerSecond
                | Self::EventsPerSecond
                | Self::AccountsPerSecond
                | Self::PairsPerSecond
        )
    }
}

/// What a case must reach: at least this of a rate, at most this of anything else. It is about the ratio where
/// the case is compared with something, else about the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The case.
    pub case: &'static str,
    /// What it must reach.
    pub bound: f64,
}

/// A row of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// The median of what was measured.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// The median of what it is compared with.
    pub baseline: Option<f64>,
    /// The median of the ratios of rounds that were made beside each other.
    pub ratio: Option<f64>,
    /// What was asked for; none of a row that only informs.
    pub target: Option<f64>,
    /// Whether it was reached.
    pub met: bool,
}

impl Row {
    fn new(case: &str, unit: Unit, figure: &Figure, target: Option<f64>) -> Self {
        let value = rounded(figure.value.median);
        let ratio = figure.against.map(|against| rounded(against.ratio.median));
        let reached = ratio.unwrap_or(value);
        Self {
            case: case.to_owned(),
            value,
            unit: unit.text(),
            baseline: figure.against.map(|against| rounded(against.baseline.median)),
            ratio,
            target,
            met: target.is_none_or(|target| {
                if unit.more_is_better() {
                    reached >= target
                } else {
                    reached <= target
                }
            }),
        }
    }
}

/// The rows of one bench.
#[derive(Debug)]
pub struct Report {
    name: String,
    dir: PathBuf,
    targets: Vec<Target>,
    rows: Vec<Row>,
    /// The rows for people: the same with how far the rounds spread.
    lines: Vec<[String; 7]>,
    notes: Vec<String>,
}

impl Report {
    /// The report of the bench `name`, which is asked for `targets`. An older one is removed, so that a bench
    /// that fails leaves none.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn new(name: &str, dir: &Path, targets: &[Target]) -> Result<Self> {
        let report = Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            targets: targets.to_vec(),
            rows: Vec::new(),
            lines: Vec::new(),
            notes: Vec::new(),
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for path in [report.path("json"), report.path("txt")] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(report)
    }

    /// Where the reports of all benches go: `target/bench/` of the checkout.
    #[must_use]
    pub fn dir() -> PathBuf {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        tests.parent().unwrap_or(tests).join("target/bench")
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }

    /// Adds a row. Its target is the one that was stated for the case; a case without one informs.
    ///
    /// # Errors
    /// When the case has a row already, or a figure is not a number.
    pub fn add(&mut self, case: &str, unit: Unit, figure: &Figure) -> Result<()> {
        self.add_where(case, unit, figure, true)
    }

    /// The same, where the target is reached only if something else `holds` too, which has a row of its own.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_where(&mut self, case: &str, unit: Unit, figure: &Figure, holds: bool) -> Result<()> {
        ensure!(
            self.rows.iter().all(|row| row.case != case),
            "there are two rows for {case}"
        );
        let target = self.targets.iter().find(|target| target.case == case);
        let mut row = Row::new(case, unit, figure, target.map(|target| target.bound));
        row.met &= holds || target.is_none();
        let numbers = [Some(row.value), row.baseline, row.ratio];
        ensure!(
            numbers.iter().flatten().all(|number| number.is_finite()),
            "{case} was not measured: {figure:?}"
        );
        self.lines.push(line(&row, unit, figure));
        self.rows.push(row);
        Ok(())
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, sentence: impl Into<String>) {
        self.notes.push(sentence.into());
    }

    /// Says of each series how far its rounds can be trusted: how busy the generator was, what it could not
    /// send, and what others did on the same cores.
    pub fn note_rounds<'a>(&mut self, all: impl IntoIterator<Item = &'a Series>) {
        for series in all {
            let rounds = || series.rounds.iter();
            let busy = rounds().map(Round::generator_busy_per_mille).max().unwrap_or(0);
            let others = rounds().filter_map(Round::others_per_mille).max();
            let held_back: u64 = rounds().map(|round| round.tally.held_back).sum();
            let mut note = format!(
                "{}: {} rounds, {} void",
                series.name,
                rounds().count(),
                series.void
            );
            // Shares are rounded down. Writing into a text does not fail.
            let _ = write!(note, "; generator busy {} % at the most", busy / 10);
            if let Some(others) = others {
                let _ = write!(note, "; others on the cores {} % at the most", others / 10);
            }
            if held_back > 0 {
                let _ = write!(
                    note,
                    "; {held_back} times the server had no room for a request that was due"
                );
            }
            let overdue: u64 = rounds().map(|round| round.overdue).sum();
            if overdue > 0 {
                let _ = write!(note, "; {overdue} requests were due and could not be sent");
            }
            self.notes.push(note);
        }
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let head = ["case", "value", "unit", "baseline", "ratio", "target", "met"].map(str::to_owned);
        let lines: Vec<&[String; 7]> = std::iter::once(&head).chain(&self.lines).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
        let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let mut table = String::new();
        for line in lines {
            let cells = line.iter().zip(widths).enumerate();
            let cells = cells.map(|(column, (cell, width))| match column {
                // Texts begin in one column, numbers end in one.
                0 | 2 | 6 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            let text = cells.collect::<Vec<_>>().join("  ");
            // Writing into a text does not fail.
            let _ = writeln!(table, "{}", text.trim_end());
        }
        for note in &self.notes {
            let _ = writeln!(table, "{note}");
        }
        table
    }

    /// Prints the table and writes the files: the rows as JSON, and the table as it was printed, with the
    /// machine and the date, for the documentation to quote.
    ///
    /// # Errors
    /// When a target that was asked for has no row, or a file cannot be written.
    pub fn finish(self, now: Timestamp) -> Result<()> {
        let has_row = |target: &&Target| self.rows.iter().any(|row| row.case == target.case);
        let missing: Vec<&str> = self
            .targets
            .iter()
            .filter(|target| !has_row(target))
            .map(|target| target.case)
            .collect();
        let date = now.strftime("%Y-%m-%d");
        let text = format!("bench-{}, {date}, {}\n{}", self.name, machine(), self.table());
        print!("{text}");
        ensure!(
            missing.is_empty(),
            "there is no row for what was asked for: {missing:?}"
        );
        let rows = serde_json::to_string_pretty(&self.rows)?;
        for (extension, content) in [("json", format!("{rows}\n")), ("txt", text)] {
            let path = self.path(extension);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// The kind of this machine, and a warning where the build is not for speed.
fn machine() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // All of the machine's, not only those that this thread was left with.
    let cores = about.lines().filter(|line| line.starts_with("processor")).count();
    let model = about
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let profile = if cfg!(debug_assertions) {
        ", not a release build: no figure means anything"
    } else {
        ""
    };
    format!("{cores} × {model}, Linux {}{profile}", kernel.trim())
}

fn line(row: &Row, unit: Unit, figure: &Figure) -> [String; 7] {
    let sign = if unit.more_is_better() { '≥' } else { '≤' };
    let ratio = figure.against.map(|against| against.ratio);
    [
        row.case.clone(),
        spread(&figure.value),
        row.unit.to_owned(),
        row.baseline.map(number).unwrap_or_default(),
        ratio.as_ref().map(spread).unwrap_or_default(),
        row.target
            .map(|target| format!("{sign} {}", number(target)))
            .unwrap_or_default(),
        match (row.target, row.met) {
            (None, _) => "",
            (Some(_), true) => "yes",
            (Some(_), false) => "NO",
        }
        .to_owned(),
    ]
}

fn spread(spread: &Spread) -> String {
    if spread.min == spread.max {
        return number(spread.median);
    }
    format!(
        "{} ({}–{})",
        number(spread.median),
        number(spread.min),
        number(spread.max)
    )
}

/// As many decimals as a number of its size needs.
fn number(number: f64) -> String {
    match number.abs() {
        size if size >= 1_000.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// To three decimals, half away from zero: what the file has, and what targets are compared with.
#[expect(clippy::float_arithmetic, reason = "a figure for people")]
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests;
