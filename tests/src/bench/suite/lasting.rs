//! A case that goes on for a while, as long as any buffer would need to show that it grows; and then the ledger, which
//! must have what was allowed.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Accounts, rig::Rig};
use crate::bench::{
    load::{Case, Tally},
    report::{Report, Unit},
    rounds::Figure,
    traffic::Traffic,
};

/// How long it goes on.
const MEASURED: Duration = Duration::from_secs(20);
/// How soon after it the ledger must have everything.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked at what waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The replica's own figure of what waits for the ledger.
const WAITING: &str = "octroi_quota_buffered_waiting";

/// What became of a case that went on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasted {
    /// What waited in the last quarter, as a multiple of what waited in the second.
    growth: f64,
    /// Units that were allowed and not in the ledger in time.
    missing: u64,
    /// How long the ledger needed after the last answer.
    settled_s: f64,
    /// Requests in a second.
    rate: f64,
}

impl Lasted {
    /// Whether what was allowed is recorded, and at the pace at which it is allowed.
    pub(super) fn is_recorded(&self) -> bool {
        self.missing == 0 && self.growth <= 1.5
    }

    /// Adds its rows.
    pub(super) fn add(&self, report: &mut Report, name: &str) -> Result<()> {
        let add = |report: &mut Report, what: &str, unit, value| {
            report.add(&format!("{name}, 20 s: {what}"), unit, &Figure::of(value))
        };
        add(report, "decisions", Unit::DecisionsPerSecond, self.rate)?;
        add(report, "what waits, end to begin", Unit::Times, self.growth)?;
        add(
            report,
            "not in the ledger 10 s later",
            Unit::Units,
            self.missing as f64,
        )?;
        add(report, "until the ledger has it", Unit::Seconds, self.settled_s)
    }
}

/// Runs `case` for 20 s and then waits for the ledger.
#[expect(clippy::float_arithmetic, reason = "a figure for people")]
pub(super) fn run<T: Traffic + Send>(
    rig: &Rig<'_>,
    case: &Case,
    traffic: &mut T,
    accounts: &Accounts<'_>,
) -> Result<Lasted> {
    let case = Case {
        measured: MEASURED,
        ..case.clone()
    };
    let (done, waiting) = while_it_runs(rig, &case, traffic)?;
    rig.note(accounts.name, accounts.metric, done.allowed);
    let (missing, settled_s) = settle(rig, accounts)?;
    Ok(Lasted {
        growth: growth(&waiting),
        missing,
        settled_s,
        rate: done.decided() as f64 / (case.warm_up + MEASURED).as_secs_f64(),
    })
}

/// Runs the case on a thread of its own and looks meanwhile at what waits.
fn while_it_runs<T: Traffic + Send>(
    rig: &Rig<'_>,
    case: &Case,
    traffic: &mut T,
) -> Result<(Tally, Vec<f64>)> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| crate::bench::load::run(case, traffic));
        let mut waiting = Vec::new();
        while !running.is_finished() {
            std::thread::sleep(LOOK_EVERY);
            waiting.push(rig.metric(WAITING)?);
        }
        let round = running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
            .good()?;
        Ok((round.total, waiting))
    })
}

/// The mean of the last quarter by that of the second: the first may still fill up.
#[expect(clippy::float_arithmetic, reason = "a figure for people")]
fn growth(waiting: &[f64]) -> f64 {
    let quarter = waiting.len() / 4;
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len().max(1) as f64;
    let (begin, end) = (
        mean(&waiting[quarter..2 * quarter]),
        mean(&waiting[waiting.len() - quarter..]),
    );
    // One account is nothing that could grow.
    end.max(1.0) / begin.max(1.0)
}

/// Waits until the ledger has what was allowed. Answers what it lacks in the end, and how long that took.
pub(super) fn settle(rig: &Rig<'_>, accounts: &Accounts<'_>) -> Result<(u64, f64)> {
    let since = Instant::now();
    loop {
        let (recorded, _) = rig.ledger(accounts.name, accounts.metric, accounts.limit)?;
        let missing = rig
            .allowed(accounts.name, accounts.metric)
            .saturating_sub(recorded);
        if missing == 0 || since.elapsed() >= SETTLE_MAX {
            return Ok((missing, since.elapsed().as_secs_f64()));
        }
        std::thread::sleep(LOOK_EVERY / 2);
    }
}
