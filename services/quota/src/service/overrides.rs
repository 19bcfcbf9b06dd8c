//! `SetLimitOverride`, `ClearLimitOverride` and `ListLimits`: what replaces limits of the plan for one account.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Period, Violations};
use octroi_kit::db::Scope;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    domain::{
        holding::AccountLimits,
        limits::{EffectiveLimit, LimitOverride},
    },
    error::Error,
    store,
};

/// How often overrides that have expired are looked for. They stop to hold at their instant in any case; the limit of
/// the plan then acts on slices of before.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);

impl Service {
    /// The limits of an account with what they are made of.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_limits(&self, account: &AccountId) -> Result<Arc<AccountLimits>, Error> {
        self.holdings.of(account).await
    }

    /// Replaces the amount of one of the plan's limits. Nothing is carved from the limit of before after it; what was
    /// carved is settled before the answer, as far as its owners have told the ledger what they answered.
    ///
    /// # Errors
    /// [`Error::MetricNotFound`]; [`Error::LimitNotFound`] where the plan has no such limit; [`Error::Invalid`] where it
    /// has expired already; [`Error`] where the account is unknown or the database cannot be reached.
    pub async fn set_limit_override(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        period: Period,
        replaced: LimitOverride,
    ) -> Result<EffectiveLimit, Error> {
        let now = self.db.clock().now();
        let mut violations = Violations::default();
        if !replaced.holds(now) {
            violations.add("override.expire_time", "must lie in the future");
        }
        violations.finish()?;
        let limits = self.holdings.of(account).await?;
        if !self.holdings.catalog().await?.metrics.contains_key(metric) {
            return Err(Error::MetricNotFound {
                metric: metric.clone(),
                field: "metric".to_owned(),
            });
        }
        find(&limits, metric, period)?;
        let (of, named) = (account.clone(), metric.clone());
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::close_gate(connection, &of).await?;
                    store::upsert_override(connection, &of, (&named, period), &replaced).await?;
                    store::update_state(connection, &of, None, now).await
                })
            })
            .await?;
        self.changed(account).await;
        let limits = self.holdings.of(account).await?;
        find(&limits, metric, period).cloned()
    }

    /// Lets the plan's limit hold again, and answers whether something had replaced it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn clear_limit_override(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        period: Period,
    ) -> Result<bool, Error> {
        self.holdings.of(account).await?;
        let cleared = self.delete_override(account, metric, period, None).await?;
        self.changed(account).await;
        Ok(cleared)
    }

    async fn delete_override(
        &self,
        account: &AccountId,
        metric: &MetricSlug,
        period: Period,
        expired_at: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let (of, metric, now) = (account.clone(), metric.clone(), self.db.clock().now());
        Ok(self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::close_gate(connection, &of).await?;
                    let key = (&metric, period);
                    let cleared = store::delete_override(connection, &of, key, expired_at).await?;
                    if cleared {
                        store::update_state(connection, &of, None, now).await?;
                    }
                    Ok::<_, octroi_kit::db::DatabaseError>(cleared)
                })
            })
            .await?)
    }

    /// Ends overrides that have expired, until `stop`.
    pub async fn expire_overrides(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.expire_some().await {
                tracing::debug!(error = %error, "overrides that expired are looked for again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EXPIRY_EVERY) => {}
            }
        }
    }

    async fn expire_some(&self) -> Result<(), Error> {
        let now = self.db.clock().now();
        let expired = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::list_expired_overrides(connection, now))
            })
            .await?;
        for (account, metric, period) in expired {
            // It may have been set anew since.
            if self.delete_override(&account, &metric, period, Some(now)).await? {
                self.changed(&account).await;
            }
        }
        Ok(())
    }
}

fn find<'l>(
    limits: &'l AccountLimits,
    metric: &'l MetricSlug,
    period: Period,
) -> Result<&'l EffectiveLimit, Error> {
    let mut of_metric = limits.of_metric(metric);
    of_metric
        .find(|effective| effective.limit.period == period)
        .map(AsRef::as_ref)
        .ok_or_else(|| Error::LimitNotFound {
            metric: metric.clone(),
            period,
        })
}
