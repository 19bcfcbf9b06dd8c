//! The `[usage]` section.

use octroi_kit::{
    config::{ConfigError, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

use crate::domain::{
    anomaly::{Rules, WEEKS_MIN},
    months::BACK_MONTHS_MAX,
};

/// Of fewer months a month that is billed could be gone before its bill.
const MONTHS_KEPT: std::ops::RangeInclusive<u32> = 4..=BACK_MONTHS_MAX;

/// The `[usage]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the ledger is.
    pub database: DatabaseConfig,
    /// How events become commits.
    pub ledger: Ledger,
    /// How reports are read and written.
    pub reports: Reports,
    /// How use out of the ordinary is looked for.
    pub anomalies: Anomalies,
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
    /// How many months of events are kept, the present one included; 0 keeps all.
    pub months_kept: u32,
}

/// How reports are read and written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    /// The most rows of a report that is answered as CSV at once.
    pub rows_max: u32,
    /// How many pages of reports one process reads at the same time.
    pub reads_at_once: u32,
    /// How many reports one process writes at the same time.
    pub jobs_at_once: u32,
    /// How many reports of one account may wait or be written at the same time.
    pub jobs_max: u32,
    /// How many days the file of a report is kept.
    pub kept_days: u32,
    /// How long a process that writes a report may say nothing until another begins it again.
    pub lease_s: u32,
}

impl Reports {
    fn validate(&self) -> Result<(), ConfigError> {
        for (key, value, range) in [
            ("usage.reports.rows_max", self.rows_max, 1..=100_000_000),
            ("usage.reports.reads_at_once", self.reads_at_once, 1..=100),
            ("usage.reports.jobs_at_once", self.jobs_at_once, 1..=16),
            ("usage.reports.jobs_max", self.jobs_max, 1..=1_000),
            ("usage.reports.kept_days", self.kept_days, 1..=90),
            ("usage.reports.lease_s", self.lease_s, 2..=600),
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

/// How use out of the ordinary is looked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Anomalies {
    /// Whether it is looked for at all.
    pub enabled: bool,
    /// The most weeks that an hour is compared with.
    pub weeks: u32,
    /// How many tenths of a robust deviation an hour must be away from what is expected.
    pub score_min_tenths: u64,
    /// How many units it must be away besides.
    pub difference_min: u64,
    /// How long after its end an hour is looked at, in seconds.
    pub grace_s: u32,
    /// The most anomalies of one account that begin within 24 hours.
    pub account_day_max: u32,
}

impl Anomalies {
    /// The rules of the domain.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            weeks: self.weeks,
            score_min: self.score_min_tenths.saturating_mul(100),
            difference_min: self.difference_min,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("weeks", u64::from(self.weeks), u64::from(WEEKS_MIN)..=26),
            ("score_min_tenths", self.score_min_tenths, 10..=1_000),
            ("difference_min", self.difference_min, 1..=1_000_000_000),
            ("grace_s", u64::from(self.grace_s), 60..=3_600),
            ("account_day_max", u64::from(self.account_day_max), 1..=100),
        ];
        for (key, value, range) in ranges {
            if !range.contains(&value) {
                return Err(ConfigError::new(
                    format!("usage.anomalies.{key}"),
                    format!("must be {} to {}", range.start(), range.end()),
                ));
            }
        }
        Ok(())
    }
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("usage")?;
        self.reports.validate()?;
        self.anomalies.validate()?;
        let Ledger {
            waiting_events_max,
            commit_events_max,
            commits_at_once,
            months_kept,
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
        if months_kept != 0 && !MONTHS_KEPT.contains(&months_kept) {
            return Err(ConfigError::new(
                "usage.ledger.months_kept",
                format!(
                    "must be {} to {}, or 0 to keep all",
                    MONTHS_KEPT.start(),
                    MONTHS_KEPT.end()
                ),
            ));
        }
        Ok(())
    }
}
