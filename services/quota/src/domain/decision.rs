//! What a check is answered, given what was taken from each window.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{FeaturePlans, LimitMode, MetricSlug, Period, Units, UnreachablePolicy, Window};
use serde::{Deserialize, Serialize};

use super::{
    explained::Basis,
    limits::{EffectiveLimit, hard_max},
};

/// Where an account stands in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What was used.
    pub used: Units,
    /// What holds have.
    pub held: Units,
}

impl Level {
    /// All of it; what would pass 2^53 − 1 is 2^53 − 1.
    #[must_use]
    pub fn taken(self) -> Units {
        self.used.checked_add(self.held).unwrap_or(Units::MAX)
    }

    /// Whether `amount` more use can be counted: at most 2^53 − 1 in all.
    #[must_use]
    pub fn can_count(self, amount: Units) -> bool {
        self.used.checked_add(amount).is_some()
    }

    /// Whether `amount` more fits under `max`, and under what can be counted at all.
    #[must_use]
    pub fn has_room_for(self, amount: Units, max: Option<Units>) -> bool {
        self.taken()
            .checked_add(amount)
            .is_some_and(|sum| max.is_none_or(|max| sum <= max))
    }
}

/// One limit that a check looks at: its window, and the amount that is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The limit.
    pub effective: Arc<EffectiveLimit>,
    /// The window that the check counts in.
    pub window: Window,
    /// How much is asked for.
    pub amount: Units,
}

impl Asked {
    /// The most that the window may ever hold.
    #[must_use]
    pub fn max(&self) -> Option<Units> {
        hard_max(&self.effective.limit)
    }

    /// Whether an empty window would have room, so that waiting may help.
    fn ever_fits(&self) -> bool {
        Level::default().has_room_for(self.amount, self.max())
    }
}

/// What a check does where something that decides cannot be reached: what the strictest of its limits says.
#[must_use]
pub fn unreachable_policy(asked: &[Asked]) -> UnreachablePolicy {
    let policies = asked.iter().map(|one| one.effective.limit.unreachable_policy);
    policies.fold(UnreachablePolicy::Allow, |strictest, policy| {
        match (strictest, policy) {
            (UnreachablePolicy::Deny, _) | (_, UnreachablePolicy::Deny) => UnreachablePolicy::Deny,
            (UnreachablePolicy::Lease, _) | (_, UnreachablePolicy::Lease) => UnreachablePolicy::Lease,
            (UnreachablePolicy::Allow, UnreachablePolicy::Allow) => UnreachablePolicy::Allow,
        }
    })
}

/// Whether a check is decided although the ledger does not answer for so long, where that is allowed for `lease`.
#[must_use]
pub fn goes_on_without(policy: UnreachablePolicy, away_for: Duration, lease: Duration) -> bool {
    match policy {
        UnreachablePolicy::Deny => false,
        UnreachablePolicy::Lease => away_for < lease,
        UnreachablePolicy::Allow => true,
    }
}

/// Why a check was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DenialReason {
    /// The amount would pass a limit.
    QuotaExceeded,
    /// A required feature is not part of the plan.
    SubscriptionRequired,
    /// Only holds stand in the way.
    Held,
}

/// What became of the amounts that a check asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing was to be taken.
    Looked,
    /// They were taken, and the levels have them.
    Took,
    /// Some window did not give them.
    Refused,
}

