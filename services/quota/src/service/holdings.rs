//! What holds for accounts, remembered between checks and forgotten as soon as it changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::{AccountId, PlanSlug, Stage};
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    directory::Directory,
    gather::{Bounds, Gather},
    generations::Generations,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Cache, Part},
    domain::holding::{AccountLimits, AccountState, Catalog, Revision},
    error::Error,
    escrow::Escrow,
    store,
    turns::Turns,
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
/// How long an account is remembered that nobody asks for, at the least.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The most accounts that are remembered.
const REMEMBERED_MAX: usize = 2_000_000;
/// The most plans and stages whose limits accounts share.
const SAMPLES_MAX: usize = 10_000;

#[derive(Debug)]
struct Known {
    limits: Arc<AccountLimits>,
    /// When the account was open for sure.
    open_at: Instant,
    /// From when on something else holds, such as when an override expires.
    until: Option<Timestamp>,
}

#[derive(Debug)]
struct Remembered {
    catalog: Option<Arc<Catalog>>,
    accounts: Generations<AccountId, Known>,
    /// Some account of each plan and stage, for the others to share its limits with.
    samples: HashMap<(PlanSlug, u32, Stage), Arc<AccountLimits>>,
    /// When changes were looked for last.
    looked_at: Option<Instant>,
    /// The catalog that was in force then.
    looked_version: Option<u64>,
    /// Accounts that changed lately, with the revision that they have by now.
    changes: HashMap<AccountId, u64>,
    /// Accounts of which a slice was asked for with limits of before, with a revision that is newer than those.
    newer: HashMap<AccountId, (u64, Instant)>,
}

/// Reads what holds and remembers it. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    db: Db,
    directory: Directory,
    cache: Cache,
    remembered: Arc<Mutex<Remembered>>,
    /// Who reads what holds for an account, so that those who come meanwhile find it.
    reading: Turns<AccountId>,
    states: Gather<Asked, Result<Option<AccountState>, DatabaseError>>,
}

/// An account that exists, with its zone.
type Asked = (AccountId, TimeZone);

/// States that are read together.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 500,
    waiting: 100_000,
};

impl Holdings {
    pub(super) fn new(db: Db, directory: Directory, cache: Cache) -> Self {
        let of = db.clone();
        Self {
            db,
            directory,
            cache,
            remembered: Arc::new(Mutex::new(Remembered::new())),
            reading: Turns::default(),
            states: Gather::start(BOUNDS, move |asked| read_states(of.clone(), asked)),
        }
    }

    /// Forgets what holds for an account, so that a change made here acts here at once.
    pub(super) fn forget(&self, account: &AccountId) {
        self.lock().accounts.remove(account);
    }

    /// Forgets what holds for an account where that is older than `revision`; a copy that is older is not believed.
    pub(super) fn outdated(&self, account: &AccountId, revision: Revision) {
        let mut remembered = self.lock();
        let catalog = remembered.catalog.as_ref();
        if catalog.is_some_and(|catalog| catalog.version < revision.catalog) {
            remembered.catalog = None;
        }
        let known = remembered.accounts.peek(account);
        // Others may have found that out and read it again meanwhile.
        if known.is_some_and(|known| known.limits.revision.is_older_than(revision)) {
            remembered.accounts.remove(account);
        }
        let newer = remembered.newer.get(account).map_or(0, |(newer, _)| *newer);
        let newest = (newer.max(revision.account), Instant::now());
        remembered.newer.insert(account.clone(), newest);
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        let mut remembered = self.lock();
        remembered.catalog = None;
        drop(remembered.accounts.drain());
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
        let mut remembered = self.lock();
        // It may have been read before a look that found a newer one.
        if remembered
            .looked_version
            .is_none_or(|looked| catalog.version >= looked)
        {
            remembered.catalog = Some(catalog.clone());
        }
        drop(remembered);
        Ok(catalog)
    }

    /// What held for an account when it could be read last, with the catalog of then; none where that is longer ago than
    /// `max`.
    pub(super) fn last_known(
        &self,
        account: &AccountId,
        max: Duration,
    ) -> Option<(Arc<AccountLimits>, Arc<Catalog>)> {
        let remembered = self.lock();
        let looked_lately = remembered.looked_at.is_some_and(|at| at.elapsed() < max);
        let known = remembered.accounts.peek(account).filter(|_| looked_lately)?;
        Some((known.limits.clone(), remembered.catalog.clone()?))
    }

    /// What holds for an account that exists and is open.
    pub(super) async fn of(&self, account: &AccountId) -> Result<Arc<AccountLimits>, Error> {
        let now = self.db.clock().now();
        if let Some(limits) = self.lock().recall(account, now) {
            return Ok(limits);
        }
        let read = self.read(account, now).boxed();
        self.reading.one_at_a_time(account.clone(), read).await
    }

