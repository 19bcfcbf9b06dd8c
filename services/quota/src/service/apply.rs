//! `ApplyEntitlements` and `ApplyCatalog`: billing says what holds.

use octroi_core::AccountId;
use octroi_kit::db::{Scope, lock_catalog_version};
use sqlx::PgConnection;

use super::Service;
use crate::{
    domain::holding::{AccountEntitlements, Catalog},
    error::Error,
    store,
};

impl Service {
    /// Sets what an account is entitled to. The same version again changes nothing.
    ///
    /// # Errors
    /// [`Error::VersionStale`] where a newer one was applied.
    pub async fn apply_entitlements(
        &self,
        account: AccountId,
        given: AccountEntitlements,
    ) -> Result<u64, Error> {
        let version = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { apply_entitlements(connection, &account, &given).await })
            })
            .await?;
        self.holdings.forget();
        Ok(version)
    }

    /// Sets metrics and the default plan. The same version again changes nothing.
    ///
    /// # Errors
    /// [`Error::VersionStale`] where a newer one was applied.
    pub async fn apply_catalog(&self, catalog: Catalog) -> Result<u64, Error> {
        let version = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let current = lock_catalog_version(connection).await?;
                    if current > catalog.version {
                        return Err(Error::VersionStale {
                            given: catalog.version,
                            current,
                        });
                    }
                    if current < catalog.version {
                        store::update_catalog(connection, &catalog).await?;
                    }
                    Ok(catalog.version)
                })
            })
            .await?;
        self.holdings.forget();
        Ok(version)
    }
}

/// The same, in the transaction of whoever asks.
///
/// # Errors
/// [`Error::VersionStale`] where a newer one was applied.
pub(crate) async fn apply_entitlements(
    connection: &mut PgConnection,
    account: &AccountId,
    given: &AccountEntitlements,
) -> Result<u64, Error> {
    let current = store::upsert_entitlements(connection, account, given).await?;
    if current > given.version {
        return Err(Error::VersionStale {
            given: given.version,
            current,
        });
    }
    Ok(current)
}
