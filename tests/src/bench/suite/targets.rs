//! What the cases must reach. A case has its target's name, so these are the names of rows too.

use super::Group;
use crate::bench::report::Target;

/// Units beyond a limit, in all that was run.
pub(super) const OVER_ADMISSION: &str = "over-admission";

/// A case that must reach something, and the group that it belongs to.
type Wanted = (Group, &'static str, f64);

#[rustfmt::skip]
const WANTED: &[Wanted] = &[
    (Group::Shape, "floor, a runtime a core: CPU of #[tokio::main]", 0.85),
    (Group::Point, "route: of the floor", 0.80),
    (Group::Point, "PEEK, one key: of the route", 0.90),
    (Group::Point, "PEEK, one key: CPU of the route", 1.15),
    (Group::Keys, "PEEK, 10,000 keys: of the route", 0.90),
    (Group::Keys, "PEEK, 10,000 keys: CPU of the route", 1.15),
    (Group::Point, "CONSUME, one key: of the route", 0.90),
    (Group::Point, "CONSUME, one key: CPU of the route", 1.15),
    (Group::Point, "CONSUME, one key: of the floor", 0.70),
    (Group::Point, "CONSUME, one key, 20 s: what waits, end to begin", 1.5),
    (Group::Point, "CONSUME, one key, 20 s: not in the ledger 10 s later", 0.0),
    (Group::Keys, "CONSUME, 10,000 keys: of the route", 0.90),
    (Group::Keys, "CONSUME, 10,000 keys: CPU of the route", 1.15),
    (Group::Keys, "CONSUME, 10,000 keys: of the floor", 0.70),
    (Group::Keys, "CONSUME, 10,000 keys, 20 s: what waits, end to begin", 1.5),
    (Group::Keys, "CONSUME, 10,000 keys, 20 s: not in the ledger 10 s later", 0.0),
    (Group::Bulk, "CONSUME, batches of 100: of the floor", 6.0),
    (Group::Bulk, "CONSUME, batches of 100, 20 s: what waits, end to begin", 1.5),
    (Group::Bulk, "CONSUME, batches of 100, 20 s: not in the ledger 10 s later", 0.0),
    (Group::Bulk, "CONSUME, stream: of the floor", 6.0),
    (Group::Bulk, "CONSUME, stream, 20 s: what waits, end to begin", 1.5),
    (Group::Bulk, "CONSUME, stream, 20 s: not in the ledger 10 s later", 0.0),
    (Group::Edge, "CONSUME, denied: of the allowed", 0.95),
    (Group::Durable, "CONSUME, durable: of TrackUsage", 0.50),
    (Group::Durable, "CONSUME, durable, 20 s: not in the ledger 10 s later", 0.0),
    (Group::Cold, "CONSUME, cold account", 5_000.0),
    (Group::Cold, "CONSUME, cold account: p99", 50_000.0),
    (Group::Cold, "CONSUME, cold account: not in the ledger 10 s later", 0.0),
    (Group::Holds, "reserve and commit: of the floor", 0.10),
    (Group::Memory, "1,000,000 accounts: resident memory", 1_000.0),
    (Group::Cache, "usage, a copy: of PostgreSQL alone", 5.0),
    (Group::Memory, "idle accounts: resident memory after as many others", 1.25),
    (Group::Layer, "layer, taken before: of the call", 1.3),
    (Group::Layer, "layer, held and committed: of the calls", 1.3),
    (Group::Layer, "layer, taken before: allocations beyond the call", 0.0),
    (Group::Layer, "layer, held and committed: allocations beyond the calls", 0.0),
];

/// The targets of some groups, and what holds for any of them.
pub(super) fn of(groups: &[Group]) -> Vec<Target> {
    let wanted = WANTED.iter().filter(|(group, _, _)| groups.contains(group));
    let over = Target {
        case: OVER_ADMISSION,
        bound: 0.0,
    };
    wanted
        .map(|&(_, case, bound)| Target { case, bound })
        .chain([over])
        .collect()
}
