//! What every route is given: the ways to the services, as the gateway calls them.

use std::sync::Arc;

use octroi_kit::{
    auth::Auth,
    config::ConfigError,
    link::{Link, Links},
};
use octroi_proto::{
    account::v1::account_service_client::AccountServiceClient,
    billing::v1::billing_service_client::BillingServiceClient,
    notification::v1::notification_service_client::NotificationServiceClient,
    quota::v1::quota_service_client::QuotaServiceClient, usage::v1::usage_service_client::UsageServiceClient,
};

use crate::{Config, NAME};

/// The state of the router.
#[derive(Clone)]
pub(crate) struct Edge(Arc<Inner>);

struct Inner {
    account: Link,
    quota: Link,
    usage: Link,
    billing: Link,
    notification: Link,
    auth: Auth,
    config: Config,
    origin: String,
}

impl Edge {
    /// # Errors
    /// [`ConfigError`] where a service is neither in this process nor configured.
    pub(crate) fn new(links: &Links, auth: &Auth, config: Config) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Inner {
            account: links.to("account", NAME)?,
            quota: links.to("quota", NAME)?,
            usage: links.to("usage", NAME)?,
            billing: links.to("billing", NAME)?,
            notification: links.to("notification", NAME)?,
            auth: auth.clone(),
            origin: config.origin(),
            config,
        })))
    }

    pub(crate) fn account(&self) -> AccountServiceClient<Link> {
        AccountServiceClient::new(self.0.account.clone())
    }

    pub(crate) fn quota(&self) -> QuotaServiceClient<Link> {
        QuotaServiceClient::new(self.0.quota.clone())
    }

    pub(crate) fn usage(&self) -> UsageServiceClient<Link> {
        UsageServiceClient::new(self.0.usage.clone())
    }

    pub(crate) fn billing(&self) -> BillingServiceClient<Link> {
        BillingServiceClient::new(self.0.billing.clone())
    }

    pub(crate) fn notification(&self) -> NotificationServiceClient<Link> {
        NotificationServiceClient::new(self.0.notification.clone())
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.0.auth
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The origin that a browser's request must come from.
    pub(crate) fn origin(&self) -> &str {
        &self.0.origin
    }
}
