//! The port to whoever takes the payments, with one `match` at configuration.

mod manual;
mod stripe;

use octroi_core::{AccountId, ErrorKind, ServiceError};
use octroi_kit::config::ConfigError;
use octroi_proto::errors::v1::ErrorReason;

use crate::{
    config::{PaymentsConfig, PaymentsProvider},
    domain::subscription::Provider,
};

/// Why a provider did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PaymentsError {
    /// It understood and refused.
    #[error("the payment provider refused with status {status} ({code})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's own code.
        code: String,
    },
    /// It does not answer, or not now; the same call may be made again.
    #[error("the payment provider does not answer")]
    Unreachable,
    /// Its answer cannot be read.
    #[error("the payment provider's answer cannot be read")]
    Unreadable,
}

impl ServiceError for PaymentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } => ErrorKind::Precondition,
            Self::Unreachable | Self::Unreadable => ErrorKind::Unavailable,
        }
    }

    fn reason(&self) -> &'static str {
        ErrorReason::PaymentProviderFailed.name()
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Refused { status, code } => vec![("status", status.to_string()), ("code", code.clone())],
            Self::Unreachable | Self::Unreadable => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        matches!(self, Self::Unreachable).then_some(5)
    }
}

/// Makes one call the same call when it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallKey {
    /// Derived from a row of ours that was written before the call.
    pub key: String,
    /// The provider may have forgotten the key, so what it made is looked for first.
    pub may_be_forgotten: bool,
}

/// Who takes the payments.
#[derive(Clone, Debug)]
pub enum Payments {
    /// Our own invoices, paid by transfer and marked paid by an operator.
    Manual(manual::Manual),
    /// Stripe.
    Stripe(stripe::Stripe),
}

impl Payments {
    /// The configured provider.
    ///
    /// # Errors
    /// [`ConfigError`] where the provider's settings cannot be used.
    pub fn new(config: &PaymentsConfig) -> Result<Self, ConfigError> {
        Ok(match config.provider {
            PaymentsProvider::Manual => Self::Manual(manual::Manual),
            PaymentsProvider::Stripe => Self::Stripe(stripe::Stripe::new(config)?),
        })
    }

    /// The provider that a request asks for; none where it is not configured. Manual needs no settings and
    /// can always be asked for.
    #[must_use]
    pub fn choose(&self, asked: Option<Provider>) -> Option<Self> {
        match asked {
            None => Some(self.clone()),
            Some(Provider::Manual) => Some(Self::Manual(manual::Manual)),
            Some(Provider::Stripe) => matches!(self, Self::Stripe(_)).then(|| self.clone()),
        }
    }

    /// Which provider this is.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::Manual(_) => Provider::Manual,
            Self::Stripe(_) => Provider::Stripe,
        }
    }

    /// Makes the account known to the provider and answers with its id there. Again with the same key, it
    /// makes nothing new.
    ///
    /// # Errors
    /// [`PaymentsError`].
    pub async fn ensure_customer(
        &self,
        account: &AccountId,
        call: &CallKey,
    ) -> Result<String, PaymentsError> {
        match self {
            Self::Manual(manual) => Ok(manual.customer_id(account)),
            Self::Stripe(stripe) => stripe.ensure_customer(account, call).await,
        }
    }
}

#[cfg(test)]
mod tests;
