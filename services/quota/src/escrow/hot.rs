//! Decides checks from the memory of this replica, where all that is needed is there: no task, no lock that anybody
//! waits for, and nothing allocated but the answer.

use std::sync::{Arc, atomic::Ordering};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, Recording, Units};
use tokio::sync::futures::OwnedNotified;

use super::{Escrow, Need, pocket::Purse};
use crate::domain::{
    decision::{Asked, Attempt, Level, decide, goes_on_without, unreachable_policy},
    explained::FromMemory,
    holding::Revision,
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

/// What memory says of a check.
#[derive(Debug)]
pub enum Quick<T> {
    /// What was decided.
    Made(T),
    /// Somebody carves what it needs: once this ends it may be asked again.
    Carving(OwnedNotified),
    /// Something is missing there, or the check is the one that carves.
    Elsewhere,
}

impl<T> Quick<T> {
    /// The same with something else made of what was decided.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Quick<U> {
        match self {
            Self::Made(made) => Quick::Made(make(made)),
            Self::Carving(ended) => Quick::Carving(ended),
            Self::Elsewhere => Quick::Elsewhere,
        }
    }
}

/// Whether the memory has enough for a check.
enum Room {
    Enough,
    /// A carve was refused a moment ago.
    Refused,
    /// Somebody carves.
    Carving(OwnedNotified),
}

/// How old what is known of a window may be for a look, in milliseconds, where half of the limit is left.
const FAR_FRESH_MS: i64 = 30_000;
/// The same where less is left.
const NEAR_FRESH_MS: i64 = 500;

impl Escrow {
    /// Decides a check from memory. CONSUME only of buffered metrics, of which the ledger is told later.
    #[must_use]
    pub fn decide_from_memory(
        &self,
        check: &QuickCheck<'_>,
        id: impl FnOnce() -> String,
    ) -> Quick<FromMemory> {
        self.quick(check, id).unwrap_or(Quick::Elsewhere)
    }

    /// None where something is missing.
    fn quick(&self, check: &QuickCheck<'_>, id: impl FnOnce() -> String) -> Option<Quick<FromMemory>> {
        let now = self.0.db.clock().now();
        if now.as_microsecond() >= self.0.believed_until_us.load(Ordering::Relaxed) {
            return None;
        }
        let catalog = self.0.catalog.load(Ordering::Relaxed);
        let away_for = self.untold_for(now);
        if check.request.is_some() && self.is_closing() {
            return None;
        }
        self.0.purses.quick(check.account, |account, purse| {
            let holds = |plan: &Arc<Plan>| now < plan.valid_until && plan.revision.catalog == catalog;
            let plan = purse.plan.clone().filter(holds)?;
            let asked = asked(&plan, check)?;
            let takes = check.request.is_some();
            if let Some(away_for) = away_for
                && takes
                && !goes_on_without(unreachable_policy(&asked), away_for, self.lease())
            {
                return None;
            }
            let (levels, attempt) = if check.request.is_none() {
                (looked(purse, &plan, check, now)?, Attempt::Looked)
            } else {
                match room(purse, check, plan.revision, now)? {
                    Room::Enough => (self.spend(account, purse, &plan, check, now)?, Attempt::Took),
                    Room::Refused => {
                        let denied = |wallet: &Wallet, key: &WindowKey| wallet.level_denied(key);
                        (levels(purse, &plan, check, denied)?, Attempt::Refused)
                    }
                    Room::Carving(ended) => return Some(Quick::Carving(ended)),
                }
            };
            let mut decision = decide(id(), &asked, &levels, attempt, now);
            decision.degraded = takes && away_for.is_some();
            Some(Quick::Made(FromMemory {
                decision,
                account: account.clone(),
                plan,
                at: now,
            }))
        })
    }

    /// Takes what there is enough of, so that nothing fails, and answers where the account stands after it.
    fn spend(
        &self,
        account: &AccountId,
        purse: &mut Purse,
        plan: &Plan,
        check: &QuickCheck<'_>,
        now: Timestamp,
    ) -> Option<Vec<Level>> {
        for (name, amount) in &check.items {
            let pocket = purse.pockets.get_mut(name)?;
            let spent = pocket.wallet.take_buffered(*amount, now, now)?;
            let planned = plan.metric(name)?;
            if spent.is_first {
                self.0.purses.soil(account, planned.metric.clone());
            }
            if spent.is_low && pocket.claim_ahead(now) {
                self.carve_ahead(account.clone(), next_need(planned, now), plan.revision);
            }
        }
        let level =
            |wallet: &Wallet, key: &WindowKey| Some(wallet.level(key, Timestamp::MIN).unwrap_or_default());
        levels(purse, plan, check, level)
    }

    /// Remembers what holds for an account, unless that is remembered and holds at `at` still.
    pub fn plan(&self, account: &AccountId, revision: Revision, at: Timestamp, plan: impl FnOnce() -> Plan) {
        if !self.0.purses.has_plan(account, revision, at) {
            self.0.purses.set_plan(account, plan());
        }
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
        self.0.purses.is_closing()
    }
}

/// What the next slice of a metric is carved for.
fn next_need(planned: &PlannedMetric, now: Timestamp) -> Need {
    let limits = planned.asked.iter().map(|one| one.effective.as_ref());
    Need {
        buffered: true,
        kept: true,
        ..Need::of(
            planned.metric.clone(),
            Units::ONE,
            limits.zip(planned.keys.iter().cloned()),
            now,
        )
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

/// Whether the memory has enough; none where it has too little and this check is the one that looks for more.
fn room(purse: &mut Purse, check: &QuickCheck<'_>, revision: Revision, now: Timestamp) -> Option<Room> {
    let mut room = Room::Enough;
    for (name, amount) in &check.items {
        let pocket = purse.pockets.get_mut(name)?;
        pocket.wallet.follow(revision);
        let left = pocket.wallet.left_kept(now, now);
        if left >= *amount {
            continue;
        }
        let missing = amount.saturating_sub(left);
        match pocket.refused() {
            Some(refusal) if refusal.is_of(now, missing) => {
                if !pocket.believes_refusal(refusal.at, now) {
                    return None;
                }
                room = Room::Refused;
            }
            _ => return pocket.carving(now).map(Room::Carving),
        }
    }
    Some(room)
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
        let wallet = &purse.pockets.get(name)?.wallet;
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
        let wallet = &purse.pockets.get(name)?.wallet;
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
