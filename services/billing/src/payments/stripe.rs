//! Stripe. Our row and its id come first; the call's idempotency key is derived from them, and our id is
//! put into the metadata, so that neither a lost answer nor a webhook that overtakes it makes a second
//! customer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use octroi_core::AccountId;
use octroi_kit::config::ConfigError;
use stripe::{Client, ClientBuilder, IdempotencyKey, RequestStrategy, StripeError, StripeRequest as _};
use stripe_core::customer::{CreateCustomer, SearchCustomer};

use super::{CallKey, PaymentsError};
use crate::config::PaymentsConfig;

/// The metadata key of our account's id at every object of Stripe.
pub(super) const ACCOUNT_METADATA: &str = "octroi_account_id";
/// How long Stripe has to do what one call asks for, however many requests that takes: below the deadline
/// of the call.
const CALL_MAX: Duration = Duration::from_secs(8);

/// Stripe's API, with our key.
#[derive(Clone)]
pub struct Stripe {
    client: Arc<Client>,
    /// How long one call may take.
    pub(super) call_max: Duration,
}

impl std::fmt::Debug for Stripe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stripe")
    }
}

impl Stripe {
    pub(super) fn new(config: &PaymentsConfig) -> Result<Self, ConfigError> {
        let mut builder = ClientBuilder::new(config.stripe_secret_key.expose())
            .timeout(CALL_MAX)
            .app_info("octroi", Some(env!("CARGO_PKG_VERSION").to_owned()), None);
        if !config.stripe_api_base.is_empty() {
            builder = builder.url(format!("{}/", config.stripe_api_base.trim_end_matches('/')));
        }
        let client = builder.build().map_err(|_| {
            ConfigError::new(
                "billing.payments",
                "holds a key or an address that Stripe's client refuses",
            )
        })?;
        Ok(Self {
            client: Arc::new(client),
            call_max: CALL_MAX,
        })
    }

    pub(super) async fn ensure_customer(
        &self,
        account: &AccountId,
        call: &CallKey,
    ) -> Result<String, PaymentsError> {
        // What is cut here may have been done; the same key or the search finds it the next time.
        tokio::time::timeout(self.call_max, self.find_or_create_customer(account, call))
            .await
            .unwrap_or(Err(PaymentsError::Unreachable))
    }

    async fn find_or_create_customer(
        &self,
        account: &AccountId,
        call: &CallKey,
    ) -> Result<String, PaymentsError> {
        if call.may_be_forgotten
            && let Some(found) = self.find_customer(account).await?
        {
            return Ok(found);
        }
        let key = IdempotencyKey::new(&call.key).map_err(|_| PaymentsError::Unreadable)?;
        let metadata = HashMap::from([(ACCOUNT_METADATA.to_owned(), account.to_string())]);
        let customer = CreateCustomer::new()
            .metadata(metadata)
            .customize()
            .request_strategy(RequestStrategy::Idempotent(key))
            .send(self.client.as_ref())
            .await
            .map_err(failure)?;
        Ok(customer.id.to_string())
    }

    async fn find_customer(&self, account: &AccountId) -> Result<Option<String>, PaymentsError> {
        // An account id has no quotes.
        let query = format!("metadata['{ACCOUNT_METADATA}']:'{account}'");
        let found = SearchCustomer::new(query)
            .limit(1)
            .send(self.client.as_ref())
            .await
            .map_err(failure)?;
        Ok(found.data.first().map(|customer| customer.id.to_string()))
    }
}

/// What failed, without the provider's sentence: it may quote what was sent.
fn failure(error: StripeError) -> PaymentsError {
    match error {
        StripeError::Stripe(_, status) if status == 409 || status == 429 || status >= 500 => {
            PaymentsError::Unreachable
        }
        StripeError::Stripe(error, status) => {
            let code = error.code.map_or_else(
                || error.type_.as_str().to_owned(),
                |code| code.as_str().to_owned(),
            );
            PaymentsError::Refused { status, code }
        }
        StripeError::ClientError(_) | StripeError::Timeout => PaymentsError::Unreachable,
        StripeError::JSONDeserialize(_) | StripeError::ConfigError(_) => PaymentsError::Unreadable,
    }
}
