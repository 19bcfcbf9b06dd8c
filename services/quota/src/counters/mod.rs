//! The counters of open windows: what was taken from each, changed in one step for all windows of a check.
//!
//! A port with two variants, chosen once: one lock in this process, or one script in Redis. The counters
//! are a copy of the ledger: a window that they do not know is *cold*, and is seeded from the ledger
//! before anything is taken from it.
//!
//! Taking leaves a *mark* of the request, in the same step: a request that comes again, because its answer
//! was lost or the ledger did not answer, takes nothing a second time.

mod expiring;
mod in_process;
mod redis;

use jiff::Timestamp;
use octroi_core::{AccountId, RequestId, Units};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{in_process::InProcess, redis::Redis};
use crate::{
    config::{Backend, CountersConfig},
    domain::{decision::Level, window::WindowKey},
};

/// What is asked of one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// An earlier attempt of the request took this, and nothing more was taken.
    Before(Receipt),
    /// The request took before, with another content. Nothing was taken.
    Reused,
}

/// Which request, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The calling service.
    pub caller: String,
    /// Its id of the request.
    pub request: RequestId,
}

/// What an attempt took, as its mark keeps it: a repeat may come in another window, or under another plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The instant that decided in which windows it counted.
    pub at: Timestamp,
    /// From which windows, and how much.
    pub asks: Vec<Ask>,
}

/// What a request leaves where it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which request.
    pub key: RequestKey,
    /// What must be the same when it comes again.
    pub content_hash: [u8; 32],
    /// Which of its attempts this is. The last one decides what becomes of the units.
    pub attempt: Uuid,
}

/// The counters cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the counters cannot be reached")]
pub struct CountersError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// How long a mark is remembered, and the answer to what was allowed, in seconds.
pub const ANSWER_TTL_S: u64 = 600;
/// How long a denial is remembered, in seconds: long enough for whoever lost the answer. It took nothing, so a
/// later repeat may be decided anew; and who is denied comes often.
pub const DENIAL_TTL_S: u64 = 30;

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
    /// [`CountersError`] where the address is none, or Redis cannot be reached.
    pub async fn connect(config: &CountersConfig) -> Result<Self, CountersError> {
        Ok(match config.backend {
            Backend::InProcess => Self::InProcess(InProcess::default()),
            Backend::Redis => Self::Redis(Redis::connect(config).await?),
        })
    }

    /// Takes from every window or from none, and leaves `mark`, with `at` in its receipt. An attempt that finds
    /// the mark of an earlier one takes nothing and answers for the units from now on.
    ///
    /// # Errors
    /// [`CountersError`]; whether anything was taken is then unknown.
    pub async fn take(
        &self,
        account: &AccountId,
        mark: &Mark,
        receipt: &Receipt,
        now: Timestamp,
    ) -> Result<Taken, CountersError> {
        if receipt.asks.is_empty() {
            return Ok(Taken::Yes(Vec::new()));
        }
        match self {
            Self::Redis(redis) => redis.take(account, mark, receipt, now).await,
            Self::InProcess(memory) => Ok(memory.take(account, mark, receipt)),
        }
    }

    /// Charges windows for what was allowed without the counters and recorded at `recorded_at`, once for the
    /// request. A window that is cold, or was seeded since, has it from the ledger.
    ///
    /// # Errors
    /// [`CountersError`]; trying again charges nothing twice.
    pub async fn charge(
        &self,
        account: &AccountId,
        mark: &Mark,
        receipt: &Receipt,
        recorded_at: Timestamp,
    ) -> Result<(), CountersError> {
        match self {
            _ if receipt.asks.is_empty() => Ok(()),
            Self::Redis(redis) => redis.charge(account, mark, receipt, recorded_at).await,
            // Never away, so nothing is ever allowed without it.
            Self::InProcess(_) => Ok(()),
        }
    }

    /// The levels of every window, or the indices of those that must be seeded first.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn look(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
    ) -> Result<Result<Vec<Level>, Vec<usize>>, CountersError> {
        match self {
            _ if keys.is_empty() => Ok(Ok(Vec::new())),
            Self::Redis(redis) => redis.look(account, keys).await,
            Self::InProcess(memory) => Ok(memory.look(account, keys)),
        }
    }

    /// Gives back what the attempt took and nobody used, and forgets its mark. Where a later attempt of the
    /// same request came in between, the units are that one's, nothing happens, and the answer is no.
    ///
    /// # Errors
    /// [`CountersError`]; whether anything was given back is then unknown.
    pub async fn give_back(
        &self,
        account: &AccountId,
        mark: &Mark,
        asks: &[Ask],
    ) -> Result<bool, CountersError> {
        match self {
            _ if asks.is_empty() => Ok(true),
            Self::Redis(redis) => redis.give_back(account, mark, asks).await,
            Self::InProcess(memory) => Ok(memory.give_back(account, mark, asks)),
        }
    }

    /// Tells the counters what the ledger, read at `now` or later, says of windows; one that they know already
    /// stays as it is.
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
            _ if levels.is_empty() => Ok(()),
            Self::Redis(redis) => redis.seed(account, levels, now).await,
            Self::InProcess(memory) => {
                memory.seed(account, levels, now);
                Ok(())
            }
        }
    }

    /// Tells the counters how much was recorded after the fact in windows, as a total: less than they know
    /// is old news. A cold window stays cold, and its seed counts at least this much.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn raise_direct(
        &self,
        account: &AccountId,
        totals: &[(WindowKey, Units)],
        now: Timestamp,
    ) -> Result<(), CountersError> {
        match self {
            _ if totals.is_empty() => Ok(()),
            Self::Redis(redis) => redis.raise_direct(account, totals, now).await,
            Self::InProcess(memory) => {
                memory.raise_direct(account, totals, now);
                Ok(())
            }
        }
    }

    /// Remembers the answer to a request: what was allowed for [`ANSWER_TTL_S`], over whatever is remembered;
    /// a denial for [`DENIAL_TTL_S`] or longer, where nothing is.
    ///
    /// # Errors
    /// [`CountersError`].
    pub async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
        allowed: bool,
    ) -> Result<(), CountersError> {
        match self {
            Self::Redis(redis) => redis.remember(account, key, answer, allowed).await,
            Self::InProcess(memory) => {
                memory.remember(account, key, answer, allowed);
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
