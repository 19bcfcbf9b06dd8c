//! What each rule is for: without it, something does not hold. Each world is as small as shows it, and is kept where
//! the rule holds.

use crate::{
    check::is_broken_without,
    config::{Config, EMPTY, Hints, buffered, consume, consume_both, give_back, hold},
    invariants::Invariant,
    rules::Rule,
};

/// One unit, and two requests for it.
const ONE: Config = Config {
    name: "one unit for two",
    limits: [1, 0, 0],
    wishes: &[consume(1), consume(1)],
    asks: 1,
    slices: 2,
    ..EMPTY
};

/// The same, and each request may be repeated.
const ONE_REPEATED: Config = Config {
    name: "one unit for two that repeat",
    asks: 2,
    ..ONE
};

/// A hold and a request for one unit.
const ONE_HELD: Config = Config {
    name: "one unit for a hold and a request",
    wishes: &[hold(1, 1), consume(1)],
    ..ONE
};

/// One unit in Redis, and two requests for it.
const ONE_POOLED: Config = Config {
    name: "one unit in Redis for two",
    hints: Hints::Redis,
    redis_faults: 1,
    ..ONE
};

/// One unit of a buffered metric, and two requests for it.
const ONE_BUFFERED: Config = Config {
    name: "one buffered unit for two",
    wishes: &[buffered(1), buffered(1)],
    crashes: 1,
    ..ONE
};

/// Rows are deleted, and transactions are slow.
const ONE_ENDING: Config = Config {
    name: "one unit for two, and rows are deleted",
    ends: true,
    slow_commits: true,
    settlers: 2,
    ..ONE
};

#[test]
fn r1_without_refusing_sealed_slices_an_old_charge_lands_on_units_that_were_sold_again() {
    is_broken_without(Rule::SealedRefuses, Invariant::WithinLimit, &ONE);
}

#[test]
fn r2_without_refusing_beyond_the_cap_two_halves_of_redis_sell_one_unit() {
    is_broken_without(Rule::CapRefuses, Invariant::WithinLimit, &ONE_POOLED);
}

#[test]
fn r3_without_ids_that_follow_from_the_request_a_repeat_is_counted_twice() {
    const WORLD: Config = Config {
        name: "two units for one that repeats",
        limits: [2, 0, 0],
        wishes: &[consume(1)],
        ..ONE_REPEATED
    };
    is_broken_without(Rule::IdFollowsRequest, Invariant::CountedOnce, &WORLD);
}

#[test]
fn r4_without_applying_by_compare_and_set_the_slower_settler_writes_what_was() {
    const WORLD: Config = Config {
        name: "one unit for two, two settlers",
        settlers: 2,
        slices: 3,
        ..ONE
    };
    is_broken_without(Rule::AppliedOnce, Invariant::WithinLimit, &WORLD);
}

#[test]
fn r5_without_a_slice_of_its_own_the_units_of_a_hold_are_sold_again() {
    const WORLD: Config = Config {
        name: "one unit in Redis for a hold and a request",
        wishes: &[hold(1, 1), consume(1)],
        ..ONE_POOLED
    };
    is_broken_without(Rule::HoldIsSlice, Invariant::WithinLimit, &WORLD);
}

#[test]
fn r6_without_carving_for_a_late_commit_its_units_are_spent_twice() {
    is_broken_without(Rule::LateIsCarved, Invariant::WithinLimit, &ONE_HELD);
}

#[test]
fn r6_without_carving_for_its_excess_a_commit_passes_the_limit() {
    const WORLD: Config = Config {
        name: "one unit for a commit above its hold",
        wishes: &[hold(1, 2)],
        ..ONE_HELD
    };
    is_broken_without(Rule::LateIsCarved, Invariant::WithinLimit, &WORLD);
}

#[test]
fn r7_without_refusing_past_the_hard_end_a_late_charge_makes_the_deleted_row_anew() {
    is_broken_without(Rule::EndRefuses, Invariant::WithinLimit, &ONE_ENDING);
}

