//! Follows the ledger: what was recorded is added to its windows, and thresholds fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use octroi_core::{AccountId, LimitMode, MetricSlug, Units, source};
use octroi_kit::{
    convert::{to_proto_mode, to_proto_period, to_proto_time},
    db::DatabaseError,
    directory::DirectoryError,
    outbox,
};
use octroi_proto::events::v1::ThresholdCrossed;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Service, commit_hold::hold_committed_by};
use crate::{
    domain::{
        holding::{AccountLimits, Revision},
        limits::{EffectiveLimit, hard_max},
        thresholds::crossed,
    },
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
                ..Change::default()
            };
        }
        Change {
            overrun: self.amount.saturating_sub(self.charged).into(),
            followed: self.amount.into(),
            ..Change::default()
        }
    }

    /// The event, where quota recorded it itself and told its windows at once. Of a commit that is what no limit had room
    /// for; its slices tell the rest.
    pub(super) fn applied(&self) -> Option<Applied> {
        let is_told = |source: &str| source != source::HOLD || self.amount > self.charged;
        let own = [source::HOLD, source::RECORD, source::RETURN];
        let own = own
            .into_iter()
            .any(|source| self.source.starts_with(source) && is_told(source));
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
    /// Holds that were committed.
    committed: BTreeSet<Uuid>,
    /// What the limits of the accounts were read as.
    revisions: BTreeMap<AccountId, Revision>,
    now: Timestamp,
}

impl Service {
    /// Sums a commit of the ledger by window. Accounts that are gone and metrics without limits have none.
    ///
    /// # Errors
    /// [`Error`] where it cannot be known which limits hold.
    pub async fn read_windows(&self, uses: Vec<Used>) -> Result<Followed, Error> {
        let accounts: BTreeSet<AccountId> = uses.iter().map(|used| used.account.clone()).collect();
        let known = self.limits_of_all(&accounts).await?;
        let mut followed = Followed {
            revisions: revisions(&known),
            now: self.db.clock().now(),
            ..Followed::default()
        };
        let catalog = self.holdings.catalog().await?;
        for used in uses {
            let Some(Some(limits)) = known.get(&used.account) else {
                continue;
            };
            let change = used.change();
            let applied = used.applied();
            followed
                .committed
                .extend(hold_committed_by(&used.source, &used.event_id));
            let mut windows = Vec::new();
            let kind = catalog.kind_of(&used.metric);
            for (key, limit) in limits.windows_of(&used.metric, kind, used.event_at) {
                let window = (used.account.clone(), key);
                let sum = followed.changes.entry(window.clone()).or_default();
                sum.followed += change.followed;
                if applied.is_none() {
                    sum.overrun += change.overrun;
                    sum.returned += change.returned;
                }
                if let Some(limit) = limit {
                    let limits = &mut followed.limits;
                    limits.entry(window.clone()).or_insert_with(|| limit.clone());
                }
                windows.push(window);
            }
            if let Some(applied) = applied.filter(|_| !windows.is_empty()) {
                followed.own.push((applied, windows, change));
            }
        }
        Ok(followed)
    }

    /// Reads the limits of an account anew where what was followed had older ones.
    pub(crate) fn limits_outdated(&self, error: &Error) {
        if let Error::LimitsChanged { account, revision } = error {
            self.holdings.outdated(account, *revision);
        }
    }

