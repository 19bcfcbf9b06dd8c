//! Calls that need more than one slice, and batches of them.

use super::UNIT;
use crate::{
    check::everything_holds,
    config::{Config, EMPTY, Hints, consume, consume_both},
    sights::Sight,
};

#[test]
fn a_call_over_two_metrics_is_charged_as_a_whole_or_not_at_all() {
    const WORLD: Config = Config {
        name: "one unit of each of two metrics for two that repeat",
        limits: [1, 1, 0],
        wishes: &[consume_both(1, 1), UNIT],
        states_min: 150_000,
        sights: &[
            Sight::TwoMetrics,
            Sight::TwoMetricsUndone,
            Sight::RefusedSealed,
            Sight::TombstoneMet,
            Sight::DenialFoundEvent,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn calls_over_two_metrics_share_batches() {
    const WORLD: Config = Config {
        name: "one unit of each of two metrics, batches, beliefs of any kind",
        limits: [1, 1, 0],
        wishes: &[consume_both(1, 1), consume_both(1, 1)],
        hints: Hints::Anything,
        batches: true,
        states_min: 200_000,
        sights: &[
            Sight::TwoMetrics,
            Sight::TwoMetricsUndone,
            Sight::Batch,
            Sight::BatchFellBack,
            Sight::RefusedCap,
            Sight::TombstoneMet,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn an_amount_is_spread_over_two_slices_and_batches_fall_back() {
    const WORLD: Config = Config {
        name: "two units spread over slices, batches, beliefs of any kind",
        wishes: &[consume(2), UNIT],
        hints: Hints::Anything,
        spread: true,
        batches: true,
        slices: 2,
        states_min: 150_000,
        sights: &[
            Sight::Spread,
            Sight::SpreadRefused,
            Sight::Batch,
            Sight::BatchFellBack,
            Sight::RefusedCap,
            Sight::TombstoneMet,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}

#[test]
fn a_slice_pays_by_the_day_and_by_the_hour_and_not_in_the_next_hour() {
    const WORLD: Config = Config {
        name: "two units a day, one an hour, for two that repeat",
        limits: [2, 1, 1],
        hours: true,
        wishes: &[UNIT, UNIT],
        states_min: 200_000,
        sights: &[
            Sight::HourEnded,
            Sight::RepeatInNextHour,
            Sight::TombstoneMet,
            Sight::FullUse,
        ],
        ..EMPTY
    };
    everything_holds(&WORLD);
}