/// Where the account stands at one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// The metric.
    pub metric: MetricSlug,
    /// The length of the window.
    pub period: Period,
    /// The limit in force.
    pub limit: Units,
    /// What was used.
    pub used: Units,
    /// What holds have.
    pub held: Units,
    /// What may still be taken.
    pub remaining: Units,
    /// The window's first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Option<Timestamp>,
    /// What happens at the limit.
    pub mode: LimitMode,
    /// What is beyond the limit.
    pub overage: Units,
    /// A SHADOW limit would have denied.
    pub would_deny: bool,
    /// The share that the stage leaves, in percent.
    pub stage_factor_percent: u32,
    /// What the limit does while whoever decides cannot be reached. Decisions that were written down before it was told
    /// are without.
    #[serde(default)]
    pub unreachable_policy: UnreachablePolicy,
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id.
    pub id: String,
    /// Whether the account may.
    pub allowed: bool,
    /// Why not.
    pub reason: Option<DenialReason>,
    /// Every limit that was looked at.
    pub limits: Vec<LimitStatus>,
    /// The index of the one that denied.
    pub binding_limit: Option<usize>,
    /// How long to wait until the binding window ends; none where the amount would not fit then either.
    pub retry_after: Option<SignedDuration>,
    /// Features that are missing, with the plans that have them.
    pub missing_features: Vec<FeaturePlans>,
    /// Decided without the counters.
    pub degraded: bool,
    /// This request was decided before.
    pub repeated_request: bool,
    /// What it was made of, where it was made just now, to explain it later.
    #[serde(skip)]
    pub basis: Option<Arc<Basis>>,
}

/// Where the account stands at one limit, `level` being what was taken by now.
#[must_use]
pub fn status(asked: &Asked, level: Level, would_deny: bool) -> LimitStatus {
    let limit = &asked.effective.limit;
    let used = level.used;
    LimitStatus {
        metric: limit.metric.clone(),
        period: limit.period,
        limit: limit.amount,
        used,
        held: level.held,
        remaining: limit.amount.saturating_sub(level.taken()),
        start: asked.window.start,
        end: asked.window.is_bounded().then_some(asked.window.end),
        mode: limit.mode,
        overage: used.saturating_sub(limit.amount),
        would_deny,
        stage_factor_percent: asked.effective.stage_factor_percent,
        unreachable_policy: limit.unreachable_policy,
    }
}

/// Answers a check. `levels` are where the account stands: with the amounts where they were taken, without where
/// not.
///
/// Allowed where every window that is not a SHADOW has room for its amount. The binding limit is the one
/// whose window ends last among those without room, because waiting for an earlier end would not help.
#[must_use]
pub fn decide(id: String, asked: &[Asked], levels: &[Level], attempt: Attempt, now: Timestamp) -> Decision {
    let took = attempt == Attempt::Took;
    let mut limits = Vec::with_capacity(asked.len());
    for (one, level) in asked.iter().zip(levels) {
        limits.push(status(one, *level, would_deny(one, *level, took)));
    }
    let binding = if took {
        None
    } else {
        binding_limit(asked, levels, attempt)
    };
    let wait = binding
        .and_then(|index| asked.get(index))
        .map(|one| one.window.end)
        .filter(|end| *end != Timestamp::MAX && waiting_helps(asked, levels));
    Decision {
        id,
        allowed: binding.is_none(),
        reason: binding.map(|_| denial_reason(asked, levels)),
        limits,
        binding_limit: binding,
        retry_after: wait
            .map(|end| end.duration_since(now))
            .filter(|wait| wait.is_positive()),
        missing_features: Vec::new(),
        degraded: false,
        repeated_request: false,
        basis: None,
    }
}

/// Whether every amount fits into its window.
#[must_use]
pub fn has_room(asked: &[Asked], levels: &[Level]) -> bool {
    (asked.iter().zip(levels)).all(|(one, level)| level.has_room_for(one.amount, one.max()))
}

