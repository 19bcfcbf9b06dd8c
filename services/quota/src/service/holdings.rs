//! What holds for an account, remembered between checks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use octroi_core::AccountId;
use octroi_kit::{
    db::{Db, Scope},
    directory::Directory,
};

use crate::{
    domain::holding::{AccountLimits, Catalog},
    error::Error,
    store,
};

/// How long what was read is believed: a raised limit, a feature or a stage acts everywhere within it.
const FRESH: Duration = Duration::from_secs(1);
/// The most accounts that are remembered; beyond it all are forgotten and read again.
const REMEMBERED_MAX: usize = 1_000_000;

#[derive(Debug, Default)]
struct Remembered {
    catalog: Option<(Instant, Arc<Catalog>)>,
    accounts: HashMap<AccountId, (Instant, Arc<AccountLimits>)>,
}

/// Reads what holds and remembers it for [`FRESH`].
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    db: Db,
    directory: Directory,
    remembered: Arc<Mutex<Remembered>>,
}

impl Holdings {
    pub(super) fn new(db: Db, directory: Directory) -> Self {
        Self {
            db,
            directory,
            remembered: Arc::default(),
        }
    }

    /// Forgets everything, so that a change made here acts here at once.
    pub(super) fn forget(&self) {
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Remembered::default();
    }

    pub(super) async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        if let Some((read_at, catalog)) = &self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .catalog
            && read_at.elapsed() < FRESH
        {
            return Ok(catalog.clone());
        }
        let catalog = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(store::find_catalog(connection))
            })
            .await?
            .ok_or(Error::NoCatalog)?;
        let catalog = Arc::new(catalog);
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .catalog = Some((Instant::now(), catalog.clone()));
        Ok(catalog)
    }

    /// What holds for an account that exists and is open.
    pub(super) async fn of(&self, account: &AccountId) -> Result<Arc<AccountLimits>, Error> {
        if let Some((read_at, limits)) = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accounts
            .get(account)
            && read_at.elapsed() < FRESH
        {
            return Ok(limits.clone());
        }
        let known = self.directory.get(account).await?;
        let catalog = self.catalog().await?;
        let asked = account.clone();
        let pushed = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::find_entitlements(connection, &asked).await })
            })
            .await?;
        let limits = Arc::new(AccountLimits::new(pushed, &catalog, &known.zone));
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.accounts.len() >= REMEMBERED_MAX {
            remembered.accounts.clear();
        }
        remembered
            .accounts
            .insert(account.clone(), (Instant::now(), limits.clone()));
        Ok(limits)
    }
}
