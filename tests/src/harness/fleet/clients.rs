//! What callers hold: typed clients over links that carry the caller's token.

use anyhow::Result;
use octroi_kit::{config::Secret, link::Link};
use octroi_proto::{
    account::v1::account_service_client::AccountServiceClient,
    billing::v1::billing_service_client::BillingServiceClient,
    notification::v1::notification_service_client::NotificationServiceClient,
    quota::v1::quota_service_client::QuotaServiceClient, usage::v1::usage_service_client::UsageServiceClient,
};

/// A program of the SaaS that asks for quotas and records use.
pub const APPLICATION: &str = "application";
/// Whoever runs the fleet.
pub const OPERATOR: &str = "operator";
/// The edge.
pub const GATEWAY: &str = "gateway";

/// The clients of one caller. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Accounts.
    pub account: AccountServiceClient<Link>,
    /// The ledger.
    pub usage: UsageServiceClient<Link>,
    /// Decisions.
    pub quota: QuotaServiceClient<Link>,
    /// Plans and subscriptions.
    pub billing: BillingServiceClient<Link>,
    /// Notices and e-mails.
    pub notification: NotificationServiceClient<Link>,
}

impl Clients {
    /// Clients of the services at `address`, which call with `token`.
    ///
    /// # Errors
    /// When an address or the token cannot be used.
    pub fn new(address: impl Fn(&str) -> String, token: &str) -> Result<Self> {
        let token = Secret::new(token);
        let link = |service: &str| Link::remote(&address(service), &token);
        Ok(Self {
            account: AccountServiceClient::new(link("account")?),
            usage: UsageServiceClient::new(link("usage")?),
            quota: QuotaServiceClient::new(link("quota")?),
            billing: BillingServiceClient::new(link("billing")?),
            notification: NotificationServiceClient::new(link("notification")?),
        })
    }
}
