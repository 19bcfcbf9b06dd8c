//! Holds: in time, late, above what was held, over the end of an hour, and with limits that change.

use super::UNIT;
use crate::{
    check::everything_holds,
    config::{Config, EMPTY, hold},
    sights::Sight,
};

#[test]
fn a_hold_is_kept_through_repeats_release_and_expiry() {
    const WORLD: Config = Config {
        name: "one unit for a hold and a request that repeat",
        limits: [1, 0, 0],
        wishes: &[hold(1, 1), UNIT],
        slices: 2,
        states_min: 100_000,
        sights: &[
            Sight::Committed,
            Sight::Released,
            Sight::Expired,
            Sight::LateCommit,
            Sight::ReservedTwice,
            Sight::CommitOverrun,
            Sight::RepeatFoundEvent,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_commit_above_its_hold_is_kept_through_repeats_a_crash_and_two_settlers() {
    const WORLD: Config = Config {
        name: "two units for a commit above its hold that repeats, a crash",
        wishes: &[hold(1, 2)],
        settlers: 2,
        crashes: 1,
        states_min: 80_000,
        sights: &[
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::SettledByTwo,
            Sight::Committed,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
            Sight::CommitOverrunInPart,
            Sight::ReservedTwice,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn two_holds_and_a_request_share_a_limit() {
    const WORLD: Config = Config {
        name: "two units for two holds and a request, a crash",
        wishes: &[hold(1, 2), hold(1, 1), UNIT],
        asks: 1,
        crashes: 1,
        states_min: 350_000,
        sights: &[
            Sight::Crash,
            Sight::Committed,
            Sight::Released,
            Sight::Expired,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
            Sight::Denied,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_hold_counts_in_the_hour_of_its_reservation() {
    const WORLD: Config = Config {
        name: "two units a day, one an hour, for a hold and a request",
        limits: [2, 1, 1],
        hours: true,
        wishes: &[hold(1, 1), UNIT, UNIT],
        asks: 1,
        states_min: 60_000,
        sights: &[
            Sight::HourEnded,
            Sight::Committed,
            Sight::LateCommit,
            Sight::Expired,
            Sight::Released,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_lowered_limit_leaves_holds_as_they_are() {
    const WORLD: Config = Config {
        name: "two units for a hold and a request, lowered to one, raised to three",
        wishes: &[hold(1, 2), UNIT],
        asks: 1,
        lower_to: 1,
        raise_to: 3,
        states_min: 50_000,
        sights: &[
            Sight::Lowered,
            Sight::LoweredBelow,
            Sight::LoweringDone,
            Sight::Raised,
            Sight::Committed,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_hold_ends_and_its_row_is_deleted() {
    const WORLD: Config = Config {
        name: "two units for a commit above its hold and a request, rows are deleted",
        wishes: &[hold(1, 2), UNIT],
        asks: 1,
        settlers: 2,
        ends: true,
        slow_commits: true,
        states_min: 250_000,
        sights: &[
            Sight::Ended,
            Sight::RowDeleted,
            Sight::RowMissed,
            Sight::SlowCommit,
            Sight::RefusedEnded,
            Sight::LateCommit,
            Sight::CommitAbove,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}
