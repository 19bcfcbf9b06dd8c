//! Which metrics may be recorded, remembered between calls.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use octroi_core::MetricSlug;
use octroi_kit::db::{Db, Scope};

use crate::{error::Error, store};

/// The metrics of the catalog as they were last read. Metrics are never taken out of a catalog, so only
/// one that is not found needs another look.
pub(super) struct Catalog {
    db: Db,
    metrics: RwLock<Arc<HashSet<MetricSlug>>>,
}

impl Catalog {
    pub(super) fn new(db: Db) -> Self {
        Self {
            db,
            metrics: RwLock::default(),
        }
    }

    /// The first of `metrics` that the catalog does not have.
    pub(super) async fn first_unknown<'m>(
        &self,
        metrics: impl IntoIterator<Item = &'m MetricSlug>,
    ) -> Result<Option<MetricSlug>, Error> {
        let known = self.known();
        let unknown: Vec<&MetricSlug> = metrics
            .into_iter()
            .filter(|metric| !known.contains(*metric))
            .collect();
        if unknown.is_empty() {
            return Ok(None);
        }
        let known = self.read_again().await?;
        Ok(unknown
            .into_iter()
            .find(|metric| !known.contains(*metric))
            .cloned())
    }

    fn known(&self) -> Arc<HashSet<MetricSlug>> {
        self.metrics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn read_again(&self) -> Result<Arc<HashSet<MetricSlug>>, Error> {
        let slugs = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(store::list_metrics(connection))
            })
            .await
            .map_err(Error::from)?;
        let known = Arc::new(slugs.into_iter().collect::<HashSet<_>>());
        *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }
}
