//! `octroi replay FILE`: recorded traffic from a file into a running fleet.
//!
//! The file is read twice, in memory that does not grow with it. The first pass (`scan`) hashes it, finds
//! malformed lines and adds up the good ones. The second (`feed`) sends them, either as usage events in
//! batches (`send`) or as one CONSUME a line (`check`). Then the ledger's totals are compared (`settle`).
//!
//! Every id follows from the file's content and the line, so that a run that was cut off can be run again:
//! what the ledger has, it does not take twice.
//!
//! It owns: formats and mappings, the choice of accounts, ids, pace, and the comparison.
//! It does not own: any rule of a limit, a window or a threshold; it asks and counts answers.

mod access_log;
mod args;
mod check;
mod cloud_events;
mod csv_row;
mod feed;
mod fleet;
mod instant;
mod lines;
mod malformed;
mod mapping;
mod names;
mod pass;
mod prepare;
mod progress;
mod report;
mod scan;
mod send;
mod settle;
mod source;
mod tally;
pub mod zipf;

use std::collections::BTreeSet;

use anyhow::Context as _;
use jiff::SignedDuration;
use octroi_core::{AccountId, PlanSlug};
use octroi_kit::link::Link;
use tokio_util::sync::CancellationToken;

pub use args::{Args, Format, Speed};
pub use mapping::Amount;
pub use report::Report;
pub use scan::{LeftOutLine, Total, Totals};
pub use tally::Stopped;

use feed::Feed;
use fleet::Fleet;
use mapping::Accounts;
use names::Names;
use pass::Pass;
use prepare::Subscription;
use progress::say;
use scan::Scan;
use settle::Waits;
use source::Layout;

/// The plan of the accounts where nobody names one.
const PLAN_DEFAULT: &str = "replay";

/// Replays the file of `args` into the fleet that `link` leads to, until it is done or `stop` is cancelled. Only
/// `--dry-run` needs no fleet.
///
/// # Errors
/// Where nothing could be sent. What ends a run that has begun is in its report.
pub async fn run(args: Args, link: Option<Link>, stop: CancellationToken) -> anyhow::Result<Report> {
    run_with(args, link, stop, Waits::default()).await
}

async fn run_with(
    args: Args,
    link: Option<Link>,
    stop: CancellationToken,
    waits: Waits,
) -> anyhow::Result<Report> {
    let (path, strict) = (args.file.clone(), args.strict);
    let layout = Layout::of(&scan::first_line(&path)?, &args)?;
    let scanned = layout.clone();
    let scan = tokio::task::spawn_blocking(move || scan::scan(&path, &scanned, strict))
        .await
        .context("reading the file ended early")??;
    tell_malformed(&scan);
    let plan = match &args.plan {
        Some(plan) => plan.clone(),
        None => PlanSlug::parse(PLAN_DEFAULT)?,
    };
    let feed = feed(&args, layout, scan, &plan)?;
    let mut report = begin_report(&args, &feed, &plan);
    if !args.dry_run && feed.scan.first_at().is_some() {
        let link = link.context("a replay needs a fleet")?;
        let fleet = Fleet::new(link, fleet::AWAY_MAX, stop.child_token());
        let subscription = subscription(&args, &feed, plan);
        Pass {
            fleet,
            feed,
            subscription,
            speed: args.speed,
            check: args.check,
            waits,
        }
        .run(&mut report)
        .await?;
    } else if !args.dry_run {
        // A file without lines has nothing that the ledger could lack.
        report.ledger_totals = Some(Totals::default());
    }
    report.judge();
    Ok(report)
}

fn tell_malformed(scan: &Scan) {
    for LeftOutLine { line, problem } in &scan.malformed.first {
        say(&format!("line {line} {problem}; it is left out"));
    }
    let told = u64::try_from(scan.malformed.first.len()).unwrap_or_default();
    if scan.malformed.count > told {
        say(&format!(
            "{} further lines are malformed and left out",
            scan.malformed.count - told
        ));
    }
}

fn feed(args: &Args, layout: Layout, scan: Scan, plan: &PlanSlug) -> anyhow::Result<Feed> {
    let shift = match (args.shift_to, scan.span) {
        (Some(to), Some((first, last))) => {
            let shift = to.duration_since(first);
            last.checked_add(shift)
                .context("--shift-to moves the last line out of the calendar")?;
            shift
        }
        _ => SignedDuration::ZERO,
    };
    let run = names::Run {
        file: &scan.hash,
        mapping: &layout.mapping,
        plan,
        shift,
        check: args.check,
    };
    let names = Names::of(&run);
    Ok(Feed {
        path: args.file.clone(),
        layout,
        scan,
        names,
        shift,
    })
}

fn subscription(args: &Args, feed: &Feed, plan: PlanSlug) -> Subscription {
    // Windows of all recorded times lie behind the anchor.
    let first_at = feed.scan.first_at().unwrap_or_default();
    let moved = first_at.checked_add(feed.shift).unwrap_or(first_at);
    Subscription {
        plan,
        keep_other: args.plan.is_none() && matches!(feed.layout.mapping.accounts, Accounts::Column(_)),
        request_id: feed.names.subscription_request_id(),
        anchor_at: instant::month_start(moved),
    }
}

fn begin_report(args: &Args, feed: &Feed, plan: &PlanSlug) -> Report {
    let spread = matches!(feed.layout.mapping.accounts, Accounts::Spread(_));
    let mut report = Report {
        file: args.file.display().to_string(),
        file_sha256: hex::encode(feed.scan.hash),
        lines: feed.scan.lines,
        accounts: u64::try_from(feed.accounts().len()).unwrap_or_default(),
        account_prefix: spread.then(|| feed.names.account_prefix()),
        plan: plan.to_string(),
        source: if args.check {
            check::SOURCE.to_owned()
        } else {
            feed.names.source()
        },
        check: args.check,
        dry_run: args.dry_run,
        file_totals: feed.scan.totals.clone(),
        ..Report::default()
    };
    report.left_out(feed.scan.malformed.clone());
    report
}

impl Feed {
    /// The accounts of the good lines.
    fn accounts(&self) -> BTreeSet<AccountId> {
        self.scan
            .owners
            .iter()
            .map(|owner| self.names.account(owner))
            .collect()
    }
}

#[cfg(test)]
mod tests;
