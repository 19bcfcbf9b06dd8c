//! The first pass over a file: its hash, and what is in it, held in as much memory as there are accounts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use octroi_core::{MetricSlug, Units};

use super::{
    lines::{Hashed, Lines},
    malformed::Malformed,
    mapping::Owner,
    names::FileHash,
    source::{Layout, Source},
    zipf::ACCOUNTS_MAX,
};

/// How many malformed lines are told one by one.
const TOLD_MAX: usize = 20;

/// A sum of amounts and the number of events that it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Total {
    /// The sum.
    pub amount: u64,
    /// The number.
    pub events: u64,
}

impl Total {
    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        // The ledger refuses sums above 2^53, so one that saturates never looks equal.
        Self {
            amount: self.amount.saturating_add(more.amount),
            events: self.events.saturating_add(more.events),
        }
    }
}

/// Totals by metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Totals(pub BTreeMap<MetricSlug, Total>);

impl Totals {
    /// Adds one event of each metric.
    pub fn add_events(&mut self, uses: &[(MetricSlug, Units)]) {
        for (metric, units) in uses {
            self.add(
                metric,
                Total {
                    amount: units.get(),
                    events: 1,
                },
            );
        }
    }

    /// Adds to a metric.
    pub fn add(&mut self, metric: &MetricSlug, more: Total) {
        match self.0.get_mut(metric) {
            Some(total) => *total = total.plus(more),
            None => drop(self.0.insert(metric.clone(), more)),
        }
    }

    /// The events of all metrics.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.values().map(|total| total.events).sum()
    }
}

/// Lines that were left out: how many, and the first of them with their problems.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub first: Vec<LeftOutLine>,
}

/// One line that was left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOutLine {
    /// Its number.
    pub line: u64,
    /// Why, as the end of the sentence "line 17 …".
    pub problem: String,
}

impl LeftOut {
    /// Notes a line.
    pub fn note(&mut self, line: u64, problem: &impl ToString) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(LeftOutLine {
                line,
                problem: problem.to_string(),
            });
        }
    }

    /// Adds more lines.
    pub fn add(&mut self, more: Self) {
        self.count += more.count;
        let room = TOLD_MAX.saturating_sub(self.first.len());
        self.first.extend(more.first.into_iter().take(room));
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The hash of its content.
    pub hash: FileHash,
    /// The length of what was hashed; what is written behind it later is not replayed.
    pub bytes: u64,
    /// Lines of data, malformed ones included.
    pub lines: u64,
    /// Good lines that count as something, which are those that are sent.
    pub counting_lines: u64,
    /// Lines that cannot be used.
    pub malformed: LeftOut,
    /// What its good lines add up to.
    pub totals: Totals,
    /// Whose use they are.
    pub owners: BTreeSet<Owner>,
    /// The first and the last recorded instant.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl Scan {
    /// The first recorded instant.
    #[must_use]
    pub fn first_at(&self) -> Option<Timestamp> {
        self.span.map(|(first, _)| first)
    }
}

/// Opens a regular file.
///
/// # Errors
/// A sentence for people.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let regular = file
        .metadata()
        .with_context(|| format!("cannot open {}", path.display()))?
        .is_file();
    ensure!(
        regular,
        "{} is not a file; it is read twice, so it cannot be a pipe",
        path.display()
    );
    Ok(file)
}

/// The first line that is not blank.
///
/// # Errors
/// Where there is none, or it is no text.
pub fn first_line(path: &Path) -> anyhow::Result<String> {
    let mut lines = Lines::new(BufReader::new(open(path)?));
    match lines
        .next()
        .with_context(|| format!("cannot read {}", path.display()))?
    {
        None => bail!("{} is empty", path.display()),
        Some((number, Err(problem))) => bail!("line {number} of {} {problem}", path.display()),
        Some((_, Ok(line))) => Ok(line.to_owned()),
    }
}

/// Reads the whole file.
///
/// # Errors
/// Where it cannot be read, has too many accounts, has no good line among bad ones, or, if `strict`, has a
/// malformed line.
pub fn scan(path: &Path, layout: &Layout, strict: bool) -> anyhow::Result<Scan> {
    let file = open(path)?;
    let bytes = file
        .metadata()
        .with_context(|| format!("cannot open {}", path.display()))?
        .len();
    let mut source = Source::new(BufReader::new(Hashed::new(file.take(bytes))), layout);
    let mut scan = Scan::default();
    while let Some((number, line)) = source
        .next()
        .with_context(|| format!("cannot read {}", path.display()))?
    {
        scan.lines += 1;
        match line {
            Ok(line) => {
                scan.counting_lines += u64::from(!line.uses.is_empty());
                scan.totals.add_events(&line.uses);
                let (first, last) = scan.span.unwrap_or((line.at, line.at));
                scan.span = Some((first.min(line.at), last.max(line.at)));
                scan.owners.insert(line.owner);
                let accounts = scan.owners.len();
                ensure!(
                    accounts <= ACCOUNTS_MAX as usize,
                    "line {number} names more than {ACCOUNTS_MAX} accounts"
                );
            }
            Err(problem) if strict => bail!("line {number} {problem}; nothing was sent"),
            Err(problem) => scan.malformed.note(number, &problem),
        }
    }
    if scan.lines == scan.malformed.count
        && let Some(LeftOutLine { line, problem }) = scan.malformed.first.first()
    {
        bail!("no line of {} can be used: line {line} {problem}", path.display());
    }
    // The last line was followed by the end of the file, so all of it was hashed.
    (scan.hash, scan.bytes) = source.into_inner().into_inner().finish();
    Ok(scan)
}

/// The second pass: hands each good line to `take` until it answers false. Answers whether the content is
/// still what was scanned; where `take` ended the pass, nobody knows and it counts as such.
///
/// # Errors
/// Where the file cannot be read.
pub fn read_again(
    path: &Path,
    layout: &Layout,
    scan: &Scan,
    mut take: impl FnMut(super::mapping::Line) -> bool,
) -> anyhow::Result<bool> {
    let file = open(path)?.take(scan.bytes);
    let mut source = Source::new(BufReader::new(Hashed::new(file)), layout);
    let cannot = || format!("cannot read {}", path.display());
    while let Some((_, line)) = source.next().with_context(cannot)? {
        let Ok::<_, Malformed>(line) = line else { continue };
        if !take(line) {
            return Ok(true);
        }
    }
    let (hash, _) = source.into_inner().into_inner().finish();
    Ok(hash == scan.hash)
}
