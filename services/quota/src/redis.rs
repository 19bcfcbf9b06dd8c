//! The connection to Redis. What is kept there is answers and copies: all of it may be lost at any time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::{
    clients::Pool,
    prelude::{
        Builder, ClientLike as _, Config, ConnectionConfig, Error, PerformanceConfig, ReconnectPolicy,
        TcpConfig,
    },
};
use octroi_core::AccountId;

use crate::config::RedisConfig;

/// How long nobody is made to wait for a Redis that did not answer.
const LEFT_ALONE: Duration = Duration::from_millis(500);

/// Redis cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It did not answer as it should.
    #[error("Redis cannot be reached")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer a moment ago.
    #[error("Redis could not be reached a moment ago")]
    LeftAlone,
}

impl From<Error> for RedisError {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Connections to Redis. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    namespace: String,
    started_at: Instant,
    /// Until when it is left alone, in milliseconds since the start.
    left_alone_until_ms: AtomicU64,
}

impl Redis {
    /// Connects. Every wait is bounded, and no command is sent twice.
    ///
    /// # Errors
    /// [`RedisError`] where the address is none, or nobody answers there.
    pub async fn connect(config: &RedisConfig) -> Result<Self, RedisError> {
        let timeout = Duration::from_millis(config.command_timeout_ms);
        let mut builder = Builder::from_config(Config::from_url(config.url.expose())?);
        builder
            .with_performance_config(|performance: &mut PerformanceConfig| {
                performance.default_command_timeout = timeout;
            })
            .with_connection_config(|connection: &mut ConnectionConfig| {
                connection.connection_timeout = Duration::from_secs(2);
                connection.internal_command_timeout = Duration::from_secs(2);
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = 10_000;
                connection.unresponsive.max_timeout = Some(Duration::from_secs(1));
                connection.unresponsive.interval = Duration::from_millis(500);
                connection.tcp = TcpConfig {
                    nodelay: Some(true),
                    ..TcpConfig::default()
                };
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2));
        let pool = builder.build_pool(config.connections)?;
        pool.init().await?;
        Ok(Self(Arc::new(Inner {
            pool,
            namespace: config.namespace.clone(),
            started_at: Instant::now(),
            left_alone_until_ms: AtomicU64::new(0),
        })))
    }

    /// Does `call`, unless one failed a moment ago: what is in Redis is not worth the wait of every request.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(crate) async fn reach<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RedisError> {
        let now_ms = || u64::try_from(self.0.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now_ms() < self.0.left_alone_until_ms.load(Ordering::Relaxed) {
            return Err(RedisError::LeftAlone);
        }
        let answer = call.await;
        if answer.is_err() {
            let left_alone_ms = u64::try_from(LEFT_ALONE.as_millis()).unwrap_or(0);
            self.0
                .left_alone_until_ms
                .store(now_ms().saturating_add(left_alone_ms), Ordering::Relaxed);
        }
        Ok(answer?)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The key of something of an account. All of an account share a hash tag, so that a cluster has them on one node.
    pub(crate) fn key(&self, account: &AccountId, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}:{{{account}}}:{rest}", self.0.namespace)
    }

    /// The key of something that is not of one account.
    pub(crate) fn key_of_all(&self, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}:{rest}", self.0.namespace)
    }
}
