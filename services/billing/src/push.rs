//! Hands what billing decided to the services that act on it.
//!
//! The state of every push is in the database: what a service has not taken is pushed again, by whoever
//! comes first, until it does. The services take a version once, so a push too many does no harm.

use std::time::Duration;

use octroi_core::AccountId;
use octroi_kit::{
    convert::{
        to_proto_entitlements, to_proto_feature_plans, to_proto_metric, to_proto_stage, to_proto_time,
    },
    db::{Db, Scope},
    link::Link,
    status::Upstream,
};
use octroi_proto::{
    errors::v1::ErrorReason, quota::v1 as quota, quota::v1::quota_service_client::QuotaServiceClient,
    usage::v1 as usage, usage::v1::usage_service_client::UsageServiceClient,
};

use crate::{
    domain::catalog::AppliedCatalog,
    error::Error,
    store::{self, catalog::Versions},
};

/// How long one push may take. Shorter than the pause before the next.
const PUSH_MAX: Duration = Duration::from_secs(4);
/// How often a push begins anew because another catalog was applied in the meantime.
const RACES_MAX: u32 = 3;

/// The ways to the services that act on what billing decides.
#[derive(Clone, Debug)]
pub struct Push {
    db: Db,
    quota: QuotaServiceClient<Link>,
    usage: UsageServiceClient<Link>,
}

impl Push {
    /// Pushes over these links.
    #[must_use]
    pub fn new(db: Db, quota: Link, usage: Link) -> Self {
        Self {
            db,
            quota: QuotaServiceClient::new(quota),
            usage: UsageServiceClient::new(usage),
        }
    }

    /// Pushes the newest catalog to every service that has not taken it.
    ///
    /// # Errors
    /// [`Error::CatalogNotPushed`] where a service did not take it.
    pub async fn push_catalog(&self) -> Result<(), Error> {
        let mut races = 0;
        loop {
            match self.push_newest_catalog().await {
                // Somebody applied and pushed a newer one between our reading and our call.
                Err(Error::CatalogNotPushed { cause, .. })
                    if cause.error_reason() == Some(ErrorReason::VersionStale) && races < RACES_MAX =>
                {
                    races += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn push_newest_catalog(&self) -> Result<(), Error> {
        let Some((catalog, has)) = self.catalog_to_push().await? else {
            return Ok(());
        };
        // The ledger must know a metric before the quota lets it be used.
        if has.usage_has < catalog.version {
            let request = timed(to_usage_catalog(&catalog));
            let answer = self.usage.clone().apply_catalog(request).await;
            self.note_accepted("usage", catalog.version, answer.map(drop))
                .await?;
        }
        if has.quota_has < catalog.version {
            let request = timed(to_quota_catalog(&catalog)?);
            let answer = self.quota.clone().apply_catalog(request).await;
            self.note_accepted("quota", catalog.version, answer.map(drop))
                .await?;
        }
        Ok(())
    }

    /// The catalog, where a service has not taken it, and what the services have. Every replica asks every
    /// few seconds, so the catalog is read only where it is needed.
    async fn catalog_to_push(&self) -> Result<Option<(AppliedCatalog, Versions)>, Error> {
        self.db
            .transaction(Scope::AllAccounts, |connection| {
                Box::pin(async move {
                    let versions = store::catalog::get_versions(connection).await?;
                    if versions.newest <= versions.usage_has.min(versions.quota_has) {
                        return Ok(None);
                    }
                    let catalog = store::catalog::find_catalog(connection).await?;
                    Ok::<_, Error>(catalog.map(|catalog| (catalog, versions)))
                })
            })
            .await
    }

    async fn note_accepted(
        &self,
        service: &'static str,
        version: u64,
        answer: Result<(), tonic::Status>,
    ) -> Result<(), Error> {
        if let Err(status) = answer {
            let cause = Box::new(Upstream::new(service, status));
            return Err(Error::CatalogNotPushed {
                version,
                service,
                cause,
            });
        }
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(
                        store::catalog::update_version_accepted(connection, service, version).await?,
                    )
                })
            })
            .await
    }

    /// Pushes the account's entitlements where the quota service has not taken them.
    ///
    /// # Errors
    /// [`Error::Upstream`] where it did not take them now.
    pub async fn push_entitlements(&self, account: &AccountId) -> Result<(), Error> {
        let Some(request) = self.entitlements_to_push(account.clone()).await? else {
            return Ok(());
        };
        let version = request.version;
        let answer = self.quota.clone().apply_entitlements(timed(request)).await;
        answer.map_err(|status| Upstream::new("quota", status))?;
        let account = account.clone();
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(
                        store::entitlement::update_version_pushed(connection, &account, version).await?,
                    )
                })
            })
            .await
    }

    async fn entitlements_to_push(
        &self,
        account: AccountId,
    ) -> Result<Option<quota::ApplyEntitlementsRequest>, Error> {
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let standing = store::entitlement::find_entitlement(connection, &account).await?;
                    let Some(standing) =
                        standing.filter(|standing| standing.version_pushed < standing.version)
                    else {
                        return Ok(None);
                    };
                    let subscription =
                        store::subscription::get_subscription(connection, &account, standing.subscription_id)
                            .await?;
                    let plan =
                        store::catalog::get_plan(connection, &subscription.plan, subscription.plan_version)
                            .await?;
                    Ok::<_, Error>(Some(quota::ApplyEntitlementsRequest {
                        account_id: account.to_string(),
                        version: standing.version,
                        entitlements: Some(to_proto_entitlements(
                            &plan.entitlements(subscription.plan_version),
                        )),
                        anchor_time: Some(to_proto_time(subscription.anchor_at)),
                        stage: to_proto_stage(subscription.stage),
                    }))
                })
            })
            .await
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PUSH_MAX);
    request
}

fn to_usage_catalog(applied: &AppliedCatalog) -> usage::ApplyCatalogRequest {
    usage::ApplyCatalogRequest {
        version: applied.version,
        metrics: applied.catalog.metrics.iter().map(to_proto_metric).collect(),
    }
}

fn to_quota_catalog(applied: &AppliedCatalog) -> Result<quota::ApplyCatalogRequest, Error> {
    let catalog = &applied.catalog;
    let (version, plan) = applied
        .plan(&catalog.default_plan)
        .ok_or_else(|| Error::PlanNotFound(catalog.default_plan.clone()))?;
    Ok(quota::ApplyCatalogRequest {
        version: applied.version,
        metrics: catalog.metrics.iter().map(to_proto_metric).collect(),
        default_entitlements: Some(to_proto_entitlements(&plan.entitlements(version))),
        feature_plans: catalog
            .feature_plans()
            .iter()
            .map(to_proto_feature_plans)
            .collect(),
        restricted_percent: catalog.restricted_percent,
    })
}
