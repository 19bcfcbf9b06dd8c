//! Answers to requests that may come again, remembered for a while.
//!
//! A port with two variants, chosen once: in this process, or in Redis for all replicas. They may be lost at any
//! time: what was allowed is in the ledger, which knows a repeat by its event's id. In this process answers are
//! remembered in any case, and attempts of one request that come together wait for each other.

mod expiring;
mod in_process;
mod redis;
pub mod seen;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use octroi_core::{AccountId, RequestId};

pub use self::{in_process::InProcess, redis::Redis};
use crate::config::{AnswersConfig, Backend};

/// Which request, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The calling service.
    pub caller: String,
    /// Its id of the request.
    pub request: RequestId,
}

/// Redis cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the memory of answers cannot be reached")]
pub struct AnswersError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

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
    /// The variant that the configuration names.
    ///
    /// # Errors
    /// [`AnswersError`] where the address is none, or Redis cannot be reached.
    pub async fn connect(config: &AnswersConfig) -> Result<Self, AnswersError> {
        Ok(match config.backend {
            Backend::InProcess => Self::InProcess(InProcess::default()),
            Backend::Redis => Self::Redis(Redis::connect(config).await?),
        })
    }

    /// Remembers the answer to a request: what was allowed for [`ANSWER_TTL_S`], over whatever is remembered;
    /// a denial for [`DENIAL_TTL_S`] or longer, where nothing is.
    ///
    /// # Errors
    /// [`AnswersError`].
    pub async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
        allowed: bool,
    ) -> Result<(), AnswersError> {
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
    /// [`AnswersError`].
    pub async fn recall(
        &self,
        account: &AccountId,
        key: &RequestKey,
    ) -> Result<Option<Vec<u8>>, AnswersError> {
        match self {
            Self::Redis(redis) => redis.recall(account, key).await,
            Self::InProcess(memory) => Ok(memory.recall(account, key)),
        }
    }
}

type Waiting = HashMap<(AccountId, RequestKey), Arc<tokio::sync::Mutex<()>>>;

/// Lets one attempt of a request at a time go on in this process.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<Waiting>>);

impl Turns {
    /// Does `work` when no other attempt of the request goes on.
    pub async fn one_at_a_time<T>(
        &self,
        account: &AccountId,
        key: &RequestKey,
        work: impl Future<Output = T>,
    ) -> T {
        let entry = (account.clone(), key.clone());
        let turn = self.lock().entry(entry.clone()).or_default().clone();
        let _last = Last {
            turns: self,
            entry,
            turn: turn.clone(),
        };
        let _turn = turn.lock().await;
        work.await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the entry away when nobody waits for it any more, whatever ended the wait.
struct Last<'t> {
    turns: &'t Turns,
    entry: (AccountId, RequestKey),
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.lock();
        // The map's, this one's, and the one whose lock was taken.
        if Arc::strong_count(&self.turn) <= 3 {
            waiting.remove(&self.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn attempts_of_one_request_go_one_after_the_other_and_leave_nothing() {
        let (turns, busy) = (Turns::default(), AtomicUsize::new(0));
        let account = AccountId::parse("acme").expect("an id");
        let key = RequestKey {
            caller: "app".into(),
            request: RequestId::parse("r-1").expect("an id"),
        };
        let attempt = async || {
            turns
                .one_at_a_time(&account, &key, async {
                    assert_eq!(busy.fetch_add(1, Ordering::Relaxed), 0, "nobody else is at it");
                    tokio::task::yield_now().await;
                    busy.fetch_sub(1, Ordering::Relaxed);
                })
                .await;
        };
        futures::future::join_all((0..20).map(|_| attempt())).await;
        assert!(turns.lock().is_empty());
    }
}
