//! Slices whose end was answered and that are settled a moment later: whoever would deny meanwhile, or tell where the
//! account stands, has them settled first.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use octroi_core::{AccountId, SliceId};
use octroi_kit::db::Scope;
use uuid::Uuid;

use super::Escrow;
use crate::{
    error::Error,
    store::{self, Which},
};

/// Slices that are about to be settled, by account.
#[derive(Debug, Default)]
pub(super) struct Ending(Mutex<HashMap<AccountId, Vec<SliceId>>>);

impl Ending {
    fn add(&self, account: &AccountId, slices: &[SliceId]) {
        self.lock().entry(account.clone()).or_default().extend(slices);
    }

    fn remove(&self, account: &AccountId, slices: &[SliceId]) {
        let mut all = self.lock();
        if let Some(of_account) = all.get_mut(account) {
            of_account.retain(|slice| !slices.contains(slice));
            if of_account.is_empty() {
                all.remove(account);
            }
        }
    }

    fn of(&self, account: &AccountId) -> Vec<SliceId> {
        self.lock().get(account).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, Vec<SliceId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Escrow {
    /// Settles slices of an account beside whatever goes on. What they do not charge counts as free from now on: nobody is
    /// denied for want of it.
    pub fn end(&self, account: &AccountId, slices: Vec<SliceId>) {
        self.0.ending.add(account, &slices);
        self.look_again(account);
        let (escrow, account) = (self.clone(), account.clone());
        tokio::spawn(async move {
            if let Err(error) = escrow.settle(&slices).await {
                tracing::debug!(error = %error, "slices are settled by the next sweep");
                escrow.0.unanswered.remember(&slices, escrow.0.db.clock().now());
            }
            escrow.0.ending.remove(&account, &slices);
        });
    }

    /// Settles what is left of holds that were committed.
    ///
    /// # Errors
    /// [`Error`] where the database or the ledger cannot be reached.
    pub async fn settle_holds(&self, committed: BTreeSet<Uuid>) -> Result<(), Error> {
        if committed.is_empty() {
            return Ok(());
        }
        let holds: Vec<Uuid> = committed.into_iter().collect();
        let rows = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::list_slices(connection, Which::OfHolds(&holds)).await })
            })
            .await?;
        let left: Vec<SliceId> = rows.iter().map(|row| row.slice.id).collect();
        self.settle(&left).await?;
        Ok(())
    }

    /// The slices of an account that are about to be settled.
    #[must_use]
    pub fn ending(&self, account: &AccountId) -> Vec<SliceId> {
        self.0.ending.of(account)
    }

    /// Settles slices that were about to be when somebody looked, and answers whether there were any: then what was full may
    /// have room.
    ///
    /// # Errors
    /// [`Error`] where the database or the ledger cannot be reached.
    pub async fn settle_ending(&self, slices: &[SliceId]) -> Result<bool, Error> {
        if slices.is_empty() {
            return Ok(false);
        }
        self.settle(slices).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_ending_until_they_are_settled() {
        let account = |id| AccountId::parse(id).expect("an id");
        let slice = |number| SliceId::new(Uuid::from_u128(number));
        let (acme, other) = (account("acme"), account("other"));
        let ending = Ending::default();
        ending.add(&acme, &[slice(1), slice(2)]);
        ending.add(&acme, &[slice(3)]);
        assert_eq!(ending.of(&acme), [slice(1), slice(2), slice(3)]);
        assert_eq!(ending.of(&other), []);
        ending.remove(&acme, &[slice(1), slice(2)]);
        ending.remove(&other, &[slice(3)]);
        assert_eq!(ending.of(&acme), [slice(3)]);
        ending.remove(&acme, &[slice(3)]);
        assert!(ending.lock().is_empty());
    }
}