fn binding_limit(asked: &[Asked], levels: &[Level], attempt: Attempt) -> Option<usize> {
    let full = |(one, level): (&Asked, &Level)| !level.has_room_for(one.amount, one.max());
    let pairs = || asked.iter().zip(levels).enumerate();
    let mut binding: Option<(usize, Timestamp)> = None;
    for (index, (one, level)) in pairs() {
        if full((one, level)) && binding.is_none_or(|(_, end)| one.window.end > end) {
            binding = Some((index, one.window.end));
        }
    }
    // What was refused a moment ago may be free again; the refusal stands.
    let least = || {
        let limited = pairs().filter_map(|(index, (one, level))| {
            let max = one.max()?;
            Some((max.saturating_sub(level.taken()), index))
        });
        limited.min().map(|(_, index)| index)
    };
    match (binding, attempt) {
        (Some((index, _)), _) => Some(index),
        (None, Attempt::Refused) => Some(least().unwrap_or_default()),
        (None, Attempt::Looked | Attempt::Took) => None,
    }
}

/// Whether the amounts would fit once the windows that are full have ended.
fn waiting_helps(asked: &[Asked], levels: &[Level]) -> bool {
    (asked.iter().zip(levels))
        .all(|(one, level)| one.ever_fits() || level.has_room_for(one.amount, one.max()))
}

/// HELD where every amount would fit beside what was used, were it not for holds.
fn denial_reason(asked: &[Asked], levels: &[Level]) -> DenialReason {
    let without_holds = |(one, level): (&Asked, &Level)| {
        let used = Level {
            held: Units::ZERO,
            ..*level
        };
        used.has_room_for(one.amount, one.max())
    };
    let any_held = levels.iter().any(|level| level.held > Units::ZERO);
    if any_held && asked.iter().zip(levels).all(without_holds) {
        DenialReason::Held
    } else {
        DenialReason::QuotaExceeded
    }
}

fn would_deny(asked: &Asked, level: Level, took: bool) -> bool {
    if asked.effective.limit.mode != LimitMode::Shadow {
        return false;
    }
    let amount = if took { Units::ZERO } else { asked.amount };
    !level.has_room_for(amount, Some(asked.effective.limit.amount))
}

