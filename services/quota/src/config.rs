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
    /// How limits are cut into slices.
    pub slices: SlicesConfig,
    /// Where answers are remembered.
    pub answers: AnswersConfig,
}

/// How limits are cut into slices.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlicesConfig {
    /// The most units of a slice that nobody needs yet; 1 carves for each check what it needs, and no more.
    pub units_max: u64,
    /// The same for metrics whose decisions are answered before the ledger has them: what a replica that dies may
    /// leave counted.
    pub buffered_units_max: u64,
    /// How often what was answered is told to the ledger, in milliseconds; under load less often.
    pub flush_ms: u64,
    /// How long a slice that nobody touches is kept, in milliseconds.
    pub idle_ms: u64,
    /// How long a replica may be silent before others settle its slices, in milliseconds.
    pub replica_gone_ms: u64,
    /// How often one check carves before it is denied.
    pub tries_max: u32,
}

/// Where answers are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// In this process.
    InProcess,
    /// In Redis.
    Redis,
}

/// Where answers are remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnswersConfig {
    /// Where.
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
        self.answers.validate()?;
        let slices = &self.slices;
        for (key, value, range) in [
            ("units_max", slices.units_max, 1..=9_007_199_254_740_991),
            (
                "buffered_units_max",
                slices.buffered_units_max,
                1..=9_007_199_254_740_991,
            ),
            ("flush_ms", slices.flush_ms, 10..=5_000),
            ("idle_ms", slices.idle_ms, 100..=86_400_000),
            ("replica_gone_ms", slices.replica_gone_ms, 1_000..=600_000),
            ("tries_max", slices.tries_max.into(), 1..=1_000),
        ] {
            if !range.contains(&value) {
                let rule = format!("must be {} to {}", range.start(), range.end());
                return Err(ConfigError::new(format!("quota.slices.{key}"), rule));
            }
        }
        Ok(())
    }
}

impl AnswersConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, rule: &str| Err(ConfigError::new(format!("quota.answers.{key}"), rule));
        if self.backend == Backend::Redis && self.url.is_empty() {
            return refuse("url", "must be given for the backend \"redis\"");
        }
        if self.namespace.is_empty() || self.namespace.contains(['{', '}']) {
            return refuse("namespace", "must not be empty and hold no braces");
        }
        if !(1..=10_000).contains(&self.command_timeout_ms) {
            return refuse("command_timeout_ms", "must be 1 to 10000");
        }
        if !(1..=64).contains(&self.connections) {
            return refuse("connections", "must be 1 to 64");
        }
        Ok(())
    }
}
