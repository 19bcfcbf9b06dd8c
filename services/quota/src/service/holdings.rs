//! What holds for an account: catalog, entitlements, zone and anchor, remembered between checks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use octroi_core::{
    AccountId, Anchor, Entitlements, FeaturePlans, FeatureSlug, Metric, MetricSlug, Stage,
    period::window_containing,
};
use octroi_kit::{
    db::{Db, Scope},
    directory::Directory,
};

use crate::{
    counters::WindowKey,
    domain::limits::{EffectiveLimit, StageRules, effective_limits},
    error::Error,
    store,
};

/// How long what was read is believed: a raised limit, a feature or a stage acts everywhere within it.
const FRESH: Duration = Duration::from_secs(1);
/// The most accounts that are remembered; beyond it all are forgotten and read again.
const REMEMBERED_MAX: usize = 1_000_000;

/// What billing's catalog says.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Its version.
    pub version: u64,
    /// Every metric.
    pub metrics: HashMap<MetricSlug, Metric>,
    /// The plan of accounts without a subscription.
    pub default_entitlements: Entitlements,
    /// Which plans have which feature.
    pub feature_plans: Vec<FeaturePlans>,
    /// The share that RESTRICTED leaves, in percent.
    pub restricted_percent: u32,
}

/// What billing pushed for an account.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountEntitlements {
    /// Grows with every change.
    pub version: u64,
    /// Plan, limits, features.
    pub entitlements: Entitlements,
    /// The first instant of the subscription's first period.
    pub anchor_at: Timestamp,
    /// Where the account stands with its payments.
    pub stage: Stage,
}

/// What holds for one account.
#[derive(Clone, Debug)]
pub struct AccountLimits {
    /// The plan with its limits and features.
    pub entitlements: Entitlements,
    /// The version that billing pushed; 0 for the default plan.
    pub version: u64,
    /// Where the account stands with its payments.
    pub stage: Stage,
    /// The limits in force, by metric and period.
    pub limits: Vec<EffectiveLimit>,
    /// From where MONTH windows are counted.
    pub anchor: Anchor,
    /// The zone of HOUR and DAY windows.
    pub zone: TimeZone,
}

impl AccountLimits {
    /// The limits of one metric.
    pub fn of_metric<'a>(&'a self, metric: &'a MetricSlug) -> impl Iterator<Item = &'a EffectiveLimit> {
        self.limits
            .iter()
            .filter(move |limit| limit.limit.metric == *metric)
    }

    /// The window of a limit that contains `at`.
    #[must_use]
    pub fn window_key(&self, limit: &EffectiveLimit, at: Timestamp) -> WindowKey {
        let period = limit.limit.period;
        WindowKey::new(
            &limit.limit.metric,
            period,
            window_containing(period, at, &self.zone, self.anchor),
        )
    }

    /// Whether the plan has the feature.
    #[must_use]
    pub fn has_feature(&self, feature: &FeatureSlug) -> bool {
        self.entitlements.features.contains(feature)
    }
}

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
        let limits = Arc::new(holding(pushed, &catalog, &known.zone));
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

fn holding(pushed: Option<AccountEntitlements>, catalog: &Catalog, zone: &TimeZone) -> AccountLimits {
    let (entitlements, version, stage, anchor) = match pushed {
        Some(pushed) => (
            pushed.entitlements,
            pushed.version,
            pushed.stage,
            Anchor::at(pushed.anchor_at, zone),
        ),
        None => (
            catalog.default_entitlements.clone(),
            0,
            Stage::Current,
            Anchor::FIRST_OF_MONTH,
        ),
    };
    let rules = StageRules {
        metrics: &catalog.metrics,
        default_entitlements: &catalog.default_entitlements,
        restricted_percent: catalog.restricted_percent,
    };
    let limits = effective_limits(&entitlements, stage, rules);
    AccountLimits {
        entitlements,
        version,
        stage,
        limits,
        anchor,
        zone: zone.clone(),
    }
}
