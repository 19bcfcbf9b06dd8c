//! What the cases must reach. A case has its target's name, so these are the names of rows too.

use super::Group;
use crate::bench::report::Target;

/// Events that are amiss, in all that was run.
pub(super) const AMISS: &str = "events amiss in ledger, keys, rollups or notices";

/// A case that must reach something, and the group that it belongs to.
type Wanted = (Group, &'static str, f64);

#[rustfmt::skip]
const WANTED: &[Wanted] = &[
    (Group::InProcess, "4,096 callers in process: of pgbench", 8.0),
    (Group::InProcess, "4,096 callers in process: of COPY", 0.20),
    (Group::InProcess, "4,096 callers in process: until the rollups have it", 1.0),
    (Group::Wire, "TrackUsageStream, batches of 100: of pgbench", 8.0),
    (Group::Wire, "TrackUsageStream, batches of 100: of COPY", 0.20),
    (Group::Wire, "TrackUsageStream, batches of 100, 20 s: what the rollups lack, end to begin", 1.5),
    (Group::Wire, "TrackUsageStream, batches of 100, 20 s: resident memory of usage, end to begin", 1.25),
    (Group::Wire, "TrackUsageStream, a tenth sent again: of the same without", 0.90),
    (Group::Wire, "TrackUsageBatch of 100: of pgbench", 8.0),
    (Group::Wire, "TrackUsageBatch of 100: of COPY", 0.20),
    (Group::Wire, "TrackUsage, 1,536 in flight: of pgbench", 4.0),
    (Group::Alone, "TrackUsage, one caller alone: of INSERT alone", 1.5),
    (Group::Fresh, "acknowledged to rollup, at half of the peak: p99", 1.0),
    (Group::Fresh, "acknowledged to notice, at half of the peak: p99", 1.0),
    (Group::Reads, "a month by day of UTC, out of 10 million: p99", 20_000.0),
    (Group::Reads, "a month by day of UTC, out of 10 million: of 1 million", 1.3),
    (Group::Reads, "a month by day of Paris, out of 10 million: p99", 20_000.0),
    (Group::Reads, "a month by day of Paris, out of 10 million: of 1 million", 1.3),
    (Group::Reads, "first page of events, out of 10 million: p99", 50_000.0),
    (Group::Bus, "bus, 1,000 events a message: of one event a message", 30.0),
];

/// The targets of some groups, and what holds for any of them.
pub(super) fn of(groups: &[Group]) -> Vec<Target> {
    let wanted = WANTED.iter().filter(|(group, _, _)| groups.contains(group));
    let amiss = Target {
        case: AMISS,
        bound: 0.0,
    };
    wanted
        .map(|&(_, case, bound)| Target { case, bound })
        .chain([amiss])
        .collect()
}
