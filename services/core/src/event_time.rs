//! When an event may lie, seen from now: one rule for the ledger and for the decisions that write to it.

use jiff::{SignedDuration, Timestamp};

/// How far back an event may lie: as long as providers of payments accept meter events.
pub const BACK_MAX: SignedDuration = SignedDuration::from_hours(35 * 24);
/// How far ahead, for clocks that differ.
pub const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// The rule in words.
pub const EVENT_TIME_RULE: &str =
    "must be from 35 days back to 5 minutes ahead; a backfill may go further back";

/// Whether an event of `at` may be recorded at `now`. A backfill may lie any time back, as far as this rule goes: the ledger
/// keeps months.
#[must_use]
pub fn may_be_recorded(at: Timestamp, now: Timestamp, backfill: bool) -> bool {
    let ahead = at.duration_since(now);
    ahead <= AHEAD_MAX && (backfill || ahead >= -BACK_MAX)
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    #[test]
    fn from_35_days_back_to_5_minutes_ahead_and_a_backfill_from_any_time() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().expect("an instant");
        let (back, ahead) = (now - BACK_MAX, now + AHEAD_MAX);
        for (at, expected, in_backfill) in [
            (back, true, true),
            (back - 1.microsecond(), false, true),
            (ahead, true, true),
            (ahead + 1.microsecond(), false, false),
            (Timestamp::MAX, false, false),
            (Timestamp::MIN, false, true),
        ] {
            assert_eq!(may_be_recorded(at, now, false), expected, "{at}");
            assert_eq!(may_be_recorded(at, now, true), in_backfill, "{at} as backfill");
        }
    }
}
