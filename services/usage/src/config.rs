//! The `[usage]` section.

use octroi_kit::{
    config::{ConfigError, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

/// The `[usage]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the ledger is.
    pub database: DatabaseConfig,
    /// How events become commits.
    pub ledger: Ledger,
}

/// How events become commits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Events that may wait for their commit in one process.
    pub waiting_events_max: usize,
    /// So many events end a commit: what comes after them waits for the next.
    pub commit_events_max: usize,
    /// The most commits that run at the same time, where they are slow.
    pub commits_at_once: usize,
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("usage")?;
        let Ledger {
            waiting_events_max,
            commit_events_max,
            commits_at_once,
        } = self.ledger;
        for (key, value, range) in [
            (
                "usage.ledger.waiting_events_max",
                waiting_events_max,
                10_000..=10_000_000,
            ),
            ("usage.ledger.commit_events_max", commit_events_max, 1..=50_000),
            ("usage.ledger.commits_at_once", commits_at_once, 1..=64),
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
