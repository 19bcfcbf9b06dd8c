//! Follows what corrects the ledger: units come back to windows that are open, or are taken from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug};
use sqlx::PgConnection;

use super::{
    Service,
    follow_ledger::{FollowUp, Followed},
};
use crate::{
    domain::{correction::is_changed, limits::EffectiveLimit},
    error::Error,
    store::{self, AccountWindow, Change},
};

/// One event that was corrected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub metric: MetricSlug,
    /// When it happened.
    pub event_at: Timestamp,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
    /// How many units more than before count as used; fewer, below 0.
    pub change: i64,
}

impl Corrected {
    /// What it adds to each of its windows. What counts more was never permitted; what counts less is as if it were given back,
    /// so that what slices paid stays what it was.
    #[must_use]
    pub fn change(&self) -> Change {
        let units = u128::from(self.change.unsigned_abs());
        if self.change < 0 {
            return Change {
                returned: units,
                ..Change::default()
            };
        }
        Change {
            overrun: units,
            followed: units,
            ..Change::default()
        }
    }
}

/// What a commit of corrections may change of windows, read before the transaction that changes them.
#[derive(Clone, Debug)]
pub struct CorrectedWindows {
    lines: Vec<(AccountWindow, Timestamp, Change)>,
    limits: BTreeMap<AccountWindow, Arc<EffectiveLimit>>,
    accounts: BTreeSet<AccountId>,
    now: Timestamp,
}

impl Service {
    /// Finds the windows that corrected events lie in. Accounts that are gone and metrics without limits have none.
    ///
    /// # Errors
    /// [`Error`] where it cannot be known which limits hold.
    pub async fn read_corrected_windows(
        &self,
        corrections: Vec<Corrected>,
    ) -> Result<CorrectedWindows, Error> {
        let accounts: BTreeSet<AccountId> = corrections.iter().map(|one| one.account.clone()).collect();
        let known = self.limits_of_all(&accounts).await?;
        let catalog = self.holdings.catalog().await?;
        let mut read = CorrectedWindows {
            lines: Vec::new(),
            limits: BTreeMap::new(),
            accounts,
            now: self.db.clock().now(),
        };
        for one in corrections {
            let Some(Some(limits)) = known.get(&one.account) else {
                continue;
            };
            let kind = catalog.kind_of(&one.metric);
            for (key, limit) in limits.windows_of(&one.metric, kind, one.event_at) {
                let window = (one.account.clone(), key);
                if let Some(limit) = limit {
                    let limits = &mut read.limits;
                    limits.entry(window.clone()).or_insert_with(|| limit.clone());
                }
                read.lines.push((window, one.recorded_at, one.change()));
            }
        }
        Ok(read)
    }

    /// What is to be done once windows have followed corrections: whoever was refused may find room now.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn corrections_followed(
        &self,
        (follow_up, accounts): (FollowUp, BTreeSet<AccountId>),
    ) -> Result<(), Error> {
        self.windows_followed(follow_up).await?;
        for account in &accounts {
            self.escrow.look_again(account);
        }
        Ok(())
    }
}

impl CorrectedWindows {
    /// Those of the windows that the corrections change, with the accounts of all.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn followed(
        self,
        connection: &mut PgConnection,
    ) -> Result<(Followed, BTreeSet<AccountId>), Error> {
        let windows: BTreeSet<&AccountWindow> = self.lines.iter().map(|(window, ..)| window).collect();
        let counted_from = store::list_counted_from(connection, windows.iter().copied()).await?;
        let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
        for (window, recorded_at, change) in self.lines {
            let from = counted_from.get(&window).copied();
            if is_changed(&window.1, from, recorded_at, self.now) {
                *changes.entry(window).or_default() += change;
            }
        }
        Ok((
            Followed::of_changes(changes, self.limits, self.now),
            self.accounts,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_less_is_given_back_and_what_counts_more_was_not_permitted() {
        let changed = |change| {
            let corrected = Corrected {
                account: AccountId::parse("acme").expect("an account"),
                metric: MetricSlug::parse("api.requests").expect("a metric"),
                event_at: Timestamp::UNIX_EPOCH,
                recorded_at: Timestamp::UNIX_EPOCH,
                change,
            };
            let change = corrected.change();
            (change.returned, change.overrun, change.followed)
        };
        assert_eq!(changed(-7), (7, 0, 0));
        assert_eq!(changed(7), (0, 7, 7));
        assert_eq!(changed(0), (0, 0, 0));
    }
}
