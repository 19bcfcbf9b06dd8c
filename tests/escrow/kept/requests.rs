//! Requests of one durable metric, through crashes, repeats, duplicates and whatever becomes of Redis; and those of a
//! buffered one.

use super::UNIT;
use crate::{
    check::everything_holds,
    config::{Config, EMPTY, Hints, buffered},
    sights::Sight,
};

#[test]
fn a_limit_is_kept_through_a_crash_repeats_and_two_settlers() {
    const WORLD: Config = Config {
        name: "one unit for two that repeat, a crash",
        limits: [1, 0, 0],
        wishes: &[UNIT, UNIT],
        settlers: 2,
        crashes: 1,
        states_min: 100_000,
        sights: &[
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::AnswerLost,
            Sight::Hedged,
            Sight::RepeatFoundEvent,
            Sight::RefusedSealed,
            Sight::SettledByTwo,
            Sight::SettlerCrashed,
            Sight::SettledUnderway,
            Sight::Denied,
            Sight::Tombstone,
            Sight::TombstoneMet,
            Sight::DenialFoundEvent,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_limit_is_kept_by_slices_of_different_size() {
    const WORLD: Config = Config {
        name: "two units in slices of one and two, a crash",
        wishes: &[UNIT, UNIT],
        caps: &[1, 2],
        slices: 2,
        settlers: 2,
        crashes: 1,
        states_min: 400_000,
        sights: &[
            Sight::Crash,
            Sight::OrphanCharged,
            Sight::SettledByTwo,
            Sight::SettlerCrashed,
            Sight::SettledUnderway,
            Sight::Tombstone,
            Sight::TombstoneMet,
            Sight::DenialFoundEvent,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_limit_is_kept_where_charges_come_twice_and_callers_ask_again_after_no() {
    const WORLD: Config = Config {
        name: "two units for three that repeat, duplicates",
        wishes: &[UNIT, UNIT, UNIT],
        asks_after_no: true,
        duplicates: true,
        slices: 2,
        states_min: 400_000,
        sights: &[
            Sight::Duplicated,
            Sight::AskedAfterNo,
            Sight::RepeatFoundEvent,
            Sight::RefusedSealed,
            Sight::Tombstone,
            Sight::TombstoneMet,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_limit_is_kept_through_whatever_becomes_of_redis() {
    const WORLD: Config = Config {
        name: "one unit in Redis for two that repeat, a fault",
        limits: [1, 0, 0],
        wishes: &[UNIT, UNIT],
        hints: Hints::Redis,
        slices: 2,
        redis_faults: 1,
        states_min: 200_000,
        sights: &[
            Sight::RedisLost,
            Sight::RedisRolledBack,
            Sight::RedisSplit,
            Sight::RepeatFoundAnswer,
            Sight::RefusedCap,
            Sight::RefusedSealed,
            Sight::TombstoneMet,
            Sight::DenialFoundEvent,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_limit_is_kept_through_two_faults_of_redis() {
    const WORLD: Config = Config {
        name: "two units in Redis for three, two faults",
        wishes: &[UNIT, UNIT, UNIT],
        asks: 1,
        caps: &[2],
        hints: Hints::Redis,
        slices: 2,
        redis_faults: 2,
        states_min: 150_000,
        sights: &[
            Sight::RedisLost,
            Sight::RedisRolledBack,
            Sight::RedisSplit,
            Sight::RefusedCap,
            Sight::RefusedSealed,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_limit_is_kept_whatever_replicas_believe() {
    const WORLD: Config = Config {
        name: "one unit for three that repeat, beliefs of any kind",
        limits: [1, 0, 0],
        wishes: &[UNIT, UNIT, UNIT],
        hints: Hints::Anything,
        slices: 2,
        states_min: 150_000,
        sights: &[
            Sight::RefusedCap,
            Sight::RefusedSealed,
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
fn answers_of_a_buffered_metric_stand_through_a_crash() {
    const WORLD: Config = Config {
        name: "two buffered units for three that repeat, a crash",
        wishes: &[buffered(1), buffered(1), buffered(1)],
        caps: &[1, 2],
        settlers: 2,
        crashes: 1,
        states_min: 60_000,
        sights: &[
            Sight::Buffered,
            Sight::AnswerLost,
            Sight::Crash,
            Sight::SumLost,
            Sight::FlushRepeated,
            Sight::FlushOrphaned,
            Sight::BufferedClosed,
            Sight::SettledByTwo,
            Sight::Denied,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}
