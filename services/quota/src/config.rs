//! The `[quota]` section.

use std::path::PathBuf;

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
    /// Where decisions wait that were answered while the ledger was away.
    pub journal: JournalConfig,
    /// The Redis that all replicas share, where there is one.
    pub redis: RedisConfig,
    /// Where answers are remembered.
    pub answers: AnswersConfig,
    /// Where copies of limits and usage are kept.
    pub cache: CacheConfig,
    /// What is remembered of decisions, to explain them.
    pub decisions: DecisionsConfig,
    /// When people are told of their limits.
    pub thresholds: ThresholdsConfig,
}

/// When people are told of their limits.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdsConfig {
    /// How often it is looked whether a use that reached a threshold is normal again, in milliseconds.
    pub look_ms: u64,
}

/// What is remembered of decisions, to explain them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionsConfig {
    /// The most decisions from memory that are remembered.
    pub from_memory_max: usize,
    /// The most memory for all others, in bytes.
    pub bytes_max: usize,
    /// How many of one account and metric are written down each second.
    pub written_per_second_max: u32,
    /// The most that wait to be written down.
    pub queue_max: usize,
}

/// How limits are cut into slices.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlicesConfig {
    /// The most units of a slice that nobody needs yet; 1 carves for each check what it needs, and no more.
    pub units_max: u64,
    /// The same for metrics whose decisions are answered before the ledger has them, where little is spent.
    pub buffered_units_min: u64,
    /// What the slice that is spent and the one that comes next may have together, where much is spent: then a slice has
    /// as much as lasts for about a second. It is what a replica that dies may leave counted.
    pub buffered_units_max: u64,
    /// How often what was answered is told to the ledger, in milliseconds; under load less often.
    pub flush_ms: u64,
    /// How long a slice that nobody touches is kept, in milliseconds.
    pub idle_ms: u64,
    /// How long a replica may be silent before others settle its slices, in milliseconds.
    pub replica_gone_ms: u64,
    /// How often one check carves before it is denied.
    pub tries_max: u32,
    /// How long limits with the policy LEASE go on with what was carved while something is away, in milliseconds.
    pub lease_ms: u64,
}

/// Where decisions wait that were answered while the ledger was away.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// The directory; empty means `quota-journal` in the data directory.
    pub dir: PathBuf,
    /// The most that it may take, in bytes.
    pub bytes_max: usize,
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnswersConfig {
    /// Where.
    pub backend: Backend,
    /// Of how many requests that a replica answered from memory each second the others are told.
    pub told_per_second_max: u32,
}

/// The Redis that all replicas share.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Its address.
    pub url: Secret,
    /// The first part of every key.
    pub namespace: String,
    /// How long a command may take, in milliseconds.
    pub command_timeout_ms: u64,
    /// How many connections one process opens.
    pub connections: usize,
}

/// Where copies of what the database says are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheBackend {
    /// Nowhere: the database is asked.
    Off,
    /// In Redis.
    Redis,
}

/// Copies of limits and usage.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Where.
    pub backend: CacheBackend,
    /// How long a copy of what holds for an account is kept, in milliseconds.
    pub limits_ttl_ms: u64,
    /// How long a copy of what an account has used is kept, in milliseconds.
    pub usage_ttl_ms: u64,
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("quota")?;
        if !(1_024..=1 << 30).contains(&self.journal.bytes_max) {
            return Err(ConfigError::new(
                "quota.journal.bytes_max",
                "must be 1024 to 1073741824",
            ));
        }
        self.redis.validate()?;
        for (key, in_redis) in [
            ("answers.backend", self.answers.backend == Backend::Redis),
            ("cache.backend", self.cache.backend == CacheBackend::Redis),
        ] {
            if in_redis && self.redis.url.is_empty() {
                let rule = format!("must be given where quota.{key} is \"redis\"");
                return Err(ConfigError::new("quota.redis.url", rule));
            }
        }
        for (key, ttl_ms, most) in [
            // Changes are looked for that far back: a copy whose end was missed must not live on.
            ("limits_ttl_ms", self.cache.limits_ttl_ms, 15_000),
            ("usage_ttl_ms", self.cache.usage_ttl_ms, 3_600_000),
        ] {
            if !(1..=most).contains(&ttl_ms) {
                let rule = format!("must be 1 to {most}");
                return Err(ConfigError::new(format!("quota.cache.{key}"), rule));
            }
        }
        self.decisions.validate()?;
        if !(100..=3_600_000).contains(&self.thresholds.look_ms) {
            return Err(ConfigError::new(
                "quota.thresholds.look_ms",
                "must be 100 to 3600000",
            ));
        }
        let slices = &self.slices;
        for (key, value, range) in [
            ("units_max", slices.units_max, 1..=9_007_199_254_740_991),
            (
                "buffered_units_min",
                slices.buffered_units_min,
                1..=(slices.buffered_units_max / 2).max(1),
            ),
            (
                "buffered_units_max",
                slices.buffered_units_max,
                1..=9_007_199_254_740_991,
            ),
            ("flush_ms", slices.flush_ms, 10..=5_000),
            ("idle_ms", slices.idle_ms, 100..=86_400_000),
            ("replica_gone_ms", slices.replica_gone_ms, 1_000..=600_000),
            ("tries_max", slices.tries_max.into(), 1..=1_000),
            ("lease_ms", slices.lease_ms, 0..=3_600_000),
        ] {
            if !range.contains(&value) {
                let rule = format!("must be {} to {}", range.start(), range.end());
                return Err(ConfigError::new(format!("quota.slices.{key}"), rule));
            }
        }
        Ok(())
    }
}

impl DecisionsConfig {
    fn validate(self) -> Result<(), ConfigError> {
        for (key, value, range) in [
            ("from_memory_max", self.from_memory_max, 16..=10_000_000),
            ("bytes_max", self.bytes_max, 0..=1 << 40),
            ("queue_max", self.queue_max, 1..=1_000_000),
        ] {
            if !range.contains(&value) {
                let rule = format!("must be {} to {}", range.start(), range.end());
                return Err(ConfigError::new(format!("quota.decisions.{key}"), rule));
            }
        }
        Ok(())
    }
}

impl RedisConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, rule: &str| Err(ConfigError::new(format!("quota.redis.{key}"), rule));
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

impl Config {
    /// Whether anything is in Redis.
    pub(crate) fn needs_redis(&self) -> bool {
        self.answers.backend == Backend::Redis || self.cache.backend == CacheBackend::Redis
    }
}
