//! The second pass over the file, on a thread of its own, and when each line is due.

use std::{path::PathBuf, time::Duration};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricSlug, Units};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    args::Speed,
    mapping::Line,
    names::Names,
    scan::{self, Scan},
    source::Layout,
};

/// Lines that are read ahead of what is sent.
const READ_AHEAD: usize = 4_096;
/// What is due within this is sent at once: timers are no finer.
const TIMER: Duration = Duration::from_millis(1);

/// A line as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the file.
    pub line: u64,
    /// When it happened, moved where that was asked for.
    pub at: Timestamp,
    /// Whose use it is.
    pub account: AccountId,
    /// The amounts.
    pub uses: Vec<(MetricSlug, Units)>,
}

/// Where the lines come from.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The file.
    pub path: PathBuf,
    /// How it is read.
    pub layout: Layout,
    /// What was found in it.
    pub scan: Scan,
    /// The names that its lines get.
    pub names: Names,
    /// By how much its times are moved.
    pub shift: SignedDuration,
}

impl Feed {
    /// Begins to read. Lines that count as nothing are left out. The handle answers whether the file still
    /// is what was scanned.
    pub fn start(self) -> (mpsc::Receiver<Entry>, JoinHandle<anyhow::Result<bool>>) {
        let (entries, received) = mpsc::channel(READ_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            scan::read_again(&self.path, &self.layout, &self.scan, |line| {
                line.uses.is_empty() || entries.blocking_send(self.entry(line)).is_ok()
            })
        });
        (received, reading)
    }

    fn entry(&self, line: Line) -> Entry {
        Entry {
            line: line.number,
            // The ends of the span were moved before, so what lies between them can be.
            at: line.at.checked_add(self.shift).unwrap_or(line.at),
            account: self.names.account(&line.owner),
            uses: line.uses,
        }
    }
}

/// When lines are due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When the first line was due.
    pub start: Instant,
    /// The first instant of the lines.
    pub first_at: Timestamp,
    /// How fast time passes.
    pub speed: Speed,
}

impl Pace {
    /// When a line of this instant is due; none where that is now.
    pub fn due(&self, at: Timestamp, now: Instant) -> Option<Instant> {
        let gap = Duration::try_from(at.duration_since(self.first_at)).unwrap_or(Duration::ZERO);
        let due = self.start.checked_add(self.speed.wait(gap)?)?;
        (due > now + TIMER).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_by_its_recorded_gap() {
        let first_at: Timestamp = "2024-03-01T08:00:00Z".parse().expect("an instant");
        let start = Instant::now();
        let check = |speed, gap_ms: i64, passed_ms: u64, expected_ms: Option<u64>| {
            let due = Pace {
                start,
                first_at,
                speed,
            }
            .due(
                first_at + SignedDuration::from_millis(gap_ms),
                start + Duration::from_millis(passed_ms),
            );
            assert_eq!(
                due,
                expected_ms.map(|ms| start + Duration::from_millis(ms)),
                "{speed:?} {gap_ms} {passed_ms}"
            );
        };
        check(Speed::Max, 60_000, 0, None);
        check(Speed::Thousandths(1_000), 0, 0, None);
        check(Speed::Thousandths(1_000), -5_000, 0, None);
        check(Speed::Thousandths(1_000), 60_000, 0, Some(60_000));
        check(Speed::Thousandths(10_000), 60_000, 5_000, Some(6_000));
        check(Speed::Thousandths(10_000), 60_000, 5_999, None);
        check(Speed::Thousandths(10_000), 60_000, 9_000, None);
    }
}
