//! Decides checks from the memory of this replica, where all that is needed is there: no task, no lock that anybody
//! waits for, and nothing allocated but the answer.

use std::sync::{Arc, atomic::Ordering};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, Recording, Units};

use super::{Escrow, REFUSAL_FRESH, purse::Purse};
use crate::domain::{
    decision::{Asked, Attempt, Decision, Level, decide},
    plan::{Plan, PlannedMetric},
    wallet::Wallet,
    window::WindowKey,
};

/// A check that asks for amounts only, and of now.
#[derive(Clone, Debug)]
pub struct QuickCheck<'r> {
    /// Whose limits.
    pub account: &'r str,
    /// What amounts; each metric once.
    pub items: Vec<(&'r str, Units)>,
    /// The request that takes, where it does.
    pub request: Option<&'r str>,
}

/// How old what is known of a window may be for a look, in milliseconds, where half of the limit is left.
const FAR_FRESH_MS: i64 = 30_000;
/// The same where less is left.
const NEAR_FRESH_MS: i64 = 500;

impl Escrow {
    /// Decides a check from memory; none where something is missing there. CONSUME only of buffered metrics, of which
    /// the ledger is told later.
    #[must_use]
    pub fn decide_from_memory(
        &self,
        check: &QuickCheck<'_>,
        id: impl FnOnce() -> String,
    ) -> Option<Decision> {
        let now = self.0.db.clock().now();
        if now.as_microsecond() >= self.0.believed_until_us.load(Ordering::Relaxed) {
            return None;
        }
        let catalog = self.0.catalog.load(Ordering::Relaxed);
        if check.request.is_some() && self.is_closing() {
            return None;
        }
        self.0.purses.quick(check.account, |account, purse| {
            let holds = |plan: &Arc<Plan>| now < plan.valid_until && plan.revision.catalog == catalog;
            let plan = purse.plan.clone().filter(holds)?;
            let asked = asked(&plan, check)?;
            let (levels, attempt) = if check.request.is_none() {
                (looked(purse, &plan, check, now)?, Attempt::Looked)
            } else if is_refused(purse, check, now)? {
                (
                    levels(purse, &plan, check, |wallet, key| wallet.level_denied(key))?,
                    Attempt::Refused,
                )
            } else {
                // There is enough of everything, so from here on nothing fails.
                for (name, amount) in &check.items {
                    let pocket = purse.pockets.get_mut(*name)?;
                    if pocket.wallet.take_buffered(*amount, now, now) == Some(true) {
                        let metric = plan.metric(name).map(|planned| planned.metric.clone());
                        self.0.purses.soil(account, metric?);
                    }
                }
                let level = |wallet: &Wallet, key: &WindowKey| {
                    Some(wallet.level(key, Timestamp::MIN).unwrap_or_default())
                };
                (levels(purse, &plan, check, level)?, Attempt::Took)
            };
            Some(decide(id(), &asked, &levels, attempt, now))
        })
    }

    /// Remembers what holds for an account.
    pub fn plan(&self, account: &AccountId, plan: Plan) {
        self.0.purses.set_plan(account, plan);
    }

    /// Until when it is believed that no limit changed unnoticed since the catalog of this version.
    pub fn believe_until(&self, until: Timestamp, catalog: u64) {
        self.0.catalog.store(catalog, Ordering::Relaxed);
        let until_us = until.as_microsecond();
        self.0.believed_until_us.store(until_us, Ordering::Relaxed);
    }

    /// Forgets what holds for an account where that is older than `revision`: it was remembered while it changed.
    pub fn drop_older_plan(&self, account: &AccountId, revision: u64) {
        self.0.purses.drop_older_plan(account, revision);
    }

    /// Whether this replica is about to end, so that nothing more is answered before the ledger has it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }
}

/// The limits that the check looks at; none where one of its metrics has none, is durable and to be taken, or does not
/// take the amount.
fn asked(plan: &Plan, check: &QuickCheck<'_>) -> Option<Vec<Asked>> {
    let mut asked = Vec::with_capacity(4);
    for (name, amount) in &check.items {
        let planned = plan.metric(name)?;
        planned.aggregation.check_amount(*amount).ok()?;
        if check.request.is_some() && planned.recording == Recording::Durable {
            return None;
        }
        asked.extend(planned.asked.iter().map(|one| Asked {
            amount: *amount,
            ..one.clone()
        }));
    }
    Some(asked)
}

/// Whether the memory has too little and a carve was refused a moment ago; none where nobody knows.
fn is_refused(purse: &Purse, check: &QuickCheck<'_>, now: Timestamp) -> Option<bool> {
    let mut refused = false;
    for (name, amount) in &check.items {
        let pocket = purse.pockets.get(*name)?;
        let left = pocket.wallet.left(now, now);
        if left < *amount {
            let (at, least) = pocket.refused?;
            let missing = amount.saturating_sub(left);
            if at <= now - REFUSAL_FRESH || missing < least {
                return None;
            }
            refused = true;
        }
    }
    Some(refused)
}

fn levels(
    purse: &Purse,
    plan: &Plan,
    check: &QuickCheck<'_>,
    level: impl Fn(&Wallet, &WindowKey) -> Option<Level>,
) -> Option<Vec<Level>> {
    let mut levels = Vec::with_capacity(4);
    for (name, _) in &check.items {
        let planned = plan.metric(name)?;
        let wallet = &purse.pockets.get(*name)?.wallet;
        for key in &planned.keys {
            levels.push(level(wallet, key)?);
        }
    }
    Some(levels)
}

/// Where the account stands, where that was looked at lately: within half a second near the limit.
fn looked(purse: &Purse, plan: &Plan, check: &QuickCheck<'_>, now: Timestamp) -> Option<Vec<Level>> {
    let ago = |ms| now - SignedDuration::from_millis(ms);
    let (far, near) = (ago(FAR_FRESH_MS), ago(NEAR_FRESH_MS));
    let mut levels = Vec::with_capacity(4);
    for (name, _) in &check.items {
        let PlannedMetric { asked, keys, .. } = plan.metric(name)?;
        let wallet = &purse.pockets.get(*name)?.wallet;
        for (one, key) in asked.iter().zip(keys) {
            let level = wallet.level(key, far)?;
            let half = one.effective.limit.amount.percent(50);
            levels.push(if level.taken() < half {
                level
            } else {
                wallet.level(key, near)?
            });
        }
    }
    Some(levels)
}
