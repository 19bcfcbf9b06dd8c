//! `ApplyCatalog`.

use jiff::Timestamp;
use octroi_kit::{db::Scope, outbox};
use octroi_proto::events::v1::CatalogApplied;
use sqlx::PgConnection;

use super::Service;
use crate::{
    domain::catalog::{self, Catalog},
    error::Error,
    store,
};

/// What applying a catalog did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version now in force.
    pub version: u64,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

impl Service {
    /// Makes the document the catalog in force, and hands it to the services that act on it.
    ///
    /// # Errors
    /// [`Error::CatalogInvalid`] where a rule is broken: nothing is applied. [`Error::CatalogNotPushed`]
    /// where it was applied and a service has not taken it yet; to ask again is safe.
    pub async fn apply_catalog(&self, document: String, now: Timestamp) -> Result<Applied, Error> {
        let next = catalog::check(&document).map_err(Error::CatalogInvalid)?;
        let applied = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { apply(connection, &document, &next, now).await })
            })
            .await?;
        self.wake.wake();
        self.push.push_catalog().await?;
        Ok(applied)
    }
}

async fn apply(
    connection: &mut PgConnection,
    document: &str,
    next: &Catalog,
    now: Timestamp,
) -> Result<Applied, Error> {
    store::catalog::lock_catalog(connection).await?;
    let stored = store::catalog::find_catalog(connection).await?;
    if let Some(stored) = &stored {
        if stored.catalog == *next {
            return Ok(Applied {
                version: stored.version,
                changes: Vec::new(),
            });
        }
        catalog::check_succession(&stored.catalog, next).map_err(Error::CatalogInvalid)?;
    }
    let changes = catalog::diff(stored.as_ref().map(|stored| &stored.catalog), next);
    let version = stored.map_or(1, |stored| stored.version + 1);
    let newest = store::catalog::list_newest_plans(connection).await?;
    let plans = catalog::next_plans(&newest, next);
    store::catalog::insert_catalog(connection, version, document, next, &plans, now).await?;
    outbox::enqueue(connection, &CatalogApplied { version }, now).await?;
    Ok(Applied { version, changes })
}
