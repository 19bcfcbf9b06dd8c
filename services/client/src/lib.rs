//! Typed clients of the fleet: the generated client of every service, over one channel that adds the
//! service token, gives every call a deadline, and repeats what may be repeated.
//!
//! ```no_run
//! use octroi_client::{Client, Refusal as _, proto::quota::v1::{CheckItem, CheckMode, CheckQuotaRequest}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // OCTROI_CLIENT__ADDRESS and OCTROI_CLIENT__TOKEN_FILE say where and as whom.
//! let client = Client::from_env()?;
//! let request = CheckQuotaRequest {
//!     account_id: "acme".into(),
//!     items: vec![CheckItem { metric: "api.requests".into(), amount: 1 }],
//!     mode: CheckMode::Consume.into(),
//!     request_id: octroi_client::new_request_id(),
//!     ..Default::default()
//! };
//! match client.quota().check_quota(request).await {
//!     Ok(answer) if answer.get_ref().allowed => println!("go on"),
//!     Ok(answer) => println!("come back after {:?}", answer.get_ref().retry_after),
//!     Err(status) => println!("{:?}: {}", status.reason(), status.message()),
//! }
//! # Ok(())
//! # }
//! ```

mod builder;
mod channel;
mod frame;
pub mod protect;
mod refusal;
mod replicas;
mod retry;

use octroi_proto::{
    account::v1::account_service_client::AccountServiceClient,
    billing::v1::billing_service_client::BillingServiceClient,
    notification::v1::notification_service_client::NotificationServiceClient,
    quota::v1::quota_service_client::QuotaServiceClient, usage::v1::usage_service_client::UsageServiceClient,
};

pub use builder::{Builder, ConfigError, Service};
pub use channel::Channel;
pub use octroi_proto as proto;
pub use protect::{Meter, Quota, QuotaLayer};
pub use refusal::{FieldViolation, Refusal};
pub use retry::{MAY_BE_REPEATED, may_be_repeated};

/// Every key of the `[client]` section, with its comment and default. A key is a variable of the environment:
/// `client.token_file` is `OCTROI_CLIENT__TOKEN_FILE`.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Hands out the clients of the services.
///
/// It is cheap to clone, and so is every client that it hands out: all of them share one set of connections.
#[derive(Clone, Debug)]
pub struct Client {
    account: Channel,
    billing: Channel,
    notification: Channel,
    quota: Channel,
    usage: Channel,
}

impl Client {
    /// Begins a client of the services at `address`, such as `http://127.0.0.1:8081`.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder::new(address)
    }

    /// A client as the environment describes it; see [`Builder::from_env`].
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        Builder::from_env()?.build()
    }

    /// Accounts, members, sessions, API keys.
    #[must_use]
    pub fn account(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.account.clone())
    }

    /// May this account do this now?
    #[must_use]
    pub fn quota(&self) -> QuotaServiceClient<Channel> {
        QuotaServiceClient::new(self.quota.clone())
    }

    /// The ledger of what was used.
    #[must_use]
    pub fn usage(&self) -> UsageServiceClient<Channel> {
        UsageServiceClient::new(self.usage.clone())
    }

    /// Plans and subscriptions.
    #[must_use]
    pub fn billing(&self) -> BillingServiceClient<Channel> {
        BillingServiceClient::new(self.billing.clone())
    }

    /// What people were told.
    #[must_use]
    pub fn notification(&self) -> NotificationServiceClient<Channel> {
        NotificationServiceClient::new(self.notification.clone())
    }
}

/// A new request id, for a change that must happen once however often it is sent.
///
/// Make it where the change is decided, not where it is sent: whoever sends it again must have the same.
#[must_use]
pub fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
