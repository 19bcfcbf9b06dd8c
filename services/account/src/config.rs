//! The `[account]` section.

use octroi_kit::{
    config::{ConfigError, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

/// The `[account]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where accounts are.
    pub database: DatabaseConfig,
    /// How much of the machine passwords may take.
    pub passwords: PasswordsConfig,
}

/// How much of the machine passwords may take. How they are hashed is not for choosing.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordsConfig {
    /// Passwords hashed at the same time.
    pub hashing_at_once: usize,
    /// Passwords of those who sign in that may be verified or wait for it.
    pub waiting_max: usize,
    /// Passwords of those who sign up that may be hashed or wait for it. They are hashed one at a time.
    pub sign_ups_waiting_max: usize,
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("account")?;
        let PasswordsConfig {
            hashing_at_once,
            waiting_max,
            sign_ups_waiting_max,
        } = self.passwords;
        for (key, value, range) in [
            ("account.passwords.hashing_at_once", hashing_at_once, 1..=64),
            (
                "account.passwords.waiting_max",
                waiting_max,
                hashing_at_once..=10_000,
            ),
            (
                "account.passwords.sign_ups_waiting_max",
                sign_ups_waiting_max,
                1..=10_000,
            ),
        ] {
            if !range.contains(&value) {
                return Err(ConfigError::new(
                    key,
                    format!("must be {} to {}", range.start(), range.end()),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use octroi_kit::config::Loader;

    use super::*;

    #[test]
    fn the_defaults_are_a_valid_section() {
        let loader = Loader::new(&[crate::DEFAULTS], None).expect("defaults");
        let config: Config = loader.section("account").expect("a valid section");
        assert!(config.database.url.is_empty());
        assert_eq!(config.passwords.hashing_at_once, 2);
    }
}
