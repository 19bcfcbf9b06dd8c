//! `CheckCatalog`.

use octroi_kit::db::Scope;

use super::Service;
use crate::{domain::catalog, error::Error, store};

/// What applying a catalog would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What would change, a line each.
    pub changes: Vec<String>,
    /// What deserves a second look, a line each.
    pub warnings: Vec<String>,
}

impl Service {
    /// Says what [`Service::apply_catalog`] would do, and does nothing.
    ///
    /// # Errors
    /// [`Error::CatalogInvalid`] where a rule is broken.
    pub async fn check_catalog(&self, document: &str) -> Result<Checked, Error> {
        let next = catalog::check(document).map_err(Error::CatalogInvalid)?;
        let stored = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(async move { Ok::<_, Error>(store::catalog::find_catalog(connection).await?) })
            })
            .await?;
        let stored = stored.map(|stored| stored.catalog);
        if let Some(stored) = &stored {
            catalog::check_succession(stored, &next).map_err(Error::CatalogInvalid)?;
        }
        Ok(Checked {
            changes: catalog::diff(stored.as_ref(), &next),
            warnings: catalog::warnings(&next),
        })
    }
}
