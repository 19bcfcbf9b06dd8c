//! What a replay did, for people and for programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use octroi_core::MetricSlug;
use serde::Serialize;

use super::{
    scan::{LeftOut, LeftOutLine, Total, Totals},
    tally::Stopped,
};

/// The result of a replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The file, as it was named.
    pub file: String,
    /// The SHA-256 of its content.
    pub file_sha256: String,
    /// Lines of data, malformed ones included.
    pub lines: u64,
    /// Lines that were left out.
    pub malformed: u64,
    /// The first of them.
    pub malformed_lines: Vec<LeftOutLine>,
    /// How many accounts the lines belong to.
    pub accounts: u64,
    /// What the ids of the accounts begin with, where lines were spread over accounts.
    pub account_prefix: Option<String>,
    /// The plan that was asked for.
    pub plan: String,
    /// The source of the events in the ledger.
    pub source: String,
    /// Whether the quota was asked.
    pub check: bool,
    /// Whether the file was only read.
    pub dry_run: bool,
    /// Events that were sent.
    pub sent: u64,
    /// Events that the ledger did not have before.
    pub recorded: u64,
    /// Events that the ledger had before.
    pub duplicates: u64,
    /// Events that the fleet refused for good; with `check`, lines.
    pub refused: u64,
    /// The first of them.
    pub refused_lines: Vec<LeftOutLine>,
    /// Lines that the quota allowed; 0 where it was not asked.
    pub allowed: u64,
    /// Lines that the quota denied, by the metric whose limit denied them.
    pub denied: BTreeMap<MetricSlug, u64>,
    /// Thresholds that accounts were told of in this run.
    pub thresholds_crossed: u64,
    /// Whether more of them may come: the fleet was not done when we stopped to wait.
    pub thresholds_incomplete: bool,
    /// What the good lines of the file add up to.
    pub file_totals: Totals,
    /// What the allowed lines add up to, where the quota was asked.
    pub allowed_totals: Option<Totals>,
    /// What those of them add up to that this run recorded for sure, where the quota was asked.
    pub recorded_totals: Option<Totals>,
    /// What those add up to that this run or an earlier one recorded, where an answer was lost.
    pub unsure_totals: Option<Totals>,
    /// What the ledger had of these accounts and this source before the run, where the quota was asked about
    /// accounts that other runs may have used.
    pub ledger_totals_before: Option<Totals>,
    /// What the ledger has of these accounts and this source; absent where it was not asked.
    pub ledger_totals: Option<Totals>,
    /// Whether the ledger has what it must: the file's totals; with `check` those of the allowed lines, and
    /// where others recorded as well, what it had before and what this run added.
    #[serde(rename = "match")]
    pub matches: Option<bool>,
    /// Events of the ledger, of all traffic, that the rollups did not have when we stopped to wait.
    pub rollup_lag_events: u64,
    /// How long sending took.
    pub elapsed_s: f64,
    /// Events sent a second.
    pub events_per_s: u64,
    /// Where the run ended before its end.
    pub stopped: Option<Stopped>,
    /// What went wrong beside.
    pub problem: Option<String>,
    /// Whether everything was done and the ledger has it.
    pub complete: bool,
}

impl Report {
    /// Notes how long sending took.
    pub(super) fn time(&mut self, elapsed: Duration) {
        let elapsed_us = elapsed.as_micros().max(1);
        self.events_per_s = u64::try_from(u128::from(self.sent) * 1_000_000 / elapsed_us).unwrap_or(u64::MAX);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_s = Duration::from_millis(elapsed_ms).as_secs_f64();
    }

    pub(super) fn left_out(&mut self, malformed: LeftOut) {
        self.malformed = malformed.count;
        self.malformed_lines = malformed.first;
    }

    /// Judges the whole once everything else is known.
    pub(super) fn judge(&mut self) {
        self.matches = self
            .ledger_totals
            .as_ref()
            .map(|ledger| self.metrics().all(|metric| self.is_right(metric, ledger)));
        let done = self.stopped.is_none() && self.problem.is_none() && self.refused == 0;
        self.complete = done && (self.dry_run || self.matches == Some(true));
    }

    /// Every metric that has a total anywhere.
    fn metrics(&self) -> impl Iterator<Item = &MetricSlug> {
        let ledgers = self.ledger_totals_before.iter().chain(&self.ledger_totals);
        let all: BTreeSet<&MetricSlug> = ledgers
            .chain(&self.allowed_totals)
            .chain([&self.file_totals])
            .flat_map(|totals| totals.0.keys())
            .collect();
        all.into_iter()
    }

    /// Whether the ledger has of a metric what it must; one that is absent has nothing.
    fn is_right(&self, metric: &MetricSlug, ledger: &Totals) -> bool {
        let actual = total_of(ledger, metric);
        let wanted = total_of(self.allowed_totals.as_ref().unwrap_or(&self.file_totals), metric);
        let Some(before) = &self.ledger_totals_before else {
            return actual == wanted;
        };
        let part = |totals: &Option<Totals>| {
            totals
                .as_ref()
                .map_or_else(Total::default, |it| total_of(it, metric))
        };
        let least = total_of(before, metric).plus(part(&self.recorded_totals));
        let most = least.plus(part(&self.unsure_totals));
        let between = |least: u64, actual: u64, most: u64| (least..=most).contains(&actual);
        // Whoever recorded an allowed line, it is there.
        between(least.amount.max(wanted.amount), actual.amount, most.amount)
            && between(least.events.max(wanted.events), actual.events, most.events)
    }

