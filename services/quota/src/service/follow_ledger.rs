//! Follows the ledger: what was recorded is added to its windows, and thresholds fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
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

use super::Service;
use crate::{
    domain::{holding::AccountLimits, limits::EffectiveLimit, thresholds::crossed, window::WindowKey},
    error::Error,
    store::{self, Addition, Crossing, WindowUse},
};

/// Accounts that are looked up at the same time.
const ACCOUNTS_AT_ONCE: usize = 32;

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
        let accounts: BTreeSet<&AccountId> = uses.iter().map(|used| &used.account).collect();
        let known: BTreeMap<AccountId, Option<Arc<AccountLimits>>> =
            stream::iter(accounts.into_iter().cloned())
                .map(async |account| {
                    let limits = self.limits_of(&account).await?;
                    Ok::<_, Error>((account, limits))
                })
                .buffer_unordered(ACCOUNTS_AT_ONCE)
                .try_collect()
                .await?;
        let mut sums: BTreeMap<Order, (Addition, EffectiveLimit)> = BTreeMap::new();
        for used in uses {
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
        let now = self.db.clock().now();
        for (account, totals) in by_account {
            self.counters.raise_direct(&account, &totals, now).await?;
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
    for ((addition, limit), after) in followed.additions.iter().zip(&followed.limits).zip(&uses) {
        fire(connection, addition, limit, *after, followed.now).await?;
    }
    Ok(direct_totals(followed, &uses))
}

/// The totals of what was recorded after the fact, where the windows have all of it already.
///
/// # Errors
/// [`Error`].
pub(crate) async fn read_direct_totals(
    connection: &mut PgConnection,
    followed: &Followed,
) -> Result<Vec<(AccountId, WindowKey, Units)>, Error> {
    let nothing = |addition: &Addition| Addition {
        used: 0,
        used_direct: 0,
        ..addition.clone()
    };
    let additions: Vec<Addition> = followed.additions.iter().map(nothing).collect();
    let uses = store::add_to_windows(connection, &additions).await?;
    Ok(direct_totals(followed, &uses))
}

fn direct_totals(followed: &Followed, uses: &[WindowUse]) -> Vec<(AccountId, WindowKey, Units)> {
    let with_direct = (followed.additions.iter().zip(uses)).filter(|(addition, _)| addition.used_direct > 0);
    with_direct
        .map(|(addition, after)| {
            let total = u64::try_from(after.used_direct).ok();
            let total = total.and_then(|total| Units::new(total).ok());
            (
                addition.account.clone(),
                addition.key.clone(),
                total.unwrap_or(Units::MAX),
            )
        })
        .collect()
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
