//! Larger worlds with every rule, each searched to its end in minutes.

use crate::{
    check::everything_holds,
    config::{Config, EMPTY, Hints, Wish, buffered, consume, consume_both, give_back, hold},
    sights::Sight,
};

/// A request for one unit, which is what most of these want.
const UNIT: Wish = consume(1);

#[test]
#[ignore = "minutes: make test-long"]
fn three_requests_share_slices_of_different_size() {
    const WORLD: Config = Config {
        name: "two units for three that repeat, slices of one and two, a crash",
        wishes: &[UNIT, UNIT, UNIT],
        caps: &[1, 2],
        slices: 2,
        crashes: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::SettledUnderway,
            Sight::TombstoneMet,
            Sight::DenialFoundEvent,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn four_requests_outlive_two_crashes() {
    const WORLD: Config = Config {
        name: "three units for four, slices of one and two, two crashes",
        limits: [3, 0, 0],
        wishes: &[UNIT, UNIT, UNIT, UNIT],
        asks: 1,
        caps: &[1, 2],
        settlers: 2,
        crashes: 2,
        states_min: 1_000_000,
        sights: &[
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::SettledByTwo,
            Sight::Denied,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn redis_fails_twice_under_two_settlers() {
    const WORLD: Config = Config {
        name: "two units in Redis for two that repeat, two faults",
        wishes: &[UNIT, UNIT],
        caps: &[2],
        hints: Hints::Redis,
        slices: 2,
        settlers: 2,
        redis_faults: 2,
        states_min: 1_000_000,
        sights: &[
            Sight::RedisLost,
            Sight::RedisRolledBack,
            Sight::RedisSplit,
            Sight::RepeatFoundAnswer,
            Sight::SettledByTwo,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn an_hour_ends_over_three_requests() {
    const WORLD: Config = Config {
        name: "two units a day, one an hour, for three that repeat, beliefs of any kind",
        limits: [2, 1, 1],
        hours: true,
        wishes: &[UNIT, UNIT, UNIT],
        slices: 2,
        hints: Hints::Anything,
        states_min: 1_000_000,
        sights: &[
            Sight::HourEnded,
            Sight::RepeatInNextHour,
            Sight::RefusedCap,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn amounts_are_spread_over_slices_of_different_size() {
    const WORLD: Config = Config {
        name: "three units spread over slices, batches, beliefs of any kind",
        limits: [3, 0, 0],
        wishes: &[consume(2), UNIT],
        caps: &[1, 2],
        hints: Hints::Anything,
        spread: true,
        batches: true,
        states_min: 1_000_000,
        sights: &[
            Sight::Spread,
            Sight::SpreadRefused,
            Sight::Batch,
            Sight::BatchFellBack,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn calls_over_two_metrics_outlive_a_crash() {
    const WORLD: Config = Config {
        name: "two units of one metric and one of another for two calls that repeat, a crash",
        limits: [2, 1, 0],
        wishes: &[consume_both(1, 1), consume_both(1, 1)],
        slices: 4,
        crashes: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::TwoMetrics,
            Sight::TwoMetricsUndone,
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn two_holds_and_a_request_outlive_a_crash_under_two_settlers() {
    const WORLD: Config = Config {
        name: "three units for two holds and a request, a crash",
        limits: [3, 0, 0],
        wishes: &[hold(2, 1), hold(1, 2), UNIT],
        asks: 1,
        slices: 4,
        settlers: 2,
        crashes: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::Committed,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
            Sight::Crash,
            Sight::SettledByTwo,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn a_limit_is_lowered_under_a_hold_that_repeats() {
    const WORLD: Config = Config {
        name: "two units for a commit above its hold and a request that repeat, lowered to one",
        wishes: &[hold(1, 2), UNIT],
        lower_to: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::Lowered,
            Sight::LoweredBelow,
            Sight::LoweringDone,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
            Sight::ReservedTwice,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn a_hold_that_repeats_ends_and_its_row_is_deleted() {
    const WORLD: Config = Config {
        name: "two units for a hold and a request that repeat, rows are deleted",
        wishes: &[hold(1, 1), UNIT],
        slices: 2,
        settlers: 2,
        ends: true,
        states_min: 1_000_000,
        sights: &[
            Sight::Ended,
            Sight::RowDeleted,
            Sight::RowMissed,
            Sight::RefusedEnded,
            Sight::LateCommit,
            Sight::ReservedTwice,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn repeats_are_corrected_and_taken_back() {
    const WORLD: Config = Config {
        name: "two units for two that repeat, direct use, corrections, events taken back, a crash",
        wishes: &[UNIT, UNIT],
        slices: 2,
        direct: 1,
        corrections: true,
        voids: true,
        crashes: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::Direct,
            Sight::Corrected,
            Sight::Voided,
            Sight::CarvedAgain,
            Sight::Crash,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn two_returns_and_two_requests_share_a_level() {
    const WORLD: Config = Config {
        name: "two units of a level, two requests and two returns, direct use, events taken back, a crash",
        wishes: &[UNIT, UNIT, give_back(1), give_back(1)],
        asks: 1,
        settlers: 2,
        direct: 1,
        voids: true,
        crashes: 1,
        states_min: 1_000_000,
        sights: &[
            Sight::Direct,
            Sight::Voided,
            Sight::Returned,
            Sight::ReturnRefused,
            Sight::CarvedAgain,
            Sight::Crash,
            Sight::SettledByTwo,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn buffered_answers_stand_through_two_crashes() {
    const WORLD: Config = Config {
        name: "four buffered units for four that repeat, two crashes",
        limits: [4, 0, 0],
        wishes: &[buffered(1), buffered(1), buffered(1), buffered(2)],
        caps: &[1, 2],
        crashes: 2,
        states_min: 1_000_000,
        sights: &[
            Sight::Buffered,
            Sight::Crash,
            Sight::SumLost,
            Sight::FlushRepeated,
            Sight::FlushOrphaned,
            Sight::BufferedClosed,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
#[ignore = "minutes: make test-long"]
fn a_limit_is_kept_through_everything_at_once() {
    const WORLD: Config = Config {
        name: "two units for a commit above its hold and a request, everything at once, beliefs of any kind",
        wishes: &[hold(1, 2), UNIT],
        asks: 1,
        hints: Hints::Anything,
        settlers: 2,
        direct: 1,
        corrections: true,
        voids: true,
        lower_to: 1,
        raise_to: 3,
        states_min: 1_000_000,
        sights: &[
            Sight::Direct,
            Sight::Corrected,
            Sight::Voided,
            Sight::Lowered,
            Sight::LoweringDone,
            Sight::Raised,
            Sight::LateCommit,
            Sight::CommitAbove,
            Sight::CommitOverrun,
            Sight::SettledByTwo,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}