#[test]
fn r7_a_row_that_is_deleted_before_its_charge_was_applied_is_sealed_anew_as_empty() {
    is_broken_without(Rule::AppliedBeforeDeleted, Invariant::WithinLimit, &ONE_ENDING);
}

#[test]
fn r7_a_row_that_is_deleted_under_a_slow_transaction_is_made_anew_by_it() {
    is_broken_without(Rule::DeletionWaits, Invariant::WithinLimit, &ONE_ENDING);
}

#[test]
fn r8_without_writing_down_the_denial_of_a_repeat_its_first_attempt_is_charged_after_it() {
    is_broken_without(Rule::DenialIsWritten, Invariant::NoMeansNo, &ONE_REPEATED);
}

#[test]
fn r8_a_caller_that_takes_any_answer_is_told_no_by_an_old_attempt_and_charged_by_the_new() {
    is_broken_without(Rule::LatestAnswerCounts, Invariant::NoMeansNo, &ONE_REPEATED);
}

#[test]
fn r9_without_flushing_before_closing_answered_units_are_sold_again() {
    is_broken_without(Rule::FlushedBeforeClosed, Invariant::WithinLimit, &ONE_BUFFERED);
}

#[test]
fn r9_without_flushing_before_closing_answered_units_are_refused() {
    is_broken_without(Rule::FlushedBeforeClosed, Invariant::AnswersStand, &ONE_BUFFERED);
}

#[test]
fn r10_where_the_slice_of_a_dead_owner_is_settled_its_answered_units_are_sold_again() {
    is_broken_without(Rule::DeadOwnerKeeps, Invariant::WithinLimit, &ONE_BUFFERED);
}

#[test]
fn a_call_that_is_not_recorded_as_a_whole_is_charged_in_part_and_denied() {
    const WORLD: Config = Config {
        name: "one unit of each of two metrics",
        limits: [1, 1, 0],
        wishes: &[consume_both(1, 1), consume(1)],
        slices: 3,
        ..ONE
    };
    is_broken_without(Rule::WholeCall, Invariant::NoMeansNo, &WORLD);
}

/// Two units in slices of one, and a request for both.
const SPREAD: Config = Config {
    name: "two units in slices of one",
    limits: [2, 0, 0],
    wishes: &[consume(2), consume(1)],
    spread: true,
    slices: 3,
    ..ONE
};

#[test]
fn an_event_that_is_refused_by_one_slice_and_charged_to_the_other_leaks_units() {
    is_broken_without(Rule::WholeEvent, Invariant::NothingLeaks, &SPREAD);
}

/// Replicas that believe anything, and charges that share a transaction.
const BATCH: Config = Config {
    name: "two units, and batches",
    limits: [2, 0, 0],
    wishes: &[consume(1), consume(2)],
    caps: &[2],
    hints: Hints::Anything,
    batches: true,
    ..ONE
};

#[test]
fn r11_a_buffered_request_that_is_paid_by_what_others_may_settle_passes_the_limit() {
    is_broken_without(Rule::KeptPays, Invariant::WithinLimit, &ONE_BUFFERED);
}

#[test]
fn a_batch_without_its_fall_back_refuses_what_fits() {
    is_broken_without(Rule::BatchFallsBack, Invariant::RefusedDoesNotFit, &BATCH);
}

#[test]
fn a_batch_without_its_fall_back_refuses_and_later_takes_the_same_charge() {
    const WORLD: Config = Config {
        name: "two units, batches and duplicates",
        duplicates: true,
        ..BATCH
    };
    is_broken_without(Rule::BatchFallsBack, Invariant::NoMeansNo, &WORLD);
}