    async fn read(&self, account: &AccountId, now: Timestamp) -> Result<Arc<AccountLimits>, Error> {
        if let Some(limits) = self.lock().recall(account, now) {
            return Ok(limits);
        }
        let known = self.directory.get(account).await?;
        if let Some(limits) = self.lock().open_again(account, now) {
            return Ok(limits);
        }
        let catalog = self.catalog().await?;
        let state = self.state(account, &known.zone).await?;
        let limits = self.lock().shared(AccountLimits::new(&state, &catalog, now));
        let until = state.overrides.values().filter_map(|one| one.expires_at);
        let known = Known {
            limits: limits.clone(),
            open_at: Instant::now(),
            until: until.filter(|until| *until > now).min(),
        };
        let forgotten = {
            let mut remembered = self.lock();
            remembered.newer.remove(account);
            remembered.accounts.insert(account.clone(), known)
        };
        drop(forgotten);
        Ok(limits)
    }

    /// What quota keeps of an account: a copy, unless something changed since it was made.
    async fn state(&self, account: &AccountId, zone: &TimeZone) -> Result<AccountState, Error> {
        let least = self.lock().least_revision(account);
        let is_new = |state: &AccountState| state.revision >= least;
        let load = self.read_state(account, zone.clone());
        self.cache.get(account, Part::Limits, is_new, load).await
    }

    async fn read_state(&self, account: &AccountId, zone: TimeZone) -> Result<AccountState, Error> {
        let state = self.states.ask((account.clone(), zone)).await??;
        Ok(state.ok_or(DatabaseError::RowsAffected {
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
                    Ok::<_, DatabaseError>((changes, catalog))
                })
            })
            .await?;
        let mut changed: Vec<(AccountId, Revision)> = Vec::new();
        {
            let mut remembered = self.lock();
            // Whoever read the catalog meanwhile may know of it; what accounts have of the one before does not hold.
            if remembered.looked_version.replace(version) != Some(version) {
                remembered.catalog = None;
                remembered.samples.clear();
                let of_catalog = Revision {
                    account: 0,
                    catalog: version,
                };
                let all = remembered.accounts.drain().into_iter();
                changed.extend(all.map(|account| (account, of_catalog)));
            }
            let latest = changes.iter().cloned().collect();
            for (account, revision) in changes {
                escrow.drop_older_plan(&account, revision);
                let known = remembered.accounts.peek(&account);
                if known.is_some_and(|known| known.limits.revision.account < revision) {
                    remembered.accounts.remove(&account);
                    let of_account = Revision {
                        account: revision,
                        catalog: version,
                    };
                    changed.push((account, of_account));
                }
            }
            remembered.looked_at = Some(asked_at);
            remembered.changes = latest;
            // Whoever finds limits of before once more is told so once more.
            remembered.newer.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        for (account, revision) in &changed {
            escrow.follow(account, *revision);
        }
        escrow.believe_until(now + BELIEVED, version);
        Ok(())
    }
}

/// Reads the states of some accounts, and answers in their order.
async fn read_states(db: Db, asked: Vec<Asked>) -> Vec<Result<Option<AccountState>, DatabaseError>> {
    let (now, names) = (db.clock().now(), asked.clone());
    let read = db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move { store::read_states(connection, &names, now).await })
        })
        .await;
    match read {
        Ok(states) => (asked.iter())
            .map(|(account, _)| Ok(states.get(account).cloned()))
            .collect(),
        Err(error) => asked.iter().map(|_| Err(error.shared())).collect(),
    }
}

impl Remembered {
    fn new() -> Self {
        Self {
            catalog: None,
            accounts: Generations::new(REMEMBERED, REMEMBERED_MAX),
            samples: HashMap::new(),
            looked_at: None,
            looked_version: None,
            changes: HashMap::new(),
            newer: HashMap::new(),
        }
    }

    /// The same limits, in one place with those of other accounts where these have the same.
    fn shared(&mut self, limits: AccountLimits) -> Arc<AccountLimits> {
        let plan = &limits.entitlements;
        let key = (plan.plan.clone(), plan.plan_version, limits.stage);
        let sample = self.samples.get(&key);
        let is_new = sample.is_none();
        let limits = match sample {
            Some(sample) => {
                let limits = limits.sharing_with(sample);
                if limits == **sample {
                    return Arc::clone(sample);
                }
                limits
            }
            None => limits,
        };
        let limits = Arc::new(limits);
        if is_new && self.samples.len() < SAMPLES_MAX {
            self.samples.insert(key, Arc::clone(&limits));
        }
        limits
    }

    /// The least revision that a copy of what holds for an account must have.
    fn least_revision(&self, account: &AccountId) -> u64 {
        let changed = self.changes.get(account).copied();
        let newer = self.newer.get(account).map(|(newer, _)| *newer);
        changed.max(newer).unwrap_or_default()
    }

    /// Whether nothing can have changed for long without being noticed.
    fn is_believed(&self) -> bool {
        self.looked_at.is_some_and(|at| at.elapsed() < BELIEVED)
    }

    fn recall(&mut self, account: &AccountId, now: Timestamp) -> Option<Arc<AccountLimits>> {
        let believed = self.is_believed();
        let known = self.accounts.get(account)?;
        let holds = known.until.is_none_or(|until| now < until);
        (believed && holds && known.open_at.elapsed() < ACCOUNT_FRESH).then(|| known.limits.clone())
    }

    /// The same, of an account that was just found open.
    fn open_again(&mut self, account: &AccountId, now: Timestamp) -> Option<Arc<AccountLimits>> {
        self.accounts.get(account)?.open_at = Instant::now();
        self.recall(account, now)
    }
}
