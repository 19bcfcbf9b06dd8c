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
    /// What the good lines of the file add up to.
    pub file_totals: Totals,
    /// What the allowed lines add up to, where the quota was asked.
    pub allowed_totals: Option<Totals>,
    /// What the ledger has of these accounts and this source; absent where it was not asked.
    pub ledger_totals: Option<Totals>,
    /// Whether the ledger has what it must: the file's totals, or with `check` those of the allowed lines.
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
        let expected = self.allowed_totals.as_ref().unwrap_or(&self.file_totals);
        self.matches = self.ledger_totals.as_ref().map(|ledger| same(expected, ledger));
        let done = self.stopped.is_none() && self.problem.is_none() && self.refused == 0;
        self.complete = done && (self.dry_run || self.matches == Some(true));
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
        facts.push((
            "thresholds",
            format!("{} crossed", grouped(self.thresholds_crossed)),
        ));
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
        columns.extend(self.ledger_totals.as_ref().map(|totals| ("ledger", totals)));
        let metrics: BTreeSet<&MetricSlug> = columns.iter().flat_map(|(_, totals)| totals.0.keys()).collect();
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
        let expected = self.allowed_totals.as_ref().unwrap_or(&self.file_totals);
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
                Some(ledger) if total_of(ledger, metric) == total_of(expected, metric) => "  equal",
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

/// Whether both have the same of every metric; a metric that is absent has nothing.
fn same(one: &Totals, other: &Totals) -> bool {
    one.0
        .keys()
        .chain(other.0.keys())
        .all(|metric| total_of(one, metric) == total_of(other, metric))
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
mod tests {
    use super::*;

    fn metric(slug: &str) -> MetricSlug {
        MetricSlug::parse(slug).expect("a slug")
    }

    fn totals(all: &[(&str, u64, u64)]) -> Totals {
        Totals(
            all.iter()
                .map(|(slug, amount, events)| {
                    (
                        metric(slug),
                        Total {
                            amount: *amount,
                            events: *events,
                        },
                    )
                })
                .collect(),
        )
    }

    fn good() -> Report {
        let mut report = Report {
            file: "f.csv".to_owned(),
            lines: 1_234,
            accounts: 2,
            plan: "replay".to_owned(),
            sent: 2_468,
            recorded: 2_468,
            file_totals: totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_234)]),
            ledger_totals: Some(totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_234)])),
            ..Report::default()
        };
        report.time(Duration::from_millis(2_000));
        report.judge();
        report
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts: Vec<String> = [0, 7, 999, 1_000, 22_361_870].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "7", "999", "1,000", "22,361,870"]);
    }

    #[test]
    fn a_replay_is_complete_when_the_ledger_has_it_all() {
        assert!(good().is_complete());
        let check = |change: fn(&mut Report), complete: bool| {
            let mut report = good();
            change(&mut report);
            report.judge();
            assert_eq!(report.is_complete(), complete, "{report:?}");
        };
        check(
            |report| report.ledger_totals = Some(totals(&[("a", 1_234, 1_234)])),
            false,
        );
        check(
            |report| report.ledger_totals = Some(totals(&[("a", 1_234, 1_234), ("b", 9_876_543, 1_233)])),
            false,
        );
        check(|report| report.ledger_totals = None, false);
        check(
            |report| (report.ledger_totals, report.dry_run) = (None, true),
            true,
        );
        check(|report| report.refused = 1, false);
        check(|report| report.malformed = 1, true);
        check(
            |report| report.problem = Some("the file changed".to_owned()),
            false,
        );
        check(
            |report| {
                report.stopped = Some(Stopped {
                    line: 7,
                    why: "gone".to_owned(),
                })
            },
            false,
        );
        check(
            |report| {
                report.allowed_totals = Some(totals(&[("a", 5, 5)]));
                report.ledger_totals = Some(totals(&[("a", 5, 5), ("b", 0, 0)]));
            },
            true,
        );
    }

    #[test]
    fn the_table_says_what_happened() {
        let expected = "\
file         f.csv
lines        1,234
accounts     2, plan replay
sent         2,468 events in 2.0 s, 1,234 a second
recorded     2,468
duplicates   0
allowed      not asked
denied       not asked
thresholds   0 crossed

metric         file amount     file events       ledger amount   ledger events
a                    1,234           1,234               1,234           1,234  equal
b                9,876,543           1,234           9,876,543           1,234  equal
";
        assert_eq!(good().table(), expected);
    }

    #[test]
    fn a_table_of_a_stopped_check_names_denials_and_the_line() {
        let report = Report {
            check: true,
            allowed: 3,
            denied: BTreeMap::from([(metric("a"), 1_000), (metric("b"), 2)]),
            stopped: Some(Stopped {
                line: 7,
                why: "the run was stopped".to_owned(),
            }),
            ..good()
        };
        let table = report.table();
        assert!(
            table.contains("denied       1,002 lines: a 1,000, b 2\n"),
            "{table}"
        );
        assert!(table.ends_with(
            "\nstopped at line 7: the run was stopped; run it again to go on, which adds nothing twice\n"
        ));
    }

    #[test]
    fn the_json_object_keeps_its_keys() {
        let value = serde_json::to_value(good()).expect("JSON");
        for key in [
            "lines",
            "malformed",
            "accounts",
            "sent",
            "recorded",
            "duplicates",
            "allowed",
            "events_per_s",
        ] {
            assert!(value[key].is_u64(), "{key}");
        }
        assert!(
            value["denied"].is_object()
                && value["elapsed_s"].is_f64()
                && value["thresholds_crossed"].is_u64()
        );
        assert_eq!(value["match"], true);
        assert_eq!(value["file_totals"]["b"]["amount"], 9_876_543);
        assert_eq!(value["ledger_totals"]["a"]["events"], 1_234);
    }
}
