//! Which metrics may be recorded, remembered between calls.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use octroi_core::{Aggregation, MetricSlug};
use octroi_kit::db::{Db, Scope};

use crate::{
    error::Error,
    store::{self, Counting},
};

/// Metrics and how they count.
pub(super) type Metrics = HashMap<MetricSlug, Counting>;

/// The metrics of the catalog as they were last read. Billing never takes one out of a catalog, nor has it
/// counted in another way, so only one that is not found needs another look.
pub(super) struct Catalog {
    db: Db,
    metrics: RwLock<Arc<Metrics>>,
}

impl Catalog {
    pub(super) fn new(db: Db) -> Self {
        Self {
            db,
            metrics: RwLock::default(),
        }
    }

    /// The catalog, which has each of `named` that exists: it is read again, once, where it lacks any.
    ///
    /// # Errors
    /// [`Error::Database`] where it cannot be read.
    pub(super) async fn with<'m>(
        &self,
        named: impl IntoIterator<Item = &'m MetricSlug>,
    ) -> Result<Arc<Metrics>, Error> {
        let known = self.known();
        if named.into_iter().all(|metric| known.contains_key(metric)) {
            return Ok(known);
        }
        self.read_again().await
    }

    /// How the amounts of each of `metrics` become one figure, in their order.
    ///
    /// # Errors
    /// [`Error::MetricNotFound`] for the first that does not exist.
    pub(super) async fn aggregations(&self, metrics: &[MetricSlug]) -> Result<Vec<Aggregation>, Error> {
        let known = self.with(metrics).await?;
        metrics
            .iter()
            .enumerate()
            .map(|(index, metric)| {
                let aggregation = known.get(metric).map(|counting| counting.aggregation);
                aggregation.ok_or_else(|| Error::MetricNotFound {
                    metric: metric.clone(),
                    field: format!("metrics[{index}]"),
                })
            })
            .collect()
    }

    fn known(&self) -> Arc<Metrics> {
        self.metrics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn read_again(&self) -> Result<Arc<Metrics>, Error> {
        let metrics = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(store::list_metrics(connection))
            })
            .await
            .map_err(Error::from)?;
        let known = Arc::new(metrics.into_iter().collect::<Metrics>());
        *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }
}
