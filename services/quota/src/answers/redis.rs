//! Answers in Redis, for all replicas.

use std::{sync::Arc, time::Duration};

use fred::{
    clients::Pool,
    prelude::{
        Builder, ClientLike as _, Config, ConnectionConfig, Error, Expiration, KeysInterface as _,
        PerformanceConfig, ReconnectPolicy, TcpConfig,
    },
    types::{SetOptions, Value},
};
use octroi_core::AccountId;

use super::{ANSWER_TTL_S, AnswersError, DENIAL_TTL_S, RequestKey};
use crate::config::AnswersConfig;

/// Answers in Redis. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    namespace: String,
}

impl From<Error> for AnswersError {
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl Redis {
    /// Connects. Every wait is bounded, and no command is sent twice.
    pub(super) async fn connect(config: &AnswersConfig) -> Result<Self, AnswersError> {
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
        })))
    }

    /// All of an account share a hash tag, so that a cluster has them on one node.
    fn key(&self, account: &AccountId, key: &RequestKey) -> String {
        let namespace = &self.0.namespace;
        format!("{namespace}:{{{account}}}:r:{}:{}", key.caller, key.request)
    }

    pub(super) async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
        allowed: bool,
    ) -> Result<(), AnswersError> {
        let (ttl_s, options) = if allowed {
            (ANSWER_TTL_S, None)
        } else {
            (DENIAL_TTL_S, Some(SetOptions::NX))
        };
        let expiration = Some(Expiration::EX(i64::try_from(ttl_s).unwrap_or(i64::MAX)));
        let answer = Value::Bytes(answer.into());
        // What was there before is answered where the option stands in the way; it does not matter.
        let _: Value = (self.0.pool)
            .set(self.key(account, key), answer, expiration, options, false)
            .await?;
        Ok(())
    }

    pub(super) async fn recall(
        &self,
        account: &AccountId,
        key: &RequestKey,
    ) -> Result<Option<Vec<u8>>, AnswersError> {
        let answer: Value = self.0.pool.get(self.key(account, key)).await?;
        Ok(answer.into_bytes().map(|bytes| bytes.to_vec()))
    }
}
