//! What became of what was sent.

use std::{collections::BTreeMap, fmt};

use octroi_core::MetricSlug;

use super::{
    fleet::Failure,
    scan::{LeftOut, Totals},
};

/// Counts of what was sent and answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were sent, each once however often it was tried.
    pub sent: u64,
    /// Events that the ledger did not have before.
    pub recorded: u64,
    /// Events that the ledger had before.
    pub duplicates: u64,
    /// Lines that the quota allowed.
    pub allowed: u64,
    /// Lines that the quota denied, by the metric whose limit denied them.
    pub denied: BTreeMap<MetricSlug, u64>,
    /// What the allowed lines add up to.
    pub allowed_totals: Totals,
    /// What those of them add up to that this run recorded for sure.
    pub recorded_totals: Totals,
    /// What those add up to of which nobody knows whether this run recorded them or an earlier one: the fleet
    /// had them when it was asked, but it was asked again, since an answer was lost.
    pub unsure_totals: Totals,
    /// What the fleet refused for good, by line.
    pub refused: LeftOut,
    /// Where the run ended before its end.
    pub stopped: Option<Stopped>,
}

/// Where and why a run ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stopped {
    /// The first line that is not done; all lines before it are.
    pub line: u64,
    /// Why.
    pub why: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped at line {}: {}; run it again to go on, which adds nothing twice",
            self.line, self.why
        )
    }
}

impl Tally {
    /// Adds what became of more.
    pub fn add(&mut self, more: Self) {
        self.sent += more.sent;
        self.recorded += more.recorded;
        self.duplicates += more.duplicates;
        self.allowed += more.allowed;
        for (metric, lines) in more.denied {
            *self.denied.entry(metric).or_default() += lines;
        }
        for (totals, more) in [
            (&mut self.allowed_totals, &more.allowed_totals),
            (&mut self.recorded_totals, &more.recorded_totals),
            (&mut self.unsure_totals, &more.unsure_totals),
        ] {
            for (metric, total) in &more.0 {
                totals.add(metric, *total);
            }
        }
        self.refused.add(more.refused);
        if let Some(Stopped { line, why }) = more.stopped {
            self.stop_because(line, why);
        }
    }

    /// Notes that a line is not done. The first line and the first real cause are kept.
    pub fn stop(&mut self, line: u64, failure: &Failure) {
        self.stop_because(line, failure.to_string());
    }

    fn stop_because(&mut self, line: u64, why: String) {
        match &mut self.stopped {
            None => self.stopped = Some(Stopped { line, why }),
            Some(stopped) => {
                if stopped.why == Failure::Stopped.to_string() {
                    stopped.why = why;
                }
                stopped.line = stopped.line.min(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn a_stop_is_told_with_its_first_line_and_its_cause() {
        let mut tally = Tally::default();
        tally.stop(70, &Failure::Stopped);
        tally.stop(50, &Failure::Refused(Status::not_found("gone")));
        tally.stop(60, &Failure::Stopped);
        let stopped = tally.stopped.expect("a stop");
        assert_eq!(stopped.line, 50);
        assert_eq!(stopped.why, "the fleet refused: gone (NotFound)");
    }
}
