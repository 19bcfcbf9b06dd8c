//! Follows the ledger: what was recorded is added to its windows, and thresholds fire.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use octroi_core::{AccountId, LimitMode, MetricSlug, Units};
use octroi_kit::{
    convert::{to_proto_mode, to_proto_period, to_proto_time},
    db::DatabaseError,
    directory::DirectoryError,
    outbox,
};
use octroi_proto::events::v1::ThresholdCrossed;
use sqlx::PgConnection;

use super::{AccountLimits, Service};
use crate::{
    counters::WindowKey,
    domain::{limits::EffectiveLimit, thresholds::crossed},
    error::Error,
    store::{self, Addition, Crossing, WindowUse},
};

/// What was recorded of one account and metric at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub metric: MetricSlug,
    /// How much.
    pub amount: u64,
    /// When it happened.
    pub event_at: Timestamp,
    /// Whether a decision allowed it.
    pub decided: bool,
}

/// What a commit of the ledger adds to windows, read before the transaction that adds it.
#[derive(Clone, Debug)]
pub struct Followed {
    additions: Vec<Addition>,
    limits: Vec<EffectiveLimit>,
    now: Timestamp,
}

impl Service {
    /// Sums a commit of the ledger by window. Accounts that are gone and metrics without limits have none.
    ///
    /// # Errors
    /// [`Error`] where it cannot be known which limits hold.
    pub async fn read_windows(&self, uses: Vec<Used>) -> Result<Followed, Error> {
        type Order = (AccountId, MetricSlug, octroi_core::Period, Timestamp);
        let mut known: BTreeMap<AccountId, Option<Arc<AccountLimits>>> = BTreeMap::new();
        let mut sums: BTreeMap<Order, (Addition, EffectiveLimit)> = BTreeMap::new();
        for used in uses {
            if !known.contains_key(&used.account) {
                let limits = self.limits_of(&used.account).await?;
                known.insert(used.account.clone(), limits);
            }
            let Some(Some(limits)) = known.get(&used.account) else {
                continue;
            };
            for limit in limits.of_metric(&used.metric) {
                let key = limits.window_key(limit, used.event_at);
                let order = (used.account.clone(), key.metric.clone(), key.period, key.start);
                let (sum, _) = sums.entry(order).or_insert_with(|| {
                    let addition = Addition {
                        account: used.account.clone(),
                        key,
                        used: 0,
                        used_direct: 0,
                    };
                    (addition, limit.clone())
                });
                sum.used += u128::from(used.amount);
                if !used.decided {
                    sum.used_direct += u128::from(used.amount);
                }
            }
        }
        let (additions, limits) = sums.into_values().unzip();
        Ok(Followed {
            additions,
            limits,
            now: self.db.clock().now(),
        })
    }

    async fn limits_of(&self, account: &AccountId) -> Result<Option<Arc<AccountLimits>>, Error> {
        match self.holdings.of(account).await {
            Ok(limits) => Ok(Some(limits)),
            Err(Error::Account(DirectoryError::NotFound(_) | DirectoryError::Closed(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the counters what was recorded after the fact, as the totals that the windows now have.
    ///
    /// # Errors
    /// [`Error`] where the counters cannot be reached.
    pub async fn raise_direct(&self, totals: Vec<(AccountId, WindowKey, Units)>) -> Result<(), Error> {
        let mut by_account: BTreeMap<AccountId, Vec<(WindowKey, Units)>> = BTreeMap::new();
        for (account, key, total) in totals {
            by_account.entry(account).or_default().push((key, total));
        }
        for (account, totals) in by_account {
            self.counters.raise_direct(&account, &totals).await?;
        }
        Ok(())
    }
}

/// Adds to the windows, fires thresholds, and answers the totals of what was recorded after the fact.
///
/// # Errors
/// [`Error`].
pub(crate) async fn follow_ledger(
    connection: &mut PgConnection,
    followed: &Followed,
) -> Result<Vec<(AccountId, WindowKey, Units)>, Error> {
    let uses = store::add_to_windows(connection, &followed.additions).await?;
    let mut totals = Vec::new();
    for ((addition, limit), after) in followed.additions.iter().zip(&followed.limits).zip(uses) {
        fire(connection, addition, limit, after, followed.now).await?;
        if addition.used_direct > 0 {
            let total = u64::try_from(after.used_direct)
                .ok()
                .and_then(|total| Units::new(total).ok());
            totals.push((
                addition.account.clone(),
                addition.key.clone(),
                total.unwrap_or(Units::MAX),
            ));
        }
    }
    Ok(totals)
}

/// Notes every threshold that was crossed and tells of the highest that is new.
async fn fire(
    connection: &mut PgConnection,
    addition: &Addition,
    limit: &EffectiveLimit,
    after: WindowUse,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    if limit.limit.mode == LimitMode::Shadow {
        return Ok(());
    }
    let before = after.used - addition.used;
    let mut told = false;
    for percent in crossed(&limit.limit.thresholds, limit.limit.amount, before, after.used)
        .into_iter()
        .rev()
    {
        let crossing = Crossing {
            account: addition.account.clone(),
            key: addition.key.clone(),
            limit: limit.limit.amount,
            percent,
            used: after.used,
            notified: !told,
        };
        let first = store::insert_crossing(connection, &crossing, now).await?;
        if first && !told {
            outbox::enqueue(connection, &event(&crossing, limit, now), now).await?;
            told = true;
        }
    }
    Ok(())
}

fn event(crossing: &Crossing, limit: &EffectiveLimit, now: Timestamp) -> ThresholdCrossed {
    let key = &crossing.key;
    let bounded = key.end != Timestamp::MAX;
    ThresholdCrossed {
        account_id: crossing.account.to_string(),
        metric: key.metric.to_string(),
        period: to_proto_period(key.period),
        limit: crossing.limit.get(),
        threshold_percent: crossing.percent,
        used: u64::try_from(crossing.used).unwrap_or(u64::MAX),
        window_start_time: Some(to_proto_time(key.start)),
        window_end_time: bounded.then(|| to_proto_time(key.end)),
        window_closed: bounded && key.end <= now,
        mode: to_proto_mode(limit.limit.mode),
    }
}
