//! The `[billing]` section.

use octroi_kit::{
    config::{ConfigError, Secret, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

/// The `[billing]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the service's schema is.
    pub database: DatabaseConfig,
    /// Who takes the payments.
    pub payments: PaymentsConfig,
}

/// The provider that takes the payments where a request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentsProvider {
    /// Our own invoices, paid by transfer.
    Manual,
    /// Stripe.
    Stripe,
}

/// The `[billing.payments]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentsConfig {
    /// The provider where a request does not say.
    pub provider: PaymentsProvider,
    /// Stripe's key; needed where the provider is Stripe.
    pub stripe_secret_key: Secret,
    /// Where Stripe's API is; empty means Stripe itself.
    pub stripe_api_base: String,
}

impl PaymentsConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let key = self.stripe_secret_key.expose();
        if self.provider == PaymentsProvider::Stripe && key.is_empty() {
            let problem = "is needed where billing.payments.provider is stripe";
            return Err(ConfigError::new("billing.payments.stripe_secret_key", problem));
        }
        let well_formed = (key.starts_with("sk_") || key.starts_with("rk_"))
            && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !key.is_empty() && !well_formed {
            return Err(ConfigError::new(
                "billing.payments.stripe_secret_key",
                "must begin with sk_ or rk_",
            ));
        }
        let base = &self.stripe_api_base;
        if !base.is_empty() && !base.starts_with("http://") && !base.starts_with("https://") {
            let problem = "must be an address such as http://127.0.0.1:12111";
            return Err(ConfigError::new("billing.payments.stripe_api_base", problem));
        }
        Ok(())
    }
}

impl Config {
    /// Refuses a clock that can be moved together with a key that moves real money.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key.
    pub fn check_sandbox(&self, sandbox: bool) -> Result<(), ConfigError> {
        let key = self.payments.stripe_secret_key.expose();
        if sandbox && (key.starts_with("sk_live_") || key.starts_with("rk_live_")) {
            let problem = "must not be a live key where OCTROI_SANDBOX is true";
            return Err(ConfigError::new("billing.payments.stripe_secret_key", problem));
        }
        Ok(())
    }
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("billing")?;
        self.payments.validate()
    }
}

#[cfg(test)]
mod tests {
    use octroi_kit::config::Loader;

    use super::*;

    fn load(payments: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a writable temporary directory");
        std::fs::write(&file, format!("[billing.payments]\n{payments}")).expect("a writable file");
        Loader::new(&[crate::DEFAULTS], Some(file.path())).and_then(|loader| loader.section("billing"))
    }

    #[test]
    fn the_defaults_are_a_good_configuration() {
        let config = load("").expect("good defaults");
        assert_eq!(config.payments.provider, PaymentsProvider::Manual);
    }

    #[test]
    fn stripe_without_a_usable_key_or_address_is_refused_at_the_start() {
        for (payments, key) in [
            ("provider = \"stripe\"", "billing.payments.stripe_secret_key"),
            (
                "stripe_secret_key = \"pk_test_1\"",
                "billing.payments.stripe_secret_key",
            ),
            (
                "stripe_api_base = \"stripe.local\"",
                "billing.payments.stripe_api_base",
            ),
        ] {
            assert_eq!(load(payments).expect_err("a broken rule").key, key);
        }
        load("provider = \"stripe\"\nstripe_secret_key = \"sk_test_1\"").expect("a good section");
    }

    #[test]
    fn a_clock_that_can_be_moved_is_refused_with_a_live_key() {
        for (name, key, sandbox, ok) in [
            ("live", "sk_live_1", false, true),
            ("live-sandbox", "sk_live_1", true, false),
            ("restricted-sandbox", "rk_live_1", true, false),
            ("test-sandbox", "sk_test_1", true, true),
        ] {
            let config = load(&format!("stripe_secret_key = \"{key}\"")).expect("a good section");
            assert_eq!(config.check_sandbox(sandbox).is_ok(), ok, "{name}");
        }
    }
}
