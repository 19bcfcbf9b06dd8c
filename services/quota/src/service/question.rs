//! What a check asks about: its limits and windows, as they are at one instant.

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::{FeaturePlans, Recording, UnreachablePolicy};

use super::{
    Service,
    check_quota::{degraded, unreachable},
    degraded::is_away,
    holdings::ACCOUNT_FRESH,
};
use crate::{
    domain::{
        check::{Check, Item},
        decision::{
            Asked, Attempt, Decision, Level, decide, deny_for_features, has_room, unreachable_policy,
        },
        holding::{AccountLimits, Catalog},
        plan::Plan,
        window::WindowKey,
    },
    error::Error,
    escrow::Need,
};

/// What holds for an account.
struct Known {
    limits: Arc<AccountLimits>,
    catalog: Arc<Catalog>,
    /// Why it could not be read, where it is of a while ago.
    unread: Option<Error>,
}

/// A check with its limits and windows, as they are at one instant.
pub(super) struct Question {
    pub(super) id: String,
    pub(super) limits: Arc<AccountLimits>,
    /// The instant that decides in which windows it counts.
    pub(super) at: Timestamp,
    pub(super) now: Timestamp,
    pub(super) asked: Vec<Asked>,
    pub(super) needs: Vec<Need>,
    /// Whether it is answered before the ledger has it.
    pub(super) buffered: bool,
    /// What happens where something that decides is away.
    pub(super) policy: UnreachablePolicy,
    /// Whether the limits could not be read, and are those of a while ago.
    pub(super) remembered: bool,
    pub(super) missing_features: Vec<FeaturePlans>,
}

impl Question {
    pub(super) fn decide(&self, levels: &[Level], attempt: Attempt) -> Decision {
        let id = self.id.clone();
        let decision = if self.missing_features.is_empty() {
            decide(id, &self.asked, levels, attempt, self.now)
        } else {
            deny_for_features(id, &self.asked, levels, self.missing_features.clone())
        };
        self.explained(Decision {
            degraded: self.remembered,
            ..decision
        })
    }

    /// Whether all that is asked for fits as the account stands.
    pub(super) fn has_room(&self, levels: &[Level]) -> bool {
        has_room(&self.asked, levels)
    }

    pub(super) fn keys(&self) -> Vec<WindowKey> {
        let windows = self.needs.iter().flat_map(|need| &need.windows);
        windows.map(|(key, _)| key.clone()).collect()
    }

    /// The answer where the counters cannot be reached and every limit's policy is to allow.
    pub(super) fn decide_without_counters(&self) -> Option<Decision> {
        (self.policy == UnreachablePolicy::Allow)
            .then(|| degraded(self.decide(&vec![Level::default(); self.asked.len()], Attempt::Took)))
    }
}

impl Service {
    /// What holds for the check now.
    pub(super) async fn question(&self, check: &Check, id: String) -> Result<Question, Error> {
        let now = self.db.clock().now();
        let Known {
            limits,
            catalog,
            unread,
        } = self.known(check).await?;
        if let Some((index, metric)) = check.unknown_metric(&catalog) {
            return Err(Error::MetricNotFound {
                metric: metric.clone(),
                field: format!("items[{index}].metric"),
            });
        }
        check.validate(&catalog)?;
        if !check.is_in_time(now) {
            return Err(Error::EventTimeOutOfRange);
        }
        let at = check.event_at.unwrap_or(now);
        let asked = check.asked(&limits, at);
        let policy = unreachable_policy(&asked);
        let remembered = unread.is_some();
        if let Some(error) = unread.filter(|_| policy == UnreachablePolicy::Deny) {
            return Err(unreachable(error));
        }
        if check.event_at.is_none() && !remembered {
            let plan = || Plan::new(&limits, &catalog, now, now + ACCOUNT_FRESH);
            // It is made again before it ends, so that checks from memory seldom find none.
            let at = now + ACCOUNT_FRESH / 2;
            self.escrow.plan(&check.account, limits.revision, at, plan);
        }
        let (needs, buffered) = self.needs(check, &limits, &catalog, (&asked, now));
        Ok(Question {
            id,
            at,
            now,
            needs,
            buffered,
            policy,
            remembered,
            asked,
            missing_features: check.missing_features(&limits, &catalog),
            limits,
        })
    }

    /// What must be taken of each metric, from every window of its limits, and whether it is answered before the ledger
    /// has it.
    fn needs(
        &self,
        check: &Check,
        limits: &AccountLimits,
        catalog: &Catalog,
        (asked, now): (&[Asked], Timestamp),
    ) -> (Vec<Need>, bool) {
        let is_buffered = |item: &Item| {
            let metric = catalog.metrics.get(&item.metric);
            metric.is_some_and(|metric| metric.recording == Recording::Buffered)
        };
        let is_limited = |item: &Item| limits.of_metric(&item.metric).next().is_some();
        // A request is answered before the ledger has it where all of it may be.
        let may_be = |item: &Item| is_buffered(item) && is_limited(item);
        let is_open = !self.escrow.is_closing();
        let buffered = is_open && !check.items.is_empty() && check.items.iter().all(may_be);
        let of_item = |item: &Item| {
            let asked = asked.iter().map(|one| (one.effective.as_ref(), one.window));
            let of_metric = asked.filter(|(effective, _)| effective.limit.metric == item.metric);
            let windows = of_metric.map(|(effective, window)| {
                let key = WindowKey::new(&item.metric, effective.limit.period, window);
                (effective, key)
            });
            let need = Need::of(item.metric.clone(), item.amount, windows, now);
            Need {
                buffered,
                // Also where this check is not: others of the metric are.
                kept: is_open && (need.kept || is_buffered(item)),
                ..need
            }
        };
        (check.items.iter().map(of_item).collect(), buffered)
    }

    /// What holds for the account, as it was a while ago where it cannot be read now.
    async fn known(&self, check: &Check) -> Result<Known, Error> {
        let read = async {
            let limits = self.holdings.of(&check.account).await?;
            Ok::<_, Error>((limits, self.holdings.catalog().await?))
        };
        match read.await {
            Ok((limits, catalog)) => Ok(Known {
                limits,
                catalog,
                unread: None,
            }),
            Err(error) if is_away(&error) => match self.holdings.last_known(&check.account, self.lease()) {
                Some((limits, catalog)) => Ok(Known {
                    limits,
                    catalog,
                    unread: Some(error),
                }),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// What must be taken of a metric: from every window of its limits.
pub(super) fn need(limits: &AccountLimits, item: &Item, at: Timestamp, now: Timestamp) -> Need {
    let of_metric = limits.of_metric(&item.metric);
    let windows = of_metric.map(|effective| (effective.as_ref(), limits.window_key(effective, at)));
    Need::of(item.metric.clone(), item.amount, windows, now)
}
