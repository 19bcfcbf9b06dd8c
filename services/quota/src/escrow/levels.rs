//! Where an account stands: what its windows have granted, and what this replica has spent of its slices.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{AccountId, SliceId};
use octroi_kit::db::{DatabaseError, Scope};

use super::Escrow;
use crate::{
    cache::Part,
    domain::{carve::Granted, decision::Level, window::WindowKey},
    error::Error,
    store,
};

/// Windows with what they have granted.
type Windows = Vec<(WindowKey, Granted)>;

impl Escrow {
    /// Where the account stands in windows; those that were looked at since `since` are not looked up again.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn levels(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        since: Timestamp,
    ) -> Result<Vec<Level>, Error> {
        if let Some(levels) = self.0.purses.levels(account, keys, since) {
            return Ok(levels);
        }
        let own = self.0.purses.own(account);
        self.levels_in_database(account, keys, own).await
    }

    /// The same for who only looks: where this replica has no slices of the account, a copy will do. It has every
    /// window of `all`, whichever of them is asked for.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn look(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        all: &[WindowKey],
        since: Timestamp,
    ) -> Result<Vec<Level>, Error> {
        if let Some(levels) = self.0.purses.levels(account, keys, since) {
            return Ok(levels);
        }
        let own = self.0.purses.own(account);
        if self.0.purses.has_slices(account) || !keys.iter().all(|key| all.contains(key)) {
            // What it spent of them may be in the windows already, which only the database knows.
            return self.levels_in_database(account, keys, own).await;
        }
        let has_all = |copy: &Windows| {
            keys.iter()
                .all(|key| copy.iter().any(|(window, _)| window == key))
        };
        let load = self.find_windows(account, all);
        let windows = self.0.cache.get(account, Part::Usage, has_all, load).await?;
        let named = windows.into_iter().collect::<HashMap<WindowKey, Granted>>();
        Ok(self.levels_of(account, keys, &named))
    }

    async fn find_windows(&self, account: &AccountId, keys: &[WindowKey]) -> Result<Windows, Error> {
        let windows: Vec<_> = keys.iter().map(|key| (account.clone(), key.clone())).collect();
        let found = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::find_windows(connection, &windows).await })
            })
            .await?;
        let granted = |key: &WindowKey| found.get(&(account.clone(), key.clone())).copied();
        Ok(keys
            .iter()
            .map(|key| (key.clone(), granted(key).unwrap_or_default()))
            .collect())
    }

    async fn levels_in_database(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        own: Vec<SliceId>,
    ) -> Result<Vec<Level>, Error> {
        let windows: Vec<_> = keys.iter().map(|key| (account.clone(), key.clone())).collect();
        let asked = own.clone();
        let (open, found) = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let open = store::list_unsealed(connection, &asked).await?;
                    let found = store::find_windows(connection, &windows).await?;
                    Ok::<_, DatabaseError>((open, found))
                })
            })
            .await?;
        self.0.purses.keep(account, &own, &open);
        let named = found
            .into_iter()
            .map(|((_, key), granted)| (key, granted))
            .collect();
        Ok(self.levels_of(account, keys, &named))
    }

    fn levels_of(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        found: &HashMap<WindowKey, Granted>,
    ) -> Vec<Level> {
        let now = self.0.db.clock().now();
        let granted: Windows = (keys.iter())
            .map(|key| (key.clone(), found.get(key).copied().unwrap_or_default()))
            .collect();
        self.0.purses.levels_after(account, &granted, now)
    }
}
