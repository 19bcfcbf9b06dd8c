//! Copies of what the database says about accounts, kept until it changes.
//!
//! Who misses a copy loads it and keeps it, one at a time: in this process by waiting for each other, between replicas
//! by a lease. What changes an account forgets its copies and their leases, so that nobody keeps what was read before
//! the change (Nishtala et al., *Scaling Memcache at Facebook*, NSDI 2013, §3.2.1). A copy is a hint: whatever is
//! carved is checked against the database, and every copy ends after a while.

mod redis;

use std::time::Duration;

use octroi_core::AccountId;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{CacheBackend, CacheConfig},
    redis::{Redis, RedisError},
    turns::Turns,
};

/// What there are copies of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What holds for an account.
    Limits,
    /// What its windows have granted.
    Usage,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 2] = [Self::Limits, Self::Usage];

    /// The number is the form of the copy: programs that write another one do not read it.
    fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits1",
            Self::Usage => "usage1",
        }
    }
}

/// How often it is looked whether who has the lease is done.
const LOOKS: u32 = 10;
/// How long between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Copies of what the database says. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Cache {
    redis: Option<Redis>,
    config: CacheConfig,
    turns: Turns<(AccountId, Part)>,
}

/// What became of looking for a copy.
#[derive(Debug)]
enum Found {
    /// The copy.
    Copy(Vec<u8>),
    /// There is none, and whoever looked is to make it.
    Lease,
    /// There is none, and somebody else makes it.
    Busy,
}

impl Cache {
    /// Copies in `redis`, where the configuration says so.
    #[must_use]
    pub fn new(config: CacheConfig, redis: Option<&Redis>) -> Self {
        let redis = redis.filter(|_| config.backend == CacheBackend::Redis);
        Self {
            redis: redis.cloned(),
            config,
            turns: Turns::default(),
        }
    }

    /// The copy of a part of an account, or what `load` answers, which is kept. A copy that `is_good` denies is made
    /// anew. Where Redis cannot be reached, it is loaded.
    ///
    /// # Errors
    /// What `load` fails with.
    pub async fn get<T, E>(
        &self,
        account: &AccountId,
        part: Part,
        is_good: impl Fn(&T) -> bool,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let Some(redis) = &self.redis else {
            return load.await;
        };
        let read = |bytes: &[u8]| serde_json::from_slice::<T>(bytes).ok().filter(&is_good);
        // Limits are looked for by a replica that does not know the account, and seldom there.
        if part == Part::Usage
            && let Ok(Some(bytes)) = redis::find(redis, account, part).await
            && let Some(copy) = read(&bytes)
        {
            count(part, "hit");
            return Ok(copy);
        }
        let turn = (account.clone(), part);
        (self.turns)
            .one_at_a_time(turn, self.load_once(redis, account, part, read, load))
            .await
    }

    async fn load_once<T: Serialize, E>(
        &self,
        redis: &Redis,
        account: &AccountId,
        part: Part,
        read: impl Fn(&[u8]) -> Option<T>,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        for _ in 0..LOOKS {
            match redis::find_or_lease(redis, account, part, &token).await {
                Ok(Found::Copy(bytes)) => {
                    if let Some(copy) = read(&bytes) {
                        count(part, "hit");
                        return Ok(copy);
                    }
                    // It is of no use, and nobody else should find it.
                    self.forget(std::slice::from_ref(account), &[part]).await;
                }
                Ok(Found::Lease) => {
                    count(part, "miss");
                    let loaded = load.await?;
                    self.keep(redis, account, part, &token, &loaded).await;
                    return Ok(loaded);
                }
                Ok(Found::Busy) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    tracing::debug!(error = %error, "a copy cannot be looked for");
                    break;
                }
            }
        }
        count(part, "uncached");
        load.await
    }

    async fn keep<T: Serialize>(
        &self,
        redis: &Redis,
        account: &AccountId,
        part: Part,
        token: &str,
        loaded: &T,
    ) {
        let Ok(bytes) = serde_json::to_vec(loaded) else {
            return;
        };
        let ttl_ms = match part {
            Part::Limits => self.config.limits_ttl_ms,
            Part::Usage => self.config.usage_ttl_ms,
        };
        if let Err(error) = redis::fill(redis, account, part, token, bytes, ttl_ms).await {
            tracing::debug!(error = %error, "a copy is not kept");
        }
    }

    /// Forgets parts of accounts, because the database says something else from now on.
    pub async fn forget(&self, accounts: &[AccountId], parts: &[Part]) {
        let Some(redis) = &self.redis else { return };
        let forgotten: Result<(), RedisError> = redis::forget(redis, accounts, parts).await;
        if let Err(error) = forgotten {
            // They end by themselves.
            tracing::debug!(error = %error, "copies are not forgotten");
        }
    }
}

fn count(part: Part, outcome: &'static str) {
    metrics::counter!("octroi_quota_cache_total", "part" => part.name(), "outcome" => outcome).increment(1);
}
