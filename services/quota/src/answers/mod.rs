//! Answers to requests that may come again, remembered for a while.
//!
//! A port with two variants, chosen once: in this process, or in Redis for all replicas. They may be lost at any
//! time: what was allowed is in the ledger, which knows a repeat by its event's id. In this process answers are
//! remembered in any case, and attempts of one request that come together wait for each other.

mod behind;
mod expiring;
mod in_process;
mod redis;
pub mod seen;

use octroi_core::{AccountId, RequestId};

pub use self::{behind::Behind, in_process::InProcess};
use crate::{
    config::{AnswersConfig, Backend},
    redis::{Redis, RedisError},
};

/// Which request, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The calling service.
    pub caller: String,
    /// Its id of the request.
    pub request: RequestId,
}

/// How long the answer to what was allowed is remembered, in seconds.
pub const ANSWER_TTL_S: u64 = 600;
/// How long a denial is remembered, in seconds: long enough for whoever lost the answer. It took nothing, so a
/// later repeat may be decided anew; and who is denied comes often.
pub const DENIAL_TTL_S: u64 = 30;

/// The port: what is remembered beyond this process.
#[derive(Clone, Debug)]
pub enum Answers {
    /// In Redis.
    Redis(Redis),
    /// In this process.
    InProcess(InProcess),
}

impl Answers {
    /// The variant that the configuration names, over `redis` where that is Redis.
    #[must_use]
    pub fn new(config: AnswersConfig, redis: Option<&Redis>) -> Self {
        match (config.backend, redis) {
            (Backend::Redis, Some(redis)) => Self::Redis(redis.clone()),
            _ => Self::InProcess(InProcess::default()),
        }
    }

    /// Remembers the answer to a request: what was allowed for [`ANSWER_TTL_S`], over whatever is remembered;
    /// a denial for [`DENIAL_TTL_S`] or longer, where nothing is.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
        allowed: bool,
    ) -> Result<(), RedisError> {
        match self {
            Self::Redis(connection) => redis::remember(connection, account, key, answer, allowed).await,
            Self::InProcess(memory) => {
                memory.remember(account, key, answer, allowed);
                Ok(())
            }
        }
    }

    /// The answer to a request, where it is remembered.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn recall(&self, account: &AccountId, key: &RequestKey) -> Result<Option<Vec<u8>>, RedisError> {
        match self {
            Self::Redis(connection) => redis::recall(connection, account, key).await,
            Self::InProcess(memory) => Ok(memory.recall(account, key)),
        }
    }
}
