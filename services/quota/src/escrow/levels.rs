//! Where an account stands: what its windows have granted, and what this replica has spent of its slices.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::AccountId;

use super::{Escrow, level_reader::Standing, pocket::Purse};
use crate::{
    cache::Part,
    domain::{carve::Granted, decision::Level, window::WindowKey},
    error::Error,
};

/// How often windows are read before what was read is believed although slices came or went meanwhile.
const READS_MAX: u32 = 8;

/// Windows with what they have granted.
type Windows = Vec<(WindowKey, Granted)>;

impl Escrow {
    /// Where the account stands in windows; those that were looked at since `since` are not looked up again.
    ///
    /// # Errors
    /// [`Error::Database`], or [`Error::Overloaded`] where too many look.
    pub async fn levels(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        since: Timestamp,
    ) -> Result<Vec<Level>, Error> {
        if let Some(levels) = self.0.purses.levels(account, keys, since) {
            return Ok(levels);
        }
        self.levels_in_database(account, keys).await
    }

    /// The same for who only looks: where this replica has no slices of the account, a copy will do. It has every
    /// window of `all`, whichever of them is asked for.
    ///
    /// # Errors
    /// [`Error::Database`], or [`Error::Overloaded`] where too many look.
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
        if self.0.purses.has_slices(account) || !keys.iter().all(|key| all.contains(key)) {
            // What it spent of them may be in the windows already, which only the database knows.
            return self.levels_in_database(account, keys).await;
        }
        let has_all = |copy: &Windows| {
            keys.iter()
                .all(|key| copy.iter().any(|(window, _)| window == key))
        };
        let load = self.find_windows(account, all);
        let windows = self.0.cache.get(account, Part::Usage, has_all, load).await?;
        let named = windows.into_iter().collect::<HashMap<WindowKey, Granted>>();
        let none = HashSet::new();
        match self.levels_of(account, keys, &named, |purse| purse.has_still(&none, &none)) {
            Some(levels) => Ok(levels),
            None => self.levels_in_database(account, keys).await,
        }
    }

    async fn find_windows(&self, account: &AccountId, keys: &[WindowKey]) -> Result<Windows, Error> {
        let found = self.0.level_reader.read(account, keys, HashSet::new()).await?;
        let granted = |key: &WindowKey| found.granted.get(key).copied().unwrap_or_default();
        Ok(keys.iter().map(|key| (key.clone(), granted(key))).collect())
    }

    /// What was spent of a slice is counted in memory until it is settled, and then in its windows. So whatever was read of
    /// the windows holds only with the slices that were open then: where others came or went since, it is read again.
    async fn levels_in_database(&self, account: &AccountId, keys: &[WindowKey]) -> Result<Vec<Level>, Error> {
        let mut reads = 0;
        loop {
            reads += 1;
            let own = self.0.purses.own(account);
            let Standing { granted, open } = self.0.level_reader.read(account, keys, own.clone()).await?;
            self.0.purses.keep(account, &own, &open);
            let is_of_now = |purse: &Purse| reads == READS_MAX || purse.has_still(&own, &open);
            if let Some(levels) = self.levels_of(account, keys, &granted, is_of_now) {
                return Ok(levels);
            }
        }
    }

    fn levels_of(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        found: &HashMap<WindowKey, Granted>,
        is_of_now: impl FnOnce(&Purse) -> bool,
    ) -> Option<Vec<Level>> {
        let now = self.0.db.clock().now();
        let granted: Windows = (keys.iter())
            .map(|key| (key.clone(), found.get(key).copied().unwrap_or_default()))
            .collect();
        self.0.purses.levels_after(account, &granted, now, is_of_now)
    }
}
