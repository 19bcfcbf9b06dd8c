//! `ListPlans`.

use std::sync::{Arc, Mutex, PoisonError};

use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::catalog::{AppliedCatalog, Plan},
    error::Error,
    store,
};

/// The catalog as it was last read. Everybody may ask for the plans, and a version never changes: it is read
/// once, and each question only asks whether there is a newer one. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered(Arc<Mutex<Option<Arc<AppliedCatalog>>>>);

impl Remembered {
    /// The catalog of this version, where it is the one that is remembered.
    fn get(&self, version: u64) -> Option<Arc<AppliedCatalog>> {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.clone().filter(|applied| applied.version == version)
    }

    /// Remembers a catalog, unless a newer one is remembered.
    fn put(&self, applied: &Arc<AppliedCatalog>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered
            .as_ref()
            .is_none_or(|one| one.version < applied.version)
        {
            *remembered = Some(applied.clone());
        }
    }
}

/// The plans on offer, and the catalog that they come from.
#[derive(Clone, Debug)]
pub struct OfferedPlans {
    applied: Arc<AppliedCatalog>,
    include_private: bool,
}

impl OfferedPlans {
    /// The catalog in force, private plans included.
    pub(crate) fn applied(&self) -> &AppliedCatalog {
        &self.applied
    }

    /// The plans, without the private ones unless they were asked for.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Plan> {
        let plans = self.applied.catalog.plans.iter();
        plans.filter(|plan| plan.public || self.include_private)
    }
}

impl Service {
    /// The plans of the catalog in force, without private ones unless they are asked for; none before the
    /// first apply.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list_plans(&self, include_private: bool) -> Result<Option<OfferedPlans>, Error> {
        let remembered = self.catalog.clone();
        let applied = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let version = store::catalog::get_versions(connection).await?.newest;
                    if let Some(applied) = remembered.get(version) {
                        return Ok(Some(applied));
                    }
                    let applied = store::catalog::find_catalog(connection).await?.map(Arc::new);
                    if let Some(applied) = &applied {
                        remembered.put(applied);
                    }
                    Ok::<_, Error>(applied)
                })
            })
            .await?;
        Ok(applied.map(|applied| OfferedPlans {
            applied,
            include_private,
        }))
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::PlanSlug;

    use super::*;
    use crate::domain::catalog::{self, Catalog};

    fn catalog() -> Catalog {
        catalog::check(include_str!("../../../../deploy/catalog.yaml")).expect("a good catalog")
    }

    fn applied(version: u64) -> Arc<AppliedCatalog> {
        Arc::new(AppliedCatalog {
            version,
            catalog: catalog(),
            plan_versions: std::collections::BTreeMap::new(),
        })
    }

    #[test]
    fn a_catalog_is_remembered_until_there_is_a_newer_one() {
        let remembered = Remembered::default();
        assert!(remembered.get(1).is_none());
        let (first, second) = (applied(1), applied(2));
        remembered.put(&first);
        assert!(remembered.get(1).is_some_and(|one| Arc::ptr_eq(&one, &first)));
        assert!(remembered.get(2).is_none(), "what was applied since then is read");
        remembered.clone().put(&second);
        // Who read the older one and comes late changes nothing.
        remembered.put(&first);
        assert!(remembered.get(2).is_some_and(|one| Arc::ptr_eq(&one, &second)));
    }

    #[test]
    fn private_plans_are_shown_only_to_who_asks_for_them() {
        let mut catalog = catalog();
        let hidden: Vec<PlanSlug> = catalog
            .plans
            .first_mut()
            .map(|plan| {
                plan.public = false;
                plan.slug.clone()
            })
            .into_iter()
            .collect();
        let applied = Arc::new(AppliedCatalog {
            version: 1,
            catalog,
            plan_versions: std::collections::BTreeMap::new(),
        });
        for include_private in [true, false] {
            let offered = OfferedPlans {
                applied: applied.clone(),
                include_private,
            };
            let shown = offered.plans().any(|plan| hidden.contains(&plan.slug));
            assert_eq!(shown, include_private);
            assert!(offered.plans().any(|plan| plan.public));
        }
    }
}