    /// Forgets copies of windows that changed, and takes back what replicas have set aside of those that are full.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn windows_followed(&self, follow_up: FollowUp) -> Result<(), Error> {
        self.escrow.windows_changed(follow_up.changed).await;
        self.recall_from(follow_up.overdrawn).await
    }

    /// Takes back what replicas have set aside of accounts whose limits have no room for it any more.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn recall_from(&self, accounts: BTreeSet<AccountId>) -> Result<(), Error> {
        for account in accounts {
            self.escrow.settle_account(&account).await?;
        }
        Ok(())
    }

    /// The limits of accounts; of those that are gone, none.
    pub(super) async fn limits_of_all(
        &self,
        accounts: &BTreeSet<AccountId>,
    ) -> Result<BTreeMap<AccountId, Option<Arc<AccountLimits>>>, Error> {
        stream::iter(accounts.iter().cloned())
            .map(async |account| {
                let limits = self.limits_of(&account).await?;
                Ok::<_, Error>((account, limits))
            })
            .buffer_unordered(ACCOUNTS_AT_ONCE)
            .try_collect()
            .await
    }

    pub(super) async fn limits_of(&self, account: &AccountId) -> Result<Option<Arc<AccountLimits>>, Error> {
        match self.holdings.of(account).await {
            Ok(limits) => Ok(Some(limits)),
            Err(Error::Account(DirectoryError::NotFound(_) | DirectoryError::Closed(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the limits of accounts were read as.
pub(super) fn revisions(
    known: &BTreeMap<AccountId, Option<Arc<AccountLimits>>>,
) -> BTreeMap<AccountId, Revision> {
    let limits = known
        .iter()
        .filter_map(|(account, limits)| Some((account, limits.as_ref()?)));
    limits
        .map(|(account, limits)| (account.clone(), limits.revision))
        .collect()
}

/// Lets the limits of accounts be those that were read before the transaction, until it ends: what is recorded from the instant
/// on at which a limit begins counts in its window, and what was followed before does not.
///
/// # Errors
/// [`Error::LimitsChanged`] where they have changed since.
pub(super) async fn hold_limits(
    connection: &mut PgConnection,
    revisions: &BTreeMap<AccountId, Revision>,
) -> Result<(), Error> {
    store::share_gates(connection, revisions.keys()).await?;
    let accounts: Vec<&AccountId> = revisions.keys().collect();
    let found = store::list_revisions(connection, &accounts).await?;
    for (account, read) in revisions {
        let revision = store::revision_of(account, &found);
        if read.is_older_than(revision) {
            return Err(Error::LimitsChanged {
                account: account.clone(),
                revision,
            });
        }
    }
    Ok(())
}

/// Closes holds that were committed, whatever became of whoever committed them; adds to the windows, and fires thresholds.
///
/// # Errors
/// [`Error`]; [`Error::LimitsChanged`] where the limits are not those any more that were read.
pub(crate) async fn follow_ledger(connection: &mut PgConnection, followed: &Followed) -> Result<(), Error> {
    if !followed.revisions.is_empty() {
        hold_limits(connection, &followed.revisions).await?;
    }
    if !followed.committed.is_empty() {
        // Before the windows, as whoever settles has it.
        store::close_holds(
            connection,
            &followed.committed.iter().copied().collect::<Vec<_>>(),
        )
        .await?;
    }
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
    let after = store::add_to_windows(connection, &changes).await?;
    for (window, limit) in &followed.limits {
        let after = after.get(window).copied().unwrap_or_default();
        let change = changes.get(window).copied().unwrap_or_default();
        let followed_before = after.followed.saturating_sub(change.followed);
        let before = followed_before.saturating_sub(after.returned.saturating_sub(change.returned));
        let after = after.used();
        fire(connection, window, limit, (before, after), followed.now).await?;
    }
    Ok(())
}

/// What is to be done once windows have followed.
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// The accounts whose windows have changed.
    changed: BTreeSet<AccountId>,
    /// The accounts of which replicas have set aside what is not there.
    overdrawn: BTreeSet<AccountId>,
}

impl Followed {
    /// How many windows it adds to.
    pub(crate) fn weight(&self) -> usize {
        self.changes.len()
    }

    /// What several commits add together.
    pub(crate) fn of_all<'f>(commits: impl Iterator<Item = &'f Self>) -> Self {
        let mut all = Self::default();
        for commit in commits {
            for (window, change) in &commit.changes {
                *all.changes.entry(window.clone()).or_default() += *change;
            }
            // What was read last holds; and if something of it has changed meanwhile, all is read again.
            all.limits.extend(commit.limits.clone());
            all.own.extend_from_slice(&commit.own);
            all.committed.extend(&commit.committed);
            for (account, revision) in &commit.revisions {
                let oldest = all.revisions.entry(account.clone()).or_insert(*revision);
                if revision.is_older_than(*oldest) {
                    *oldest = *revision;
                }
            }
            all.now = all.now.max(commit.now);
        }
        all
    }

    /// What is added to windows, without the events that it is of. Whoever adds it holds the limits still.
    pub(super) fn of_changes(
        changes: BTreeMap<AccountWindow, Change>,
        mut limits: BTreeMap<AccountWindow, Arc<EffectiveLimit>>,
        now: Timestamp,
    ) -> Self {
        limits.retain(|window, _| changes.contains_key(window));
        Self {
            changes,
            limits,
            now,
            ..Self::default()
        }
    }

    /// What is to be done after it, given the windows as they are now.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub(crate) async fn follow_up(self, connection: &mut PgConnection) -> Result<FollowUp, DatabaseError> {
        let overdrawn = self.overdrawn(connection).await?;
        let changed = self.changes.into_keys().map(|(account, _)| account);
        Ok(FollowUp {
            changed: changed.collect(),
            overdrawn,
        })
    }

    /// The accounts of which more was recorded without permission than their limits had left, given their windows now:
    /// what replicas have set aside of them is not there.
    async fn overdrawn(&self, connection: &mut PgConnection) -> Result<BTreeSet<AccountId>, DatabaseError> {
        let mut suspects = Vec::new();
        for (window, limit) in &self.limits {
            let overrun = self.changes.get(window).map_or(0, |change| change.overrun);
            if let Some(max) = hard_max(&limit.limit)
                && overrun > 0
            {
                suspects.push((window.clone(), max));
            }
        }
        overdrawn(connection, &suspects).await
    }
}

/// The accounts of windows that have granted more than the most that they may, partly to replicas that did not spend
/// it yet.
pub(super) async fn overdrawn(
    connection: &mut PgConnection,
    windows: &[(AccountWindow, Units)],
) -> Result<BTreeSet<AccountId>, DatabaseError> {
    if windows.is_empty() {
        return Ok(BTreeSet::new());
    }
    let keys: Vec<AccountWindow> = windows.iter().map(|(window, _)| window.clone()).collect();
    let granted = store::find_windows(connection, &keys).await?;
    let is_overdrawn = |(window, max): &&(AccountWindow, Units)| {
        granted
            .get(window)
            .is_some_and(|granted| granted.total() > u128::from(max.get()) && granted.open_cap > granted.held)
    };
    let overdrawn = windows.iter().filter(is_overdrawn);
    Ok(overdrawn.map(|((account, _), _)| account.clone()).collect())
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
        // What is beyond what can be counted is told as the most that can.
        used: u64::try_from(crossing.used).map_or(Units::MAX.get(), |used| used.min(Units::MAX.get())),
        window_start_time: Some(to_proto_time(key.start)),
        window_end_time: bounded.then(|| to_proto_time(key.end)),
        window_closed: bounded && key.end <= now,
        mode: to_proto_mode(limit.limit.mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_told_at_once_of_what_no_slice_paid_for_in_a_commit_and_of_what_was_not_asked_for() {
        let used = |source: &str, charged| Used {
            account: AccountId::parse("acme").expect("an account"),
            metric: MetricSlug::parse("api.requests").expect("a metric"),
            amount: 10,
            charged,
            event_at: Timestamp::UNIX_EPOCH,
            returned: false,
            source: source.to_owned(),
            event_id: "e-1".to_owned(),
        };
        for (source, charged, expected) in [
            ("hold:app", 10, false),
            ("hold:app", 9, true),
            ("hold:app", 0, true),
            ("record:app", 0, true),
            ("return:app", 0, true),
            ("decision:app", 0, false),
            ("app", 0, false),
        ] {
            let applied = used(source, charged).applied();
            assert_eq!(applied.is_some(), expected, "{source} {charged}");
        }
    }
}
