//! Limits that change, what enters without permission, what is given back, and rows that are deleted.

use super::UNIT;
use crate::{
    check::everything_holds,
    config::{Config, EMPTY, give_back},
    sights::Sight,
};

#[test]
fn a_lowered_limit_holds_once_its_caller_is_told() {
    const WORLD: Config = Config {
        name: "three units for three, lowered to one, raised to two, a crash",
        limits: [3, 0, 0],
        wishes: &[UNIT, UNIT, UNIT],
        asks: 1,
        caps: &[1, 2],
        crashes: 1,
        lower_to: 1,
        raise_to: 2,
        states_min: 500_000,
        sights: &[
            Sight::Lowered,
            Sight::LoweredBelow,
            Sight::LoweringDone,
            Sight::Raised,
            Sight::Crash,
            Sight::SettledUnderway,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn corrections_direct_use_and_events_taken_back_are_counted_once() {
    const WORLD: Config = Config {
        name: "two units for three, a unit of direct use, corrections, events taken back",
        wishes: &[UNIT, UNIT, UNIT],
        asks: 1,
        direct: 1,
        corrections: true,
        voids: true,
        states_min: 100_000,
        sights: &[
            Sight::Direct,
            Sight::Corrected,
            Sight::Voided,
            Sight::CarvedAgain,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_level_is_never_less_than_nothing_and_a_return_frees_its_units() {
    const WORLD: Config = Config {
        name: "one unit of a level for two and a return that repeat",
        limits: [1, 0, 0],
        wishes: &[UNIT, UNIT, give_back(1)],
        slices: 2,
        states_min: 250_000,
        sights: &[
            Sight::Returned,
            Sight::ReturnRefused,
            Sight::ReturnMetTombstone,
            Sight::CarvedAgain,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn what_a_level_holds_may_be_taken_back_too() {
    const WORLD: Config = Config {
        name: "one unit of a level, direct use, a return, events taken back",
        limits: [1, 0, 0],
        wishes: &[UNIT, give_back(1)],
        direct: 1,
        voids: true,
        states_min: 100_000,
        sights: &[
            Sight::Direct,
            Sight::Voided,
            Sight::Returned,
            Sight::ReturnRefused,
            Sight::ReturnMetTombstone,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn rows_of_slices_are_deleted_and_nothing_is_charged_to_them_anew() {
    const WORLD: Config = Config {
        name: "one unit for two that repeat, rows are deleted",
        limits: [1, 0, 0],
        wishes: &[UNIT, UNIT],
        slices: 2,
        settlers: 2,
        ends: true,
        slow_commits: true,
        states_min: 100_000,
        sights: &[
            Sight::Ended,
            Sight::RowDeleted,
            Sight::RowMissed,
            Sight::SlowCommit,
            Sight::RefusedEnded,
            Sight::SettledByTwo,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}
