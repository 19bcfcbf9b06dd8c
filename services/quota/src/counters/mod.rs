//! The counters of open windows: what was taken from each, changed in one step for all windows of a check.
//!
//! A port with two variants, chosen once: one lock in this process, or one script in Redis. The counters
//! are a copy of the ledger: a window that they do not know is *cold*, and is seeded from the ledger
//! before anything is taken from it.

mod in_process;
mod redis;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Period, RequestId, Units, Window};

pub use self::{in_process::InProcess, redis::Redis};
use crate::{
    config::{Backend, CountersConfig},
    domain::decision::Level,
};

/// One window of one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowKey {
    /// The metric.
    pub metric: MetricSlug,
    /// The period.
    pub period: Period,
    /// The window's first instant.
    pub start: Timestamp,
    /// The first instant after it; [`Timestamp::MAX`] where there is none.
    pub end: Timestamp,
}

impl WindowKey {
    /// The window of a metric's limit.
    #[must_use]
    pub fn new(metric: &MetricSlug, period: Period, window: Window) -> Self {
        Self {
            metric: metric.clone(),
            period,
            start: window.start,
            end: window.end,
        }
    }
}

/// What is asked of one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The window.
    pub key: WindowKey,
    /// How much.
    pub amount: Units,
    /// The most that the window may hold.
    pub max: Option<Units>,
}

/// What the counters answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These windows, by their index, must be seeded first. Nothing was taken.
    Cold(Vec<usize>),
    /// Every window had room, and its amount was taken; these are the levels after it.
    Yes(Vec<Level>),
    /// A window had no room, so nothing was taken; these are the levels.
    No(Vec<Level>),
}

/// Which request, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The calling service.
    pub caller: String,
    /// Its id of the request.
    pub request: RequestId,
}

/// The counters cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the counters cannot be reached")]
pub struct CountersError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// How long an answer is remembered, in seconds.
pub const ANSWER_TTL_S: u64 = 600;

/// The port.
#[derive(Clone, Debug)]
pub enum Counters {
    /// In Redis.
    Redis(Redis),
    /// In this process.
    InProcess(InProcess),
}

impl Counters {
    /// The counters that the configuration names.
    ///
    /// # Errors
    /// [`CountersError`] where the address is none, or Redis cannot be reached for 10 s.
    pub async fn connect(config: &CountersConfig) -> Result<Self, CountersError> {
        Ok(match config.backend {
            Backend::InProcess => Self::InProcess(InProcess::default()),
            Backend::Redis => Self::Redis(Redis::connect(config).await?),
        })
    }

    /// Takes from every window or from none.
    ///
    /// # Errors
    /// [`CountersError`]; whether anything was taken is then unknown.
    pub async fn take(
        &self,
        account: &AccountId,
        asks: &[Ask],
        now: Timestamp,
    ) -> Result<Taken, CountersError> {
        match self {
            Self::Redis(redis) => redis.take(account, asks, now).await,
            Self::InProcess(memory) => Ok(memory.take(account, asks)),
        }
    }

    /// Looks at every window and takes nothing.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn look(&self, account: &AccountId, keys: &[WindowKey]) -> Result<Taken, CountersError> {
        match self {
            Self::Redis(redis) => redis.look(account, keys).await,
            Self::InProcess(memory) => Ok(memory.look(account, keys)),
        }
    }

    /// Gives back what [`Counters::take`] took and nobody used.
    ///
    /// # Errors
    /// [`CountersError`]; the units then stay taken.
    pub async fn give_back(&self, account: &AccountId, asks: &[Ask]) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.give_back(account, asks).await,
            Self::InProcess(memory) => {
                memory.give_back(account, asks);
                Ok(())
            }
        }
    }

    /// Tells the counters what the ledger says of windows; one that they know already stays as it is.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn seed(
        &self,
        account: &AccountId,
        levels: &[(WindowKey, Level)],
        now: Timestamp,
    ) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.seed(account, levels, now).await,
            Self::InProcess(memory) => {
                memory.seed(account, levels);
                Ok(())
            }
        }
    }

    /// Tells the counters how much was recorded after the fact in windows, as a total: less than they know
    /// is old news. A cold window stays cold.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn raise_direct(
        &self,
        account: &AccountId,
        totals: &[(WindowKey, Units)],
    ) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.raise_direct(account, totals).await,
            Self::InProcess(memory) => {
                memory.raise_direct(account, totals);
                Ok(())
            }
        }
    }

    /// Remembers the answer to a request for [`ANSWER_TTL_S`].
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
    ) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.remember(account, key, answer).await,
            Self::InProcess(memory) => {
                memory.remember(account, key, answer);
                Ok(())
            }
        }
    }

    /// The answer to a request, where it is remembered.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn recall(
        &self,
        account: &AccountId,
        key: &RequestKey,
    ) -> Result<Option<Vec<u8>>, CountersError> {
        match self {
            Self::Redis(redis) => redis.recall(account, key).await,
            Self::InProcess(memory) => Ok(memory.recall(account, key)),
        }
    }

    /// Whether the counters answer.
    ///
    /// # Errors
    /// [`CountersError`] where they do not.
    pub async fn ping(&self) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.ping().await,
            Self::InProcess(_) => Ok(()),
        }
    }
}
