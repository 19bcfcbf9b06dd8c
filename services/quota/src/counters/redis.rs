//! Counters in Redis, one script a step.
//!
//! A window is a hash of its own, and so is a request's mark; all of an account share a hash tag, so that a
//! script finds them on one node.
//!
//! A window is forgotten a day after its end, or two days after its last use where it has none; it is
//! seeded from the ledger when it is needed again.

use std::{sync::Arc, time::Duration};

use fred::{
    clients::Pool,
    prelude::{
        Builder, ClientLike as _, Config, ConnectionConfig, Error, Expiration, KeysInterface as _,
        PerformanceConfig, ReconnectPolicy, TcpConfig,
    },
    types::{SetOptions, Value, scripts::Script},
};
use jiff::Timestamp;
use octroi_core::{AccountId, Units};

use super::{ANSWER_TTL_S, Ask, CountersError, DENIAL_TTL_S, Mark, Receipt, RequestKey, Taken};
use crate::{
    config::CountersConfig,
    domain::{decision::Level, window::WindowKey},
};

const DAY_MS: i64 = 86_400_000;

/// Counters in Redis. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    namespace: String,
    take: Script,
    look: Script,
    charge: Script,
    seed: Script,
    give_back: Script,
    raise_direct: Script,
}

impl From<Error> for CountersError {
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

fn unreadable() -> CountersError {
    CountersError("a script answered what cannot be read".into())
}

impl Redis {
    /// Connects. Every wait is bounded, and no command is sent twice: a command whose reply was lost has an
    /// unknown outcome, and the caller decides.
    pub(super) async fn connect(config: &CountersConfig) -> Result<Self, CountersError> {
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
            take: Script::from_lua(include_str!("take.lua")),
            look: Script::from_lua(include_str!("look.lua")),
            charge: Script::from_lua(include_str!("charge.lua")),
            seed: Script::from_lua(include_str!("seed.lua")),
            give_back: Script::from_lua(include_str!("give_back.lua")),
            raise_direct: Script::from_lua(include_str!("raise_direct.lua")),
        })))
    }

    fn key(&self, account: &AccountId, window: &WindowKey) -> String {
        let start = window.start.as_second();
        format!(
            "{}:{{{account}}}:w:{}:{}:{start}",
            self.0.namespace,
            window.metric,
            window.period.as_str()
        )
    }

    async fn run(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Result<Vec<Value>, CountersError> {
        let answer: Value = script
            .evalsha_with_reload(self.0.pool.next(), keys, arguments)
            .await?;
        Ok(answer.into_array())
    }

    /// The request's mark, then its windows.
    fn keys(&self, account: &AccountId, mark: &Mark, asks: &[Ask]) -> Vec<String> {
        let mark = self.request_key("m", account, &mark.key);
        let windows = asks.iter().map(|ask| self.key(account, &ask.key));
        std::iter::once(mark).chain(windows).collect()
    }

    pub(super) async fn take(
        &self,
        account: &AccountId,
        mark: &Mark,
        receipt: &Receipt,
        now: Timestamp,
    ) -> Result<Taken, CountersError> {
        let asks = &receipt.asks;
        let mut arguments = mark_arguments(mark, receipt)?;
        for ask in asks {
            arguments.push(ask.amount.to_string());
            arguments.push(ask.max.map_or_else(|| "-1".to_owned(), |max| max.to_string()));
            arguments.push(forget_after_ms(&ask.key, now).to_string());
        }
        let answer = self
            .run(&self.0.take, self.keys(account, mark, asks), arguments)
            .await?;
        if let [verdict, receipt] = answer.as_slice()
            && verdict.as_str().as_deref() == Some("before")
        {
            let receipt = receipt.as_bytes().ok_or_else(unreadable)?;
            let receipt = serde_json::from_slice(receipt).map_err(|_| unreadable())?;
            return Ok(Taken::Before(receipt));
        }
        let (verdict, numbers) = read_answer(&answer)?;
        match verdict.as_str() {
            "cold" => Ok(Taken::Cold(indices(&numbers))),
            "yes" => Ok(Taken::Yes(levels(&numbers)?)),
            "no" => Ok(Taken::No(levels(&numbers)?)),
            "reused" => Ok(Taken::Reused),
            _ => Err(unreadable()),
        }
    }

    pub(super) async fn charge(
        &self,
        account: &AccountId,
        mark: &Mark,
        receipt: &Receipt,
        recorded_at: Timestamp,
    ) -> Result<(), CountersError> {
        let mut arguments = mark_arguments(mark, receipt)?;
        arguments.push(recorded_at.as_microsecond().to_string());
        arguments.extend(receipt.asks.iter().map(|ask| ask.amount.to_string()));
        let keys = self.keys(account, mark, &receipt.asks);
        self.run(&self.0.charge, keys, arguments).await.map(drop)
    }

    pub(super) async fn look(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
    ) -> Result<Result<Vec<Level>, Vec<usize>>, CountersError> {
        let names = keys.iter().map(|key| self.key(account, key)).collect();
        let answer = self.run(&self.0.look, names, Vec::new()).await?;
        let (verdict, numbers) = read_answer(&answer)?;
        match verdict.as_str() {
            "cold" => Ok(Err(indices(&numbers))),
            "levels" => levels(&numbers).map(Ok),
            _ => Err(unreadable()),
        }
    }

    pub(super) async fn give_back(
        &self,
        account: &AccountId,
        mark: &Mark,
        asks: &[Ask],
    ) -> Result<bool, CountersError> {
        let amounts = asks.iter().map(|ask| ask.amount.to_string());
        let arguments = std::iter::once(mark.attempt.to_string()).chain(amounts).collect();
        let answer = self
            .run(&self.0.give_back, self.keys(account, mark, asks), arguments)
            .await?;
        let (verdict, _) = read_answer(&answer)?;
        Ok(verdict == "given back")
    }

    pub(super) async fn seed(
        &self,
        account: &AccountId,
        levels: &[(WindowKey, Level)],
        now: Timestamp,
    ) -> Result<(), CountersError> {
        let keys = levels.iter().map(|(key, _)| self.key(account, key)).collect();
        let mut arguments = vec![now.as_microsecond().to_string()];
        for (key, level) in levels {
            arguments.push(level.decided.to_string());
            arguments.push(level.direct.to_string());
            arguments.push(forget_after_ms(key, now).to_string());
        }
        self.run(&self.0.seed, keys, arguments).await.map(drop)
    }

    pub(super) async fn raise_direct(
        &self,
        account: &AccountId,
        totals: &[(WindowKey, Units)],
        now: Timestamp,
    ) -> Result<(), CountersError> {
        let keys = totals.iter().map(|(key, _)| self.key(account, key)).collect();
        let mut arguments = Vec::with_capacity(totals.len() * 2);
        for (key, total) in totals {
            arguments.push(total.to_string());
            arguments.push(forget_after_ms(key, now).to_string());
        }
        self.run(&self.0.raise_direct, keys, arguments).await.map(drop)
    }

    /// `kind` is `m` for a mark and `r` for an answer.
    fn request_key(&self, kind: &str, account: &AccountId, key: &RequestKey) -> String {
        format!(
            "{}:{{{account}}}:{kind}:{}:{}",
            self.0.namespace, key.caller, key.request
        )
    }

    pub(super) async fn remember(
        &self,
        account: &AccountId,
        key: &RequestKey,
        answer: Vec<u8>,
        allowed: bool,
    ) -> Result<(), CountersError> {
        let (ttl_s, options) = if allowed {
            (ANSWER_TTL_S, None)
        } else {
            (DENIAL_TTL_S, Some(SetOptions::NX))
        };
        let expiration = Some(Expiration::EX(i64::try_from(ttl_s).unwrap_or(i64::MAX)));
        let key = self.request_key("r", account, key);
        let answer = Value::Bytes(answer.into());
        // What was there before is answered where the option stands in the way; it does not matter.
        let _: Value = (self.0.pool).set(key, answer, expiration, options, false).await?;
        Ok(())
    }

    pub(super) async fn recall(
        &self,
        account: &AccountId,
        key: &RequestKey,
    ) -> Result<Option<Vec<u8>>, CountersError> {
        let answer: Value = self.0.pool.get(self.request_key("r", account, key)).await?;
        Ok(answer.into_bytes().map(|bytes| bytes.to_vec()))
    }

    pub(super) async fn ping(&self) -> Result<(), CountersError> {
        self.0.pool.next().ping::<Value>(None).await?;
        Ok(())
    }
}

