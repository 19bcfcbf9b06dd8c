//! What the command line takes.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use octroi_core::{MetricSlug, PlanSlug};

use super::{instant, mapping::Amount, zipf::ACCOUNTS_MAX};

/// Sends recorded traffic from a file into a running fleet.
///
/// Without options a file whose header has TIMESTAMP, ContextTokens and GeneratedTokens counts as
/// llm.requests, llm.tokens_in and llm.tokens_out of 300 accounts; CloudEvents count as their type, of the
/// account in their subject; a combined access log counts as api.requests and api.bytes of the client.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file: CSV with a header, JSON Lines of CloudEvents, or a combined access log.
    pub file: PathBuf,
    /// How it is written; looked up in its first line where not given.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// A metric and the column of its amounts; repeat for more. CloudEvents have columns such as
    /// data.tokens, access logs have client, user, time, request, status, bytes, referer and agent.
    #[arg(long = "metric", value_name = "METRIC=COLUMN")]
    pub metrics: Vec<Amount>,
    /// A metric of which each line counts one.
    #[arg(long, value_name = "METRIC")]
    pub count: Option<MetricSlug>,
    /// The column of the time; UTC where a time names no offset.
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
    /// Over how many accounts lines are spread, by a Zipf choice. [default for CSV: 300]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(ACCOUNTS_MAX)))]
    pub accounts: Option<u32>,
    /// What the choice of accounts starts from. [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// The column that names the account, instead of a choice.
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["accounts", "seed"])]
    pub account_column: Option<String>,
    /// The plan of the accounts. Accounts that the file names keep the plan that they have, unless this
    /// is given. [default: replay]
    #[arg(long)]
    pub plan: Option<PlanSlug>,
    /// How fast: recorded, a factor such as 10x, or max.
    #[arg(long, default_value = "max")]
    pub speed: Speed,
    /// Move all recorded times by as much as takes the first one here.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub shift_to: Option<Timestamp>,
    /// Ask the quota for each line; what it allows is recorded, what it denies is not.
    #[arg(long)]
    pub check: bool,
    /// Only read the file and say what is in it; needs no fleet.
    #[arg(long)]
    pub dry_run: bool,
    /// Stop at a malformed line instead of leaving it out.
    #[arg(long)]
    pub strict: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Comma-separated values with a header; a record is one line.
    Csv,
    /// One CloudEvent 1.0 in JSON a line.
    CloudEvents,
    /// The combined log of Apache and nginx.
    AccessLog,
}

/// How fast recorded time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as the fleet takes it.
    Max,
    /// So many thousandths of the recorded speed.
    Thousandths(u64),
}

impl Speed {
    /// How long after the first line one comes that was recorded `gap` after it; none where nobody waits.
    pub fn wait(self, gap: Duration) -> Option<Duration> {
        match self {
            Self::Max => None,
            Self::Thousandths(factor) => {
                // A recorded gap of microseconds times 1,000 is far below 2^128; a factor is at least 1.
                let waited_us = gap.as_micros() * 1_000 / u128::from(factor.max(1));
                Some(Duration::from_micros(
                    u64::try_from(waited_us).unwrap_or(u64::MAX),
                ))
            }
        }
    }
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            "recorded" => Ok(Self::Thousandths(1_000)),
            factor => thousandths(factor.strip_suffix('x').unwrap_or(factor))
                .filter(|factor| (1..=1_000_000_000).contains(factor))
                .map(Self::Thousandths)
                .ok_or_else(|| "must be recorded, max, or a factor from 0.001x to 1000000x".to_owned()),
        }
    }
}

/// A decimal with up to three places.
fn thousandths(text: &str) -> Option<u64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(part)
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    instant::parse(text).ok_or_else(|| "must be a time such as 2024-03-01T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn check(text: &str, expected: Option<Speed>) {
        assert_eq!(text.parse().ok(), expected, "{text:?}");
    }

    #[test]
    fn speeds_are_named_or_factors() {
        check("max", Some(Speed::Max));
        check("recorded", Some(Speed::Thousandths(1_000)));
        check("10x", Some(Speed::Thousandths(10_000)));
        check("10", Some(Speed::Thousandths(10_000)));
        check("0.5x", Some(Speed::Thousandths(500)));
        check("2.25x", Some(Speed::Thousandths(2_250)));
        for text in [
            "", "x", "0", "0x", "-1x", "1.2345x", ".5x", "1.x", "10xx", "fast", "1000001x",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_factor_shortens_what_was_recorded() {
        let gap = Duration::from_secs(3);
        assert_eq!(Speed::Max.wait(gap), None);
        assert_eq!(Speed::Thousandths(1_000).wait(gap), Some(gap));
        assert_eq!(
            Speed::Thousandths(10_000).wait(gap),
            Some(Duration::from_millis(300))
        );
        assert_eq!(Speed::Thousandths(500).wait(gap), Some(Duration::from_secs(6)));
    }

    #[test]
    fn options_are_read() {
        let line = "replay f.csv --metric a=A --metric b=B --count c --account-column who --plan pro --speed 5x \
                    --shift-to 2024-03-01T00:00:00Z --check --strict --json";
        let args = Command::try_parse_from(line.split_ascii_whitespace())
            .expect("good options")
            .args;
        assert_eq!(args.metrics.len(), 2);
        assert_eq!(args.speed, Speed::Thousandths(5_000));
        assert_eq!(
            args.shift_to.map(|at| at.to_string()).as_deref(),
            Some("2024-03-01T00:00:00Z")
        );
        assert!(args.check && args.strict && args.json && !args.dry_run);
    }

    #[test]
    fn options_that_contradict_are_refused() {
        for line in [
            "replay",
            "replay f --accounts 0",
            "replay f --accounts 100001",
            "replay f --accounts 3 --account-column who",
            "replay f --seed 3 --account-column who",
            "replay f --metric tokens",
            "replay f --plan Replay!",
            "replay f --speed warp",
            "replay f --shift-to soon",
        ] {
            assert!(
                Command::try_parse_from(line.split_ascii_whitespace()).is_err(),
                "{line}"
            );
        }
    }
}