    /// Whether the process should end well.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Prints it to standard output: a table, or one JSON object.
    ///
    /// # Errors
    /// Where standard output cannot be written.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let text = if json {
            serde_json::to_string(self).map_err(io::Error::other)?
        } else {
            self.table()
        };
        writeln!(io::stdout(), "{}", text.trim_end())
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        for (name, value) in self.facts() {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{name:<12} {value}");
        }
        table.push('\n');
        self.totals_table(&mut table);
        if let Some(stopped) = &self.stopped {
            let _ = write!(table, "\n{stopped}\n");
        }
        if let Some(problem) = &self.problem {
            let _ = write!(table, "\n{problem}\n");
        }
        table
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let of_which = |count: u64, what: &str| {
            if count == 0 {
                String::new()
            } else {
                format!(", {} {what}", grouped(count))
            }
        };
        let mut facts = vec![
            ("file", self.file.clone()),
            (
                "lines",
                format!(
                    "{}{}",
                    grouped(self.lines),
                    of_which(self.malformed, "malformed and left out")
                ),
            ),
            ("accounts", self.accounts_fact()),
        ];
        if self.dry_run {
            facts.push(("sent", "nothing: only the file was read".to_owned()));
            return facts;
        }
        let sent = grouped(self.sent);
        facts.push((
            "sent",
            format!(
                "{sent} events in {:.1} s, {} a second",
                self.elapsed_s,
                grouped(self.events_per_s)
            ),
        ));
        facts.push((
            "recorded",
            format!("{}{}", grouped(self.recorded), of_which(self.refused, "refused")),
        ));
        facts.push(("duplicates", grouped(self.duplicates)));
        facts.push((
            "allowed",
            if self.check {
                format!("{} lines", grouped(self.allowed))
            } else {
                "not asked".to_owned()
            },
        ));
        facts.push(("denied", self.denied_fact()));
        facts.push(("thresholds", self.thresholds_fact()));
        facts.extend(
            self.refused_lines
                .iter()
                .map(|one| ("refused", format!("line {}: {}", one.line, one.problem))),
        );
        if self.rollup_lag_events > 0 {
            facts.push((
                "rollups",
                format!("{} events behind", grouped(self.rollup_lag_events)),
            ));
        }
        facts
    }

    fn thresholds_fact(&self) -> String {
        let crossed = grouped(self.thresholds_crossed);
        if self.thresholds_incomplete {
            format!("{crossed} crossed so far; the fleet was not done when we stopped to wait")
        } else {
            format!("{crossed} crossed")
        }
    }

    fn accounts_fact(&self) -> String {
        let names = self
            .account_prefix
            .as_ref()
            .map(|prefix| format!(" {prefix}…"))
            .unwrap_or_default();
        format!("{}{names}, plan {}", grouped(self.accounts), self.plan)
    }

    fn denied_fact(&self) -> String {
        if !self.check {
            return "not asked".to_owned();
        }
        if self.denied.is_empty() {
            return "0 lines".to_owned();
        }
        let by_metric: Vec<String> = self
            .denied
            .iter()
            .map(|(metric, lines)| format!("{metric} {}", grouped(*lines)))
            .collect();
        format!(
            "{} lines: {}",
            grouped(self.denied.values().sum()),
            by_metric.join(", ")
        )
    }

    fn totals_table(&self, table: &mut String) {
        let mut columns = vec![("file", &self.file_totals)];
        columns.extend(self.allowed_totals.as_ref().map(|totals| ("allowed", totals)));
        columns.extend(
            self.ledger_totals_before
                .as_ref()
                .map(|totals| ("before", totals)),
        );
        columns.extend(self.ledger_totals.as_ref().map(|totals| ("ledger", totals)));
        let metrics: Vec<&MetricSlug> = self.metrics().collect();
        let width = metrics
            .iter()
            .map(|metric| metric.as_str().len())
            .chain([6])
            .max()
            .unwrap_or_default();
        let _ = write!(table, "{:<width$}", "metric");
        for (name, _) in &columns {
            let _ = write!(
                table,
                "  {:>18}  {:>14}",
                format!("{name} amount"),
                format!("{name} events")
            );
        }
        table.push('\n');
        for metric in metrics {
            let _ = write!(table, "{:<width$}", metric.as_str());
            for (_, totals) in &columns {
                let total = total_of(totals, metric);
                let _ = write!(
                    table,
                    "  {:>18}  {:>14}",
                    grouped(total.amount),
                    grouped(total.events)
                );
            }
            let verdict = match &self.ledger_totals {
                Some(ledger) if self.is_right(metric, ledger) && self.ledger_totals_before.is_some() => {
                    "  as it must"
                }
                Some(ledger) if self.is_right(metric, ledger) => "  equal",
                Some(_) => "  DIFFERENT",
                None => "",
            };
            let _ = writeln!(table, "{verdict}");
        }
    }
}

fn total_of(totals: &Totals, metric: &MetricSlug) -> Total {
    totals.0.get(metric).copied().unwrap_or_default()
}

/// A number with its thousands set apart, such as `22,361,870`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
