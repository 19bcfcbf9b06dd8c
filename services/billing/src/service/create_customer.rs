//! `CreateCustomer`.

use jiff::{SignedDuration, Timestamp};
use octroi_core::Violations;
use octroi_kit::db::Scope;
use uuid::Uuid;

use super::{RequestKey, Service};
use crate::{
    domain::subscription::Provider,
    error::Error,
    payments::CallKey,
    store::{self, request::Earlier},
};

/// A provider keeps a key for 24 hours; after this time we do not count on it any more.
const KEY_KEPT: SignedDuration = SignedDuration::from_hours(23);

/// Asks for an account to be known at a payment provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCustomer {
    /// Who asks, for which account.
    pub key: RequestKey,
    /// The provider; none means the configured one.
    pub provider: Option<Provider>,
}

/// An account that is known at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The provider.
    pub provider: Provider,
    /// The account's id there.
    pub provider_customer_id: String,
}

impl Service {
    /// Makes the account known to its provider. There is one customer an account and provider, however
    /// often it is asked for: our row comes first, and the call's key from the row.
    ///
    /// # Errors
    /// [`Error::Payments`], [`Error::RequestIdReused`], and those of the account.
    pub async fn create_customer(&self, command: CreateCustomer, now: Timestamp) -> Result<Customer, Error> {
        let Some(payments) = self.payments.choose(command.provider) else {
            let mut violations = Violations::default();
            violations.add("provider", "must be one that is configured");
            return Err(violations.into());
        };
        let account = command.key.account.clone();
        self.directory.get(&account).await?;
        let provider = payments.provider();
        let row = self.customer_row(command, provider, now).await?;
        if let Some(provider_customer_id) = row.provider_customer_id {
            return Ok(Customer {
                provider,
                provider_customer_id,
            });
        }
        let may_be_forgotten = now.duration_since(row.created_at) > KEY_KEPT;
        let call = CallKey {
            key: format!("customer-{}", row.id),
            may_be_forgotten,
        };
        let provider_customer_id = payments.ensure_customer(&account, &call).await?;
        let answered = provider_customer_id.clone();
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    store::customer::update_provider_customer_id(connection, &account, row.id, &answered)
                        .await?;
                    Ok::<_, Error>(())
                })
            })
            .await?;
        Ok(Customer {
            provider,
            provider_customer_id,
        })
    }

    async fn customer_row(
        &self,
        command: CreateCustomer,
        provider: Provider,
        now: Timestamp,
    ) -> Result<store::customer::Customer, Error> {
        let id = Uuid::new_v4();
        self.db
            .transaction(Scope::Account(command.key.account.clone()), move |connection| {
                Box::pin(async move {
                    let account = &command.key.account;
                    let asked_provider = command.provider.map_or("", Provider::as_str);
                    let request = command.key.of("create_customer", &[asked_provider]);
                    let row =
                        store::customer::upsert_customer(connection, account, provider, id, now).await?;
                    match store::request::insert_request(connection, &request, row.id, now).await? {
                        Earlier::None | Earlier::Same(_) => Ok(row),
                        Earlier::Other => Err(Error::RequestIdReused(command.key.request_id.clone())),
                    }
                })
            })
            .await
    }
}