/// A day after the window's end, and at least a day from now; two days from now where it has no end. A
/// duration and no instant, because the clock of Redis need not be ours.
fn forget_after_ms(key: &WindowKey, now: Timestamp) -> i64 {
    if key.end == Timestamp::MAX {
        return 2 * DAY_MS;
    }
    (key.end.as_millisecond() - now.as_millisecond()).max(0) + DAY_MS
}

/// The content's hash, the attempt, the receipt, and after how long the mark may be forgotten.
fn mark_arguments(mark: &Mark, receipt: &Receipt) -> Result<Vec<String>, CountersError> {
    let receipt = serde_json::to_string(receipt).map_err(|error| CountersError(Box::new(error)))?;
    Ok(vec![
        hex::encode(mark.content_hash),
        mark.attempt.to_string(),
        receipt,
        (ANSWER_TTL_S * 1_000).to_string(),
    ])
}

/// What a script says: a word, and numbers.
fn read_answer(answer: &[Value]) -> Result<(String, Vec<u64>), CountersError> {
    let (verdict, rest) = answer.split_first().ok_or_else(unreadable)?;
    let verdict = verdict.as_string().ok_or_else(unreadable)?;
    let numbers: Option<Vec<u64>> = rest.iter().map(Value::as_u64).collect();
    Ok((verdict, numbers.ok_or_else(unreadable)?))
}

fn indices(numbers: &[u64]) -> Vec<usize> {
    numbers
        .iter()
        .filter_map(|index| usize::try_from(*index).ok())
        .collect()
}

fn levels(numbers: &[u64]) -> Result<Vec<Level>, CountersError> {
    numbers
        .chunks_exact(2)
        .map(|pair| match pair {
            [decided, direct] => Ok(Level {
                decided: units(*decided)?,
                direct: units(*direct)?,
            }),
            _ => Err(unreadable()),
        })
        .collect()
}

fn units(number: u64) -> Result<Units, CountersError> {
    Units::new(number).map_err(|_| unreadable())
}
