//! Since when limits count. A limit that begins in the middle of a window counts nothing that was followed before, so nothing of that
//! comes back to the window either where it is corrected.
//!
//! Whether an event counted is told by when the ledger took it. What was taken before a limit began and followed after it has counted, and
//! does not come back: rather too little comes back than too much. Two clocks are compared, usage's and quota's, and programs of the
//! version before write down no beginnings.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{Entitlements, MetricSlug, Period, Stage};

/// When limits began to count, each without a break since. One that is not named has counted since ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(BTreeMap<(MetricSlug, Period), Timestamp>);

impl Begun {
    /// From what is written down.
    #[must_use]
    pub const fn new(begun: BTreeMap<(MetricSlug, Period), Timestamp>) -> Self {
        Self(begun)
    }

    /// What is to be written down.
    pub fn iter(&self) -> impl Iterator<Item = (&MetricSlug, Period, Timestamp)> {
        self.0.iter().map(|((metric, period), at)| (metric, *period, *at))
    }

    /// Since when the limit of a metric and period counts.
    #[must_use]
    pub fn since(&self, metric: &MetricSlug, period: Period) -> Timestamp {
        let begun = self.0.get(&(metric.clone(), period));
        begun.copied().unwrap_or(Timestamp::MIN)
    }

    /// Where the limits of `after` take the place of those of `before`, whose beginnings these are, at `now`.
    #[must_use]
    pub fn followed_by(&self, before: Option<&Entitlements>, after: &Entitlements, now: Timestamp) -> Self {
        let mut begun = BTreeMap::new();
        for limit in &after.limits {
            let key = (limit.metric.clone(), limit.period);
            let mut limits = before.into_iter().flat_map(|before| &before.limits);
            let goes_on = limits.any(|one| (&one.metric, one.period) == (&key.0, key.1));
            let at = if goes_on {
                self.0.get(&key).copied()
            } else {
                Some(now)
            };
            begun.extend(at.map(|at| (key, at)));
        }
        Self(begun)
    }

    /// Lets the limits of a period begin at `now`, because new windows take the place of those that ran, and what was recorded
    /// before has counted in those.
    pub fn begin_again(&mut self, limits: &Entitlements, period: Period, now: Timestamp) {
        let keys = limits.limits.iter().filter(|limit| limit.period == period);
        (self.0).extend(keys.map(|limit| ((limit.metric.clone(), period), now)));
    }

    /// Those of an account: its own, or those of the default plan, `of_default`, where it has no other. A SUSPENDED account has
    /// the default plan's limits since it has been so, or since they began.
    #[must_use]
    pub fn in_force(own: Option<(Stage, Self)>, of_default: &Self) -> Self {
        match own {
            None => of_default.clone(),
            Some((Stage::Suspended, Self(mut own))) => {
                for (key, at) in &of_default.0 {
                    let known = own.entry(key.clone()).or_insert(*at);
                    *known = (*known).max(*at);
                }
                Self(own)
            }
            Some((_, own)) => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::{Limit, LimitMode, PlanSlug, Units, UnreachablePolicy};

    use super::*;

    const HOUR: Period = Period::Hour;
    const DAY: Period = Period::Day;

    fn metric() -> MetricSlug {
        MetricSlug::parse("api.requests").expect("a slug")
    }

    fn plan(periods: &[Period]) -> Entitlements {
        let limit = |period: &Period| Limit {
            metric: metric(),
            period: *period,
            amount: Units::new(10).expect("an amount"),
            mode: LimitMode::Hard,
            ceiling: None,
            unreachable_policy: UnreachablePolicy::Deny,
            thresholds: Vec::new(),
        };
        Entitlements {
            plan: PlanSlug::parse("pro").expect("a slug"),
            plan_version: 1,
            limits: periods.iter().map(limit).collect(),
            features: Vec::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("an instant")
    }

    fn since(begun: &Begun) -> [Timestamp; 2] {
        [HOUR, DAY].map(|period| begun.since(&metric(), period))
    }

    #[test]
    fn a_limit_counts_since_it_came_and_goes_on_through_changes_of_the_plan() {
        let (hour, both) = (plan(&[HOUR]), plan(&[HOUR, DAY]));
        let first = Begun::default().followed_by(None, &hour, at(1));
        assert_eq!(since(&first), [at(1), Timestamp::MIN]);
        let second = first.followed_by(Some(&hour), &both, at(2));
        assert_eq!(since(&second), [at(1), at(2)]);
        let gone = second.followed_by(Some(&both), &plan(&[DAY]), at(3));
        let back = gone.followed_by(Some(&plan(&[DAY])), &both, at(4));
        assert_eq!(since(&back), [at(4), at(2)]);
    }

    #[test]
    fn a_limit_whose_windows_are_cut_begins_again() {
        let mut begun = Begun::default().followed_by(None, &plan(&[HOUR, DAY]), at(1));
        begun.begin_again(&plan(&[HOUR, DAY]), DAY, at(2));
        assert_eq!(since(&begun), [at(1), at(2)]);
    }

    #[test]
    fn limits_of_before_this_was_written_down_count_since_ever() {
        let kept = Begun::default().followed_by(Some(&plan(&[HOUR])), &plan(&[HOUR, DAY]), at(2));
        assert_eq!(since(&kept), [Timestamp::MIN, at(2)]);
    }

    #[test]
    fn an_account_has_its_own_beginnings_and_the_default_plans_where_that_holds() {
        let begun = |hour, day| {
            Begun::new(BTreeMap::from([
                ((metric(), HOUR), at(hour)),
                ((metric(), DAY), at(day)),
            ]))
        };
        let (own, of_default) = (begun(5, 6), begun(7, 3));
        let in_force = |own| since(&Begun::in_force(own, &of_default));
        assert_eq!(in_force(None), [at(7), at(3)]);
        assert_eq!(in_force(Some((Stage::Current, own.clone()))), [at(5), at(6)]);
        assert_eq!(in_force(Some((Stage::Suspended, own))), [at(7), at(6)]);
        assert_eq!(
            in_force(Some((Stage::Suspended, Begun::default()))),
            [at(7), at(3)]
        );
    }
}
