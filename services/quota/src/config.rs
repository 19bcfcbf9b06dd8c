//! The `[quota]` section.

use octroi_kit::{
    config::{ConfigError, Secret, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

/// The `[quota]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where limits and windows are.
    pub database: DatabaseConfig,
    /// Where the counters are.
    pub counters: CountersConfig,
    /// When the ledger is asked what became of a request whose recording is not known, in milliseconds.
    pub reconcile_after_ms: u64,
}

/// Which counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// In this process.
    InProcess,
    /// In Redis.
    Redis,
}

/// Where the counters are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CountersConfig {
    /// Which counters.
    pub backend: Backend,
    /// The address of Redis.
    pub url: Secret,
    /// The first part of every key.
    pub namespace: String,
    /// How long a command may take, in milliseconds.
    pub command_timeout_ms: u64,
    /// How many connections one process opens.
    pub connections: usize,
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("quota")?;
        let counters = &self.counters;
        let refuse = |key: &str, rule: &str| Err(ConfigError::new(format!("quota.counters.{key}"), rule));
        if counters.backend == Backend::Redis && counters.url.is_empty() {
            return refuse("url", "must be given for the backend \"redis\"");
        }
        if counters.namespace.is_empty() || counters.namespace.contains(['{', '}']) {
            return refuse("namespace", "must not be empty and hold no braces");
        }
        if !(1..=10_000).contains(&counters.command_timeout_ms) {
            return refuse("command_timeout_ms", "must be 1 to 10000");
        }
        if !(100..=300_000).contains(&self.reconcile_after_ms) {
            return Err(ConfigError::new(
                "quota.reconcile_after_ms",
                "must be 100 to 300000",
            ));
        }
        if !(1..=64).contains(&counters.connections) {
            return refuse("connections", "must be 1 to 64");
        }
        Ok(())
    }
}