#[test]
fn a_flush_that_grows_between_its_repeats_loses_what_was_added() {
    const WORLD: Config = Config {
        name: "two buffered units for three",
        limits: [2, 0, 0],
        wishes: &[buffered(1), buffered(1), buffered(1)],
        caps: &[1, 2],
        ..ONE_BUFFERED
    };
    is_broken_without(Rule::FlushIsFrozen, Invariant::WithinLimit, &WORLD);
}

/// Two units a day, one an hour.
const HOURS: Config = Config {
    name: "two units a day, one an hour",
    limits: [2, 1, 1],
    hours: true,
    wishes: &[consume(1), consume(1)],
    asks: 2,
    slices: 2,
    ..EMPTY
};

#[test]
fn a_slice_that_pays_in_the_next_hour_passes_its_limit() {
    is_broken_without(Rule::OwnWindows, Invariant::WithinLimit, &HOURS);
}

#[test]
fn a_hold_that_is_committed_into_the_next_hour_passes_its_limit() {
    const WORLD: Config = Config {
        name: "two units a day, one an hour, and a hold",
        wishes: &[hold(1, 1), consume(1)],
        asks: 1,
        ..HOURS
    };
    is_broken_without(Rule::OwnWindows, Invariant::WithinLimit, &WORLD);
}

#[test]
fn a_commit_that_leaves_its_hold_because_its_excess_was_refused_becomes_overrun() {
    const WORLD: Config = Config {
        name: "two units and a commit above its hold",
        limits: [2, 0, 0],
        wishes: &[hold(1, 2), consume(1)],
        slices: 3,
        ..ONE
    };
    is_broken_without(Rule::HoldPaysFirst, Invariant::HoldPays, &WORLD);
}

#[test]
fn a_window_that_is_told_twice_of_a_return_sells_it_twice() {
    const WORLD: Config = Config {
        name: "one unit for three, and events are taken back",
        wishes: &[consume(1), consume(1), consume(1)],
        voids: true,
        ..ONE
    };
    is_broken_without(Rule::ToldOnce, Invariant::WithinLimit, &WORLD);
}

/// One unit of a level, two requests for it and a return.
const LEVEL: Config = Config {
    name: "one unit of a level for two, and a return",
    wishes: &[consume(1), consume(1), give_back(1)],
    ..ONE
};

#[test]
fn units_that_are_given_back_before_the_ledger_has_them_are_sold_twice() {
    is_broken_without(Rule::ReturnAfterLedger, Invariant::WithinLimit, &LEVEL);
}

#[test]
fn a_level_without_a_floor_is_given_back_what_nobody_has() {
    is_broken_without(Rule::LevelFloor, Invariant::LevelNotNegative, &LEVEL);
}

#[test]
fn a_return_whose_refusal_is_not_written_down_is_recorded_after_it() {
    const WORLD: Config = Config {
        name: "one unit of a level for one and a return that repeat",
        asks: 2,
        wishes: &[consume(1), give_back(1)],
        ..LEVEL
    };
    is_broken_without(Rule::RefusedReturnIsWritten, Invariant::NoMeansNo, &WORLD);
}

/// Two units, of which one is taken away.
const LOWERED: Config = Config {
    name: "two units, lowered to one",
    limits: [2, 0, 0],
    lower_to: 1,
    slices: 3,
    ..ONE
};

#[test]
fn a_limit_that_is_lowered_without_settling_is_passed_out_of_old_slices() {
    is_broken_without(Rule::LoweringSettles, Invariant::LoweredHolds, &LOWERED);
}

#[test]
fn a_limit_that_is_lowered_is_passed_by_whoever_remembers_the_old_one() {
    is_broken_without(Rule::LimitIsRead, Invariant::LoweredHolds, &LOWERED);
}

#[test]
fn where_only_owners_settle_a_crash_strands_units() {
    const WORLD: Config = Config {
        name: "one unit for two, a crash",
        crashes: 1,
        ..ONE
    };
    is_broken_without(Rule::AnybodySettles, Invariant::FullUse, &WORLD);
}
