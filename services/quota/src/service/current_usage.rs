//! `GetCurrentUsage` and `GetEntitlements`: where an account stands.

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Units};

use super::Service;
use crate::{
    domain::{
        decision::{Asked, Level, LimitStatus, status},
        holding::AccountLimits,
        limits::EffectiveLimit,
        window::WindowKey,
    },
    error::Error,
};

/// Where the account stands at each limit, and when that was true.
#[derive(Clone, Debug, PartialEq)]
pub struct CurrentUsage {
    /// Each limit, by metric and period.
    pub limits: Vec<LimitStatus>,
    /// The instant.
    pub as_of: Timestamp,
}

impl Service {
    /// Where the account stands at its limits; only at those of `metrics` where any are named.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_current_usage(
        &self,
        account: &AccountId,
        metrics: &[MetricSlug],
    ) -> Result<CurrentUsage, Error> {
        let now = self.db.clock().now();
        let limits = self.holdings.of(account).await?;
        let catalog = self.holdings.catalog().await?;
        if let Some((index, unknown)) =
            (metrics.iter().enumerate()).find(|(_, metric)| !catalog.metrics.contains_key(*metric))
        {
            return Err(Error::MetricNotFound {
                metric: unknown.clone(),
                field: format!("metrics[{index}]"),
            });
        }
        let all = limits.window_keys(now);
        let wanted: Vec<_> = (limits.limits.iter().zip(all.iter().cloned()))
            .filter(|(limit, _)| metrics.is_empty() || metrics.contains(&limit.limit.metric))
            .collect();
        let keys: Vec<_> = wanted.iter().map(|(_, key)| key.clone()).collect();
        // Nothing that was looked at before is shown, but a copy that is forgotten with each change.
        let levels = self.escrow.look(account, &keys, &all, Timestamp::MAX).await?;
        let standing = |((limit, key), level): ((&Arc<EffectiveLimit>, WindowKey), Level)| {
            let asked = Asked {
                effective: Arc::clone(limit),
                window: key.window(),
                amount: Units::ZERO,
            };
            status(&asked, level, false)
        };
        let limits = wanted.into_iter().zip(levels).map(standing).collect();
        Ok(CurrentUsage { limits, as_of: now })
    }

    /// What holds for the account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_entitlements(&self, account: &AccountId) -> Result<Arc<AccountLimits>, Error> {
        self.holdings.of(account).await
    }
}
