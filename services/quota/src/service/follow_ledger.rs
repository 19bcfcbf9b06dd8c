//! Follows the ledger: what was recorded is added to its windows, and thresholds fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use octroi_core::{AccountId, LimitMode, MetricSlug};
use octroi_kit::{
    convert::{to_proto_mode, to_proto_period, to_proto_time},
    db::DatabaseError,
    directory::DirectoryError,
    outbox,
};
use octroi_proto::events::v1::ThresholdCrossed;
use sqlx::PgConnection;

use super::{Service, unpermitted::OWN_SOURCES};
use crate::{
    domain::{holding::AccountLimits, limits::EffectiveLimit, thresholds::crossed},
    error::Error,
    store::{self, AccountWindow, Applied, Change, Crossing},
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
    /// How much of it slices of the limit paid for.
    pub charged: u64,
    /// When it happened.
    pub event_at: Timestamp,
    /// Whether it was given back.
    pub returned: bool,
    /// Who says so, in the ledger.
    pub source: String,
    /// Its id there.
    pub event_id: String,
}

impl Used {
    /// What it adds to each of its windows.
    #[must_use]
    pub fn change(&self) -> Change {
        if self.returned {
            return Change {
                returned: self.amount.into(),
                followed: -i128::from(self.amount),
                ..Change::default()
            };
        }
        Change {
            overrun: self.amount.saturating_sub(self.charged).into(),
            followed: self.amount.into(),
            ..Change::default()
        }
    }

    /// The event, where quota recorded it itself and told its windows at once.
    pub(super) fn applied(&self) -> Option<Applied> {
        let own = OWN_SOURCES.iter().any(|source| self.source.starts_with(source));
        own.then(|| Applied {
            account: self.account.clone(),
            source: self.source.clone(),
            event_id: self.event_id.clone(),
        })
    }
}

/// What a commit of the ledger adds to windows, read before the transaction that adds it.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    changes: BTreeMap<AccountWindow, Change>,
    limits: BTreeMap<AccountWindow, Arc<EffectiveLimit>>,
    /// What windows may have been told of before.
    own: Vec<(Applied, Vec<AccountWindow>, Change)>,
    now: Timestamp,
}

impl Service {
    /// Sums a commit of the ledger by window. Accounts that are gone and metrics without limits have none.
    ///
    /// # Errors
    /// [`Error`] where it cannot be known which limits hold.
    pub async fn read_windows(&self, uses: Vec<Used>) -> Result<Followed, Error> {
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
        let mut followed = Followed {
            now: self.db.clock().now(),
            ..Followed::default()
        };
        for used in uses {
            let Some(Some(limits)) = known.get(&used.account) else {
                continue;
            };
            let change = used.change();
            let applied = used.applied();
            let mut windows = Vec::new();
            for limit in limits.of_metric(&used.metric) {
                let window = (used.account.clone(), limits.window_key(limit, used.event_at));
                let sum = followed.changes.entry(window.clone()).or_default();
                sum.followed += change.followed;
                if applied.is_none() {
                    sum.overrun += change.overrun;
                    sum.returned += change.returned;
                }
                followed
                    .limits
                    .entry(window.clone())
                    .or_insert_with(|| limit.clone());
                windows.push(window);
            }
            followed
                .own
                .extend(applied.map(|applied| (applied, windows, change)));
        }
        Ok(followed)
    }

    pub(super) async fn limits_of(&self, account: &AccountId) -> Result<Option<Arc<AccountLimits>>, Error> {
        match self.holdings.of(account).await {
            Ok(limits) => Ok(Some(limits)),
            Err(Error::Account(DirectoryError::NotFound(_) | DirectoryError::Closed(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Adds to the windows and fires thresholds.
///
/// # Errors
/// [`Error`].
pub(crate) async fn follow_ledger(connection: &mut PgConnection, followed: &Followed) -> Result<(), Error> {
    if followed.changes.is_empty() {
        return Ok(());
    }
    let mut changes = followed.changes.clone();
    let own: Vec<Applied> = followed.own.iter().map(|(applied, ..)| applied.clone()).collect();
    let new = store::insert_applied(connection, &own, followed.now).await?;
    for (_, windows, change) in followed.own.iter().filter(|(applied, ..)| new.contains(applied)) {
        for window in windows {
            let sum = changes.entry(window.clone()).or_default();
            sum.overrun += change.overrun;
            sum.returned += change.returned;
        }
    }
    let before = store::lock_windows(connection, &changes.keys().cloned().collect()).await?;
    store::change_windows(connection, &changes).await?;
    for (window, limit) in &followed.limits {
        let step = changes.get(window).map_or(0, |change| change.followed);
        let before = before.get(window).map_or(0, |granted| granted.followed);
        fire(
            connection,
            window,
            limit,
            (before, before.saturating_add_signed(step)),
            followed.now,
        )
        .await?;
    }
    Ok(())
}

/// Notes every threshold that was crossed and tells of the highest that is new.
async fn fire(
    connection: &mut PgConnection,
    (account, key): &AccountWindow,
    limit: &EffectiveLimit,
    (before, after): (u128, u128),
    now: Timestamp,
) -> Result<(), DatabaseError> {
    if limit.limit.mode == LimitMode::Shadow {
        return Ok(());
    }
    let mut told = false;
    for percent in crossed(&limit.limit.thresholds, limit.limit.amount, before, after)
        .into_iter()
        .rev()
    {
        let crossing = Crossing {
            account: account.clone(),
            key: key.clone(),
            limit: limit.limit.amount,
            percent,
            used: after,
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
