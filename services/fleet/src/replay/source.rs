//! A file as uses of accounts: which format it has, what its columns mean, and its lines one by one.

use std::io::{self, BufRead};

use anyhow::{Context as _, bail, ensure};
use octroi_core::MetricSlug;

use super::{
    access_log,
    args::{Args, Format},
    cloud_events, csv_row,
    lines::Lines,
    malformed::Malformed,
    mapping::{Accounts, Amount, Fields, Line, Mapping, TimeStyle, Uses},
    zipf::Zipf,
};

/// The header that needs no mapping.
const KNOWN_TIME: &str = "TIMESTAMP";
const KNOWN_COUNT: &str = "llm.requests";
const KNOWN_AMOUNTS: [(&str, &str); 2] = [
    ("llm.tokens_in", "ContextTokens"),
    ("llm.tokens_out", "GeneratedTokens"),
];

/// Names of time columns, in any case, that are taken where none is given.
const TIME_COLUMNS: [&str; 3] = ["timestamp", "time", "event_time"];

const ACCOUNTS_DEFAULT: u32 = 300;
const SEED_DEFAULT: u64 = 1;
/// The most metrics of one line, which is the most of one check.
const METRICS_MAX: usize = 16;

/// How a file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How it is written.
    pub format: Format,
    /// The names of its columns, where it is CSV.
    header: Vec<String>,
    /// What they mean.
    pub mapping: Mapping,
}