/// Denies a check for features that the plan does not have. Nothing is taken.
#[must_use]
pub fn deny_for_features(
    id: String,
    asked: &[Asked],
    levels: &[Level],
    missing: Vec<FeaturePlans>,
) -> Decision {
    Decision {
        id,
        allowed: false,
        reason: Some(DenialReason::SubscriptionRequired),
        limits: asked
            .iter()
            .zip(levels)
            .map(|(one, level)| status(one, *level, false))
            .collect(),
        binding_limit: None,
        retry_after: None,
        missing_features: missing,
        degraded: false,
        repeated_request: false,
        basis: None,
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::{Limit, UnreachablePolicy, entitlement::DEFAULT_THRESHOLDS};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn units(amount: u64) -> Units {
        Units::new(amount).expect("an amount")
    }

    fn asked(mode: LimitMode, ceiling: Option<u64>, period: Period, limit: u64, amount: u64) -> Asked {
        let end = match period {
            Period::Hour => at("2026-03-01T11:00:00Z"),
            Period::Day => at("2026-03-02T00:00:00Z"),
            Period::Month => at("2026-04-01T00:00:00Z"),
            Period::Lifetime => Timestamp::MAX,
        };
        let limit = Limit {
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            period,
            amount: units(limit),
            mode,
            ceiling: ceiling.map(units),
            unreachable_policy: UnreachablePolicy::Deny,
            thresholds: DEFAULT_THRESHOLDS.to_vec(),
        };
        Asked {
            effective: Arc::new(EffectiveLimit {
                limit,
                stage_factor_percent: 100,
                plan_amount: units(1),
                replaced_by: None,
            }),
            window: Window {
                start: at("2026-03-01T00:00:00Z"),
                end,
            },
            amount: units(amount),
        }
    }

    #[track_caller]
    fn check(asked: &[Asked], taken: &[u64], allowed: bool, binding: Option<usize>) -> Decision {
        let levels: Vec<Level> = taken
            .iter()
            .map(|taken| Level {
                used: units(*taken),
                held: Units::ZERO,
            })
            .collect();
        let decision = decide(
            "d".into(),
            asked,
            &levels,
            Attempt::Looked,
            at("2026-03-01T10:30:00Z"),
        );
        assert_eq!((decision.allowed, decision.binding_limit), (allowed, binding));
        decision
    }

    #[test]
    fn every_limit_must_have_room_for_its_amount() {
        let hour = asked(LimitMode::Hard, None, Period::Hour, 10, 3);
        let day = asked(LimitMode::Hard, None, Period::Day, 100, 3);
        check(&[hour.clone(), day.clone()], &[7, 97], true, None);
        let denied = check(&[hour.clone(), day.clone()], &[8, 97], false, Some(0));
        assert_eq!(denied.retry_after, Some(SignedDuration::from_mins(30)));
        // Waiting for the hour would not help where the day is full too.
        check(&[hour, day], &[8, 98], false, Some(1));
    }

    #[test]
    fn soft_limits_end_at_their_ceiling_and_shadows_never() {
        check(
            &[asked(LimitMode::Soft, None, Period::Day, 10, 5)],
            &[1_000],
            true,
            None,
        );
        check(
            &[asked(LimitMode::Soft, Some(20), Period::Day, 10, 5)],
            &[15],
            true,
            None,
        );
        let denied = check(
            &[asked(LimitMode::Soft, Some(20), Period::Day, 10, 5)],
            &[16],
            false,
            Some(0),
        );
        assert_eq!(denied.limits[0].overage, units(6));
        let shadow = check(
            &[asked(LimitMode::Shadow, None, Period::Day, 10, 5)],
            &[6],
            true,
            None,
        );
        assert!(shadow.limits[0].would_deny);
    }

    #[test]
    fn a_lifetime_limit_says_no_time_to_wait_for() {
        let denied = check(
            &[asked(LimitMode::Hard, None, Period::Lifetime, 1, 1)],
            &[1],
            false,
            Some(0),
        );
        assert_eq!((denied.retry_after, denied.limits[0].end), (None, None));
    }

    #[test]
    fn there_is_no_time_to_wait_for_an_amount_above_the_limit_itself() {
        let hour = asked(LimitMode::Hard, None, Period::Hour, 10, 11);
        let denied = check(&[hour], &[0], false, Some(0));
        assert_eq!(denied.retry_after, None);
        // Another limit ends later, but this one would still be in the way.
        let hour = asked(LimitMode::Hard, None, Period::Hour, 10, 11);
        let day = asked(LimitMode::Hard, None, Period::Day, 100, 11);
        let denied = check(&[hour, day], &[0, 95], false, Some(1));
        assert_eq!(denied.retry_after, None);
    }

    #[test]
    fn the_reason_is_held_where_only_holds_stand_in_the_way() {
        let now = at("2026-03-01T10:30:00Z");
        for (used, held, reason) in [
            (5, 4, Some(DenialReason::Held)),
            (9, 1, Some(DenialReason::QuotaExceeded)),
            (5, 3, None),
        ] {
            let level = Level {
                used: units(used),
                held: units(held),
            };
            let hour = asked(LimitMode::Hard, None, Period::Hour, 10, 2);
            let decision = decide("d".into(), &[hour], &[level], Attempt::Looked, now);
            assert_eq!(decision.reason, reason, "{used} {held}");
            assert_eq!(decision.limits[0].remaining, units(10 - used - held));
        }
    }

    #[test]
    fn what_was_refused_stays_refused_though_there_is_room_again() {
        let hour = asked(LimitMode::Hard, None, Period::Hour, 10, 2);
        let now = at("2026-03-01T10:30:00Z");
        let denied = decide("d".into(), &[hour], &[Level::default()], Attempt::Refused, now);
        assert_eq!((denied.allowed, denied.binding_limit), (false, Some(0)));
    }

    #[test]
    fn what_cannot_be_counted_is_not_allowed() {
        let soft = asked(LimitMode::Soft, None, Period::Day, 10, 5);
        check(&[soft], &[Units::MAX.get()], false, Some(0));
    }
}
