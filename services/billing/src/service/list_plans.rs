//! `ListPlans`.

use octroi_kit::db::Scope;

use super::Service;
use crate::{domain::catalog::AppliedCatalog, error::Error, store};

impl Service {
    /// The catalog in force, without private plans unless they are asked for; none before the first apply.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list_plans(&self, include_private: bool) -> Result<Option<AppliedCatalog>, Error> {
        let mut applied = self
            .db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(async move { Ok::<_, Error>(store::catalog::find_catalog(connection).await?) })
            })
            .await?;
        if let Some(applied) = &mut applied {
            applied
                .catalog
                .plans
                .retain(|plan| plan.public || include_private);
        }
        Ok(applied)
    }
}