impl Layout {
    /// The layout of a file that begins with `first_line`.
    ///
    /// # Errors
    /// A sentence for people where options and file do not fit.
    pub fn of(first_line: &str, args: &Args) -> anyhow::Result<Self> {
        let format = args.format.unwrap_or_else(|| detect(first_line));
        let header: Vec<String> = match format {
            Format::Csv => csv_row::split(first_line)
                .map_err(|problem| anyhow::anyhow!("the header {problem}"))?
                .iter()
                .map(ToString::to_string)
                .collect(),
            Format::CloudEvents | Format::AccessLog => Vec::new(),
        };
        let mapping = match format {
            Format::Csv => csv_mapping(&header, args)?,
            Format::CloudEvents => cloud_events_mapping(args),
            Format::AccessLog => access_log_mapping(args)?,
        };
        let layout = Self {
            format,
            header,
            mapping,
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> anyhow::Result<()> {
        for column in self.mapping.columns() {
            match self.format {
                Format::Csv => match self.header.iter().filter(|name| *name == column).count() {
                    0 => bail!(
                        "there is no column {column:?}; the header names {}",
                        self.header.join(", ")
                    ),
                    1 => {}
                    _ => bail!("the header names {column:?} more than once"),
                },
                Format::AccessLog if !access_log::COLUMNS.contains(&column) => {
                    bail!(
                        "an access log has no column {column:?}, but {}",
                        access_log::COLUMNS.join(", ")
                    )
                }
                Format::AccessLog | Format::CloudEvents => {}
            }
        }
        let Uses::Columns { count, amounts } = &self.mapping.uses else {
            return Ok(());
        };
        let mut metrics: Vec<&MetricSlug> = count
            .iter()
            .chain(amounts.iter().map(|amount| &amount.metric))
            .collect();
        ensure!(
            metrics.len() <= METRICS_MAX,
            "a line can count as at most {METRICS_MAX} metrics"
        );
        metrics.sort_unstable();
        if let Some([metric, _]) = metrics
            .windows(2)
            .find(|pair| matches!(pair, [one, other] if one == other))
        {
            bail!("the metric {metric} is named twice");
        }
        Ok(())
    }

    fn read(&self, number: u64, text: &str) -> Result<Line, Malformed> {
        match self.format {
            Format::Csv => {
                let values = csv_row::split(text)?;
                if values.len() != self.header.len() {
                    return Err(Malformed::Columns {
                        found: values.len(),
                        expected: self.header.len(),
                    });
                }
                self.mapping.read(
                    number,
                    &Row {
                        header: &self.header,
                        values: &values,
                    },
                )
            }
            Format::CloudEvents => self.mapping.read(number, &cloud_events::Event::parse(text)?),
            Format::AccessLog => self.mapping.read(number, &access_log::Entry::parse(text)?),
        }
    }
}

fn detect(first_line: &str) -> Format {
    if first_line.trim_start().starts_with('{') {
        Format::CloudEvents
    } else if access_log::Entry::parse(first_line).is_ok() {
        Format::AccessLog
    } else {
        Format::Csv
    }
}

/// The accounts that the options ask for, else those that the format has by itself.
fn accounts(args: &Args, default: Option<&str>) -> Accounts {
    let column = args.account_column.as_deref().or(default);
    match column {
        Some(column) if args.accounts.is_none() && args.seed.is_none() => Accounts::Column(column.to_owned()),
        _ => {
            let accounts = args.accounts.unwrap_or(ACCOUNTS_DEFAULT);
            Accounts::Spread(Zipf::new(accounts, args.seed.unwrap_or(SEED_DEFAULT)))
        }
    }
}

/// The metrics that the options ask for, where they ask for any.
fn asked_uses(args: &Args) -> Option<Uses> {
    let asked = args.count.is_some() || !args.metrics.is_empty();
    asked.then(|| Uses::Columns {
        count: args.count.clone(),
        amounts: args.metrics.clone(),
    })
}

fn counted(count: &str, amounts: &[(&str, &str)]) -> anyhow::Result<Uses> {
    let amounts: Result<Vec<Amount>, octroi_core::InvalidId> = amounts
        .iter()
        .map(|(metric, column)| {
            Ok(Amount {
                metric: MetricSlug::parse(metric)?,
                column: (*column).to_owned(),
            })
        })
        .collect();
    Ok(Uses::Columns {
        count: Some(MetricSlug::parse(count)?),
        amounts: amounts?,
    })
}

fn csv_mapping(header: &[String], args: &Args) -> anyhow::Result<Mapping> {
    let named = |name: &str| header.iter().any(|column| column == name);
    let known = named(KNOWN_TIME) && KNOWN_AMOUNTS.iter().all(|(_, column)| named(column));
    let uses = match asked_uses(args) {
        Some(uses) => uses,
        None if known => counted(KNOWN_COUNT, &KNOWN_AMOUNTS)?,
        None => bail!(
            "the header names {}, which is no header that is known: say with --metric METRIC=COLUMN or --count \
             METRIC what its lines count as, or with --format how the file is written",
            header.join(", ")
        ),
    };
    let is_time = |name: &String| TIME_COLUMNS.iter().any(|time| name.eq_ignore_ascii_case(time));
    let time = match &args.time_column {
        Some(column) => column.clone(),
        None => header
            .iter()
            .find(|name| is_time(name))
            .cloned()
            .with_context(|| {
                format!(
                    "the header names {}: say with --time-column which is the time",
                    header.join(", ")
                )
            })?,
    };
    Ok(Mapping {
        time,
        time_style: TimeStyle::Iso,
        accounts: accounts(args, None),
        uses,
    })
}

fn cloud_events_mapping(args: &Args) -> Mapping {
    let by_type = || Uses::Named {
        metric: "type".to_owned(),
        amount: "data.amount".to_owned(),
    };
    Mapping {
        time: args.time_column.clone().unwrap_or_else(|| "time".to_owned()),
        time_style: TimeStyle::Iso,
        accounts: accounts(args, Some("subject")),
        uses: asked_uses(args).unwrap_or_else(by_type),
    }
}

fn access_log_mapping(args: &Args) -> anyhow::Result<Mapping> {
    let uses = match asked_uses(args) {
        Some(uses) => uses,
        None => counted("api.requests", &[("api.bytes", "bytes")])?,
    };
    Ok(Mapping {
        time: args.time_column.clone().unwrap_or_else(|| "time".to_owned()),
        time_style: TimeStyle::AccessLog,
        accounts: accounts(args, Some("client")),
        uses,
    })
}

struct Row<'a> {
    header: &'a [String],
    values: &'a [std::borrow::Cow<'a, str>],
}

impl Fields for Row<'_> {
    fn text(&self, column: &str) -> Option<std::borrow::Cow<'_, str>> {
        let index = self.header.iter().position(|name| name == column)?;
        self.values
            .get(index)
            .map(|value| std::borrow::Cow::Borrowed(value.as_ref()))
    }
}

/// The lines of a file of this layout, one by one.
#[derive(Debug)]
pub struct Source<'a, R> {
    lines: Lines<R>,
    layout: &'a Layout,
    header_is_next: bool,
}

impl<'a, R: BufRead> Source<'a, R> {
    /// Reads from the beginning of a file.
    pub fn new(reader: R, layout: &'a Layout) -> Self {
        Self {
            lines: Lines::new(reader),
            layout,
            header_is_next: layout.format == Format::Csv,
        }
    }

    /// The next line of data, with its number; none at the end.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next(&mut self) -> io::Result<Option<(u64, Result<Line, Malformed>)>> {
        if std::mem::take(&mut self.header_is_next) {
            self.lines.next()?;
        }
        let Some((number, text)) = self.lines.next()? else {
            return Ok(None);
        };
        Ok(Some((
            number,
            text.and_then(|text| self.layout.read(number, text)),
        )))
    }

    /// What it read from.
    pub fn into_inner(self) -> R {
        self.lines.into_inner()
    }
}

#[cfg(test)]
mod tests;
