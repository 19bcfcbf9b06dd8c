//! `ApplyCatalog`: billing says which metrics there are.

use octroi_core::Metric;
use octroi_kit::db::{Scope, lock_catalog_version};

use super::Service;
use crate::{error::Error, store};

impl Service {
    /// Makes `metrics` the catalog of `version`. The same version again changes nothing.
    ///
    /// # Errors
    /// [`Error::VersionStale`] where a newer one was applied.
    pub async fn apply_catalog(&self, version: u64, metrics: Vec<Metric>) -> Result<u64, Error> {
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let current = lock_catalog_version(connection).await?;
                    if current > version {
                        return Err(Error::VersionStale {
                            given: version,
                            current,
                        });
                    }
                    if current < version {
                        store::update_catalog(connection, version, &metrics).await?;
                    }
                    Ok(version)
                })
            })
            .await
    }
}
