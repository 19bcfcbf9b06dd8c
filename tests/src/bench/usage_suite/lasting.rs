//! Recording that goes on for a while, as long as any buffer would need to show that it grows.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::rig::Rig;
use crate::bench::{
    load::{self, Case, Tally},
    proc,
    report::{Report, Unit},
    rounds::Figure,
    traffic::Traffic,
};

/// How long it goes on.
const MEASURED: Duration = Duration::from_secs(20);
/// How often it is looked at what waits, and at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was seen at an instant.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Events that the rollups lack.
    lag: i64,
    /// Memory of usage that is not swapped out, in bytes.
    resident: u64,
}

/// What became of a case that went on.
#[derive(Clone, Debug)]
pub(super) struct Lasted {
    looks: Vec<Look>,
    /// Events that were recorded.
    events: u64,
    /// From the first event until nothing more was sent.
    sent_s: f64,
    /// From then on until the rollups had all.
    summed_after_s: f64,
}

impl Lasted {
    /// Whether the rollups keep up with what is recorded.
    pub(super) fn keeps_up(&self) -> bool {
        self.growth(|look| look.lag as f64) <= 1.5
    }

    /// Adds its rows.
    #[expect(clippy::float_arithmetic, reason = "figures for people")]
    pub(super) fn add(&self, report: &mut Report, name: &str) -> Result<()> {
        let mut add =
            |what: &str, unit, value| report.add(&format!("{name}, 20 s: {what}"), unit, &Figure::of(value));
        let events = self.events as f64;
        add("events", Unit::EventsPerSecond, events / self.sent_s)?;
        let summed_s = self.sent_s + self.summed_after_s;
        add("events, summed", Unit::EventsPerSecond, events / summed_s)?;
        add(
            "what the rollups lack, end to begin",
            Unit::Times,
            self.growth(|look| look.lag as f64),
        )?;
        add("until the rollups have it", Unit::Seconds, self.summed_after_s)?;
        add(
            "resident memory of usage, end to begin",
            Unit::Times,
            self.growth(|look| look.resident as f64),
        )?;
        let most = self.looks.iter().map(|look| look.resident).max().unwrap_or(0);
        add("resident memory of usage", Unit::Megabytes, most as f64 / 1e6)
    }

    /// The mean of the last quarter by that of the second: the first may still fill up.
    #[expect(clippy::float_arithmetic, reason = "a figure for people")]
    fn growth(&self, figure: impl Fn(&Look) -> f64) -> f64 {
        let quarter = self.looks.len() / 4;
        let mean = |some: &[Look]| some.iter().map(&figure).sum::<f64>() / some.len().max(1) as f64;
        let begin = mean(&self.looks[quarter..2 * quarter]);
        let end = mean(&self.looks[self.looks.len() - quarter..]);
        // One event is nothing that could grow.
        end.max(1.0) / begin.max(1.0)
    }
}

/// Runs `case` for 20 s and then waits for the rollups.
pub(super) fn run<T: Traffic + Send>(
    rig: &Rig<'_>,
    accounts: &str,
    case: &Case,
    traffic: &mut T,
) -> Result<Lasted> {
    let case = Case {
        measured: MEASURED,
        ..case.clone()
    };
    let since = Instant::now();
    let (done, looks) = while_it_runs(rig, &case, traffic)?;
    let sent_s = since.elapsed().as_secs_f64();
    rig.note(accounts, done.allowed, done.allowed);
    Ok(Lasted {
        looks,
        events: done.allowed,
        sent_s,
        summed_after_s: rig.books.settle()?.as_secs_f64(),
    })
}

/// Runs the case on a thread of its own and looks meanwhile.
fn while_it_runs<T: Traffic + Send>(
    rig: &Rig<'_>,
    case: &Case,
    traffic: &mut T,
) -> Result<(Tally, Vec<Look>)> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| load::run(case, traffic));
        let mut looks = Vec::new();
        while !running.is_finished() {
            std::thread::sleep(LOOK_EVERY);
            looks.push(Look {
                lag: rig.runtime.block_on(rig.books.lag())?,
                resident: proc::resident_bytes(rig.usage_pid())?,
            });
        }
        let round = running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
            .good()
            .with_context(|| rig.fleet.log())?;
        Ok((round.total, looks))
    })
}
