//! What holds for accounts, remembered between checks and forgotten as soon as it changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use octroi_core::AccountId;
use octroi_kit::{
    db::{Db, Scope},
    directory::Directory,
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::holding::{AccountLimits, AccountState, Catalog},
    error::Error,
    escrow::Escrow,
    store,
};

/// How often changes are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long what is remembered is believed where changes cannot be looked for: a raised limit, a feature or a
/// stage acts everywhere within it.
const BELIEVED: Duration = Duration::from_secs(1);
/// How far back changes are looked for: longer than a transaction may take from its clock to its commit.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(15);
/// How long it is believed that an account is open.
pub(super) const ACCOUNT_FRESH: Duration = Duration::from_secs(30);
/// The most accounts that are remembered; beyond it all are forgotten and read again.
const REMEMBERED_MAX: usize = 1_000_000;

#[derive(Debug)]
struct Known {
    limits: Arc<AccountLimits>,
    /// When the account was open for sure.
    open_at: Instant,
    /// From when on something else holds, such as when an override expires.
    until: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Remembered {
    catalog: Option<Arc<Catalog>>,
    accounts: HashMap<AccountId, Known>,
    /// When changes were looked for last.
    looked_at: Option<Instant>,
}

/// Reads what holds and remembers it. Cloning shares it.
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

    /// Forgets what holds for an account, so that a change made here acts here at once.
    pub(super) fn forget(&self, account: &AccountId) {
        self.lock().accounts.remove(account);
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        let mut remembered = self.lock();
        remembered.catalog = None;
        remembered.accounts.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        {
            let remembered = self.lock();
            if let Some(catalog) = &remembered.catalog
                && remembered.is_believed()
            {
                return Ok(catalog.clone());
            }
        }
        let catalog = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(store::find_catalog(connection))
            })
            .await?
            .ok_or(Error::NoCatalog)?;
        let catalog = Arc::new(catalog);
        self.lock().catalog = Some(catalog.clone());
        Ok(catalog)
    }

    /// What holds for an account that exists and is open.
    pub(super) async fn of(&self, account: &AccountId) -> Result<Arc<AccountLimits>, Error> {
        let now = self.db.clock().now();
        if let Some(limits) = self.lock().recall(account, now) {
            return Ok(limits);
        }
        let known = self.directory.get(account).await?;
        if let Some(limits) = self.lock().open_again(account, now) {
            return Ok(limits);
        }
        let catalog = self.catalog().await?;
        let state = self.read_state(account, known.zone.clone()).await?;
        let limits = Arc::new(AccountLimits::new(&state, &catalog, now));
        let until = state.overrides.values().filter_map(|one| one.expires_at);
        let known = Known {
            limits: limits.clone(),
            open_at: Instant::now(),
            until: until.filter(|until| *until > now).min(),
        };
        let mut remembered = self.lock();
        if remembered.accounts.len() >= REMEMBERED_MAX {
            remembered.accounts.clear();
        }
        remembered.accounts.insert(account.clone(), known);
        Ok(limits)
    }

    async fn read_state(&self, account: &AccountId, zone: jiff::tz::TimeZone) -> Result<AccountState, Error> {
        let now = self.db.clock().now();
        let asked = vec![(account.clone(), zone)];
        let mut states = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::read_states(connection, &asked, now).await })
            })
            .await?;
        let state = states.remove(account);
        Ok(state.ok_or(octroi_kit::db::DatabaseError::RowsAffected {
            expected: 1,
            actual: 0,
        })?)
    }

    /// Looks for changes until `stop`, forgets what changed, and has the slices of those accounts settled.
    pub(super) async fn watch(self, escrow: Escrow, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look(&escrow).await {
                tracing::debug!(error = %error, "changes of limits cannot be looked for");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&self, escrow: &Escrow) -> Result<(), Error> {
        let (asked_at, now) = (Instant::now(), self.db.clock().now());
        let since = now - LOOK_BACK;
        let (changes, (_, version)) = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let changes = store::list_changes(connection, since).await?;
                    let catalog = store::list_revisions(connection, &[]).await?;
                    Ok::<_, octroi_kit::db::DatabaseError>((changes, catalog))
                })
            })
            .await?;
        let mut changed: Vec<AccountId> = Vec::new();
        {
            let mut remembered = self.lock();
            if remembered
                .catalog
                .as_ref()
                .is_some_and(|catalog| catalog.version != version)
            {
                remembered.catalog = None;
                changed.extend(remembered.accounts.drain().map(|(account, _)| account));
            }
            for (account, revision) in changes {
                escrow.drop_older_plan(&account, revision);
                let known = remembered.accounts.get(&account);
                if known.is_some_and(|known| known.limits.revision.account < revision) {
                    remembered.accounts.remove(&account);
                    changed.push(account);
                }
            }
            remembered.looked_at = Some(asked_at);
        }
        for account in &changed {
            escrow.retire_account(account);
        }
        escrow.believe_until(now + BELIEVED, version);
        Ok(())
    }
}

impl Remembered {
    /// Whether nothing can have changed for long without being noticed.
    fn is_believed(&self) -> bool {
        self.looked_at.is_some_and(|at| at.elapsed() < BELIEVED)
    }

    fn recall(&self, account: &AccountId, now: Timestamp) -> Option<Arc<AccountLimits>> {
        let known = self.accounts.get(account)?;
        let holds = known.until.is_none_or(|until| now < until);
        (self.is_believed() && holds && known.open_at.elapsed() < ACCOUNT_FRESH).then(|| known.limits.clone())
    }

    /// The same, of an account that was just found open.
    fn open_again(&mut self, account: &AccountId, now: Timestamp) -> Option<Arc<AccountLimits>> {
        self.accounts.get_mut(account)?.open_at = Instant::now();
        self.recall(account, now)
    }
}
