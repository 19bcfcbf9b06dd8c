//! Which metrics may be recorded, remembered between calls.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use octroi_core::MetricSlug;
use octroi_kit::db::{DatabaseError, Db, Scope};

use crate::{
    domain::distinct::{Salt, hash_of},
    error::Error,
    store::{self, Counting},
};

/// Metrics and how they count.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    counted: HashMap<MetricSlug, Counting>,
    salt: Salt,
}

impl Metrics {
    /// How a metric counts; none where it does not exist.
    pub(super) fn get(&self, metric: &MetricSlug) -> Option<&Counting> {
        self.counted.get(metric)
    }

    /// What values that are counted are hashed with.
    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    /// The hash of a value that is counted.
    pub(super) fn hash_of(&self, value: &str) -> u64 {
        hash_of(&self.salt, value)
    }
}

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
        // A metric that is to count the values of a property may get that later.
        let is_known = |metric| {
            known
                .get(metric)
                .is_some_and(|counting| !counting.lacks_property())
        };
        if named.into_iter().all(is_known) {
            return Ok(known);
        }
        self.read_again().await
    }

    /// The catalog, which has each of `metrics`.
    ///
    /// # Errors
    /// [`Error::MetricNotFound`] for the first that does not exist.
    pub(super) async fn with_all(&self, metrics: &[MetricSlug]) -> Result<Arc<Metrics>, Error> {
        let known = self.with(metrics).await?;
        let is_unknown = |(_, metric): &(usize, &MetricSlug)| known.get(metric).is_none();
        match metrics.iter().enumerate().find(is_unknown) {
            None => Ok(known),
            Some((index, metric)) => Err(Error::MetricNotFound {
                metric: metric.clone(),
                field: format!("metrics[{index}]"),
            }),
        }
    }

    /// Whether the metric exists.
    ///
    /// # Errors
    /// [`Error::MetricNotFound`] where it does not.
    pub(super) async fn check(&self, metric: &MetricSlug) -> Result<(), Error> {
        if self.with([metric]).await?.get(metric).is_some() {
            return Ok(());
        }
        Err(Error::MetricNotFound {
            metric: metric.clone(),
            field: "metric".to_owned(),
        })
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
                Box::pin(async move {
                    let salt = store::get_salt(connection).await?;
                    let counted = store::list_metrics(connection).await?.into_iter().collect();
                    Ok::<_, DatabaseError>(Metrics { counted, salt })
                })
            })
            .await?;
        let known = Arc::new(metrics);
        *self.metrics.write().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }
}
