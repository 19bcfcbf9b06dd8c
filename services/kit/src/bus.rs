//! The bus: events from the outbox of one service to the queues of others, at least once.
//!
//! [`Bus`] is a port with two variants, chosen once in [`Bus::new`]: RabbitMQ for a fleet, in process for
//! one process. Both keep the same promises:
//!
//! * [`Bus::publish`] answers `Ok` for a message only once every queue that listens to its routing key
//!   has it safely. Whatever else happens, the caller keeps the message (in its outbox) and comes again.
//! * A handler sees each message at least once, and its inbox makes that exactly once.
//! * A message that cannot be handled ends among the dead letters and holds up nobody on its way there.
//! * A message whose handler needs something that is away is tried until it is back.
//!
//! Who listens to what is a contract of the whole fleet, the [`Topology`]. Without it a publisher could not
//! tell a consumer that has never run, whose events must wait for it, from one that does not exist.

mod handling;
pub mod in_process;
pub mod rabbitmq;
mod topology;

pub use self::handling::{DeadLetter, DeadLetters, DeadReason, HandleError, Handler};
pub use self::in_process::InProcess;
pub use self::rabbitmq::RabbitMq;
pub use self::topology::{Route, Topology, TopologyError};

use crate::config::{ConfigError, Secret, Section};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Whatever went wrong further down.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One event on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Given by the publisher, kept over every retry; the consumer's inbox knows the message by it.
    pub id: Uuid,
    /// Owner and past tense, such as `usage.recorded`; at most 255 bytes.
    pub routing_key: String,
    /// The event, encoded as protobuf.
    pub payload: Bytes,
    /// The W3C `traceparent` of what caused the event.
    pub traceparent: Option<String>,
    /// When the event happened.
    pub occurred_at: jiff::Timestamp,
}

impl fmt::Debug for Message {
    /// Everything but the payload, which may hold what belongs to an account and must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("routing_key", &self.routing_key)
            .field("payload_bytes", &self.payload.len())
            .field("traceparent", &self.traceparent)
            .field("occurred_at", &self.occurred_at)
            .finish()
    }
}

/// One consumer: a queue of its own and how it is worked off.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// The owner and what it does with the messages, such as `quota.usage`; also the consumer's name in
    /// its inbox.
    pub name: &'static str,
    /// What it listens to, exactly as in the [`Topology`].
    pub routing_keys: &'static [&'static str],
    /// How many messages are handled at the same time in this process, 1 to 32.
    pub concurrency: u16,
    /// How many tries may fail before the message is a dead letter, 1 to 100. A try that found something away
    /// does not count: such a message is tried until what it needs is back.
    pub delivery_limit: u32,
    /// A handler that takes longer is stopped, and its try has failed; 1 s to 10 min.
    pub handling_max: Duration,
}

impl Queue {
    /// Most messages of one queue in one process at the same time.
    pub const CONCURRENCY_MAX: u16 = 32;

    /// A queue with the defaults: 8 at the same time, 5 failures, at most 30 s a try.
    #[must_use]
    pub const fn new(name: &'static str, routing_keys: &'static [&'static str]) -> Self {
        Self {
            name,
            routing_keys,
            concurrency: 8,
            delivery_limit: 5,
            handling_max: Duration::from_secs(30),
        }
    }
}

/// Why a message is not where it should be. Its publisher keeps it and publishes it again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A queue that must have the message does not exist.
    #[error("there is no queue {queue}")]
    Unroutable {
        /// The queue, as the variant of the bus calls it.
        queue: String,
    },
    /// The broker cannot be reached, or the bus does not run (yet, or any more).
    #[error("the bus is not connected")]
    Unavailable,
    /// The broker did not confirm in time; it may have the message all the same.
    #[error("no confirmation in time")]
    Timeout,
    /// The broker refused the message: a queue is full.
    #[error("a queue is full")]
    Full,
    /// The broker takes nothing for the moment: it is short of memory or disk.
    #[error("the broker takes no messages for the moment: it is short of memory or disk")]
    Blocked,
    /// In process only: still being handled. Publishing it again asks how it went.
    #[error("still being handled")]
    Pending,
    /// It can never be published as it is.
    #[error("cannot be published: {0}")]
    Invalid(String),
}

impl PublishError {
    /// The outcome's name as a metric's label.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => "unroutable",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Why a queue cannot be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The fleet's topology does not have this queue, so publishers would not wait for it.
    #[error("the topology has no queue {0}")]
    UnknownQueue(&'static str),
    /// The fleet's topology and the queue differ in what it listens to.
    #[error("the topology says that {queue} listens to {expected:?}, not to {actual:?}")]
    OtherKeys {
        /// The queue.
        queue: &'static str,
        /// What the topology says.
        expected: &'static [&'static str],
        /// What the queue says.
        actual: &'static [&'static str],
    },
    /// A number of the queue is out of its range.
    #[error("{queue}: {field} is out of range")]
    OutOfRange {
        /// The queue.
        queue: &'static str,
        /// The field of [`Queue`].
        field: &'static str,
    },
    /// One queue has one handler.
    #[error("{0} is subscribed to already")]
    Twice(&'static str),
    /// Queues are subscribed to before [`Bus::run`].
    #[error("the bus runs already")]
    Running,
}

/// Which variant of the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Within this process. The outbox makes it safe: a row is sent once all its handlers are through.
    #[default]
    InProcess,
    /// A RabbitMQ of at least 3.10.
    #[serde(rename = "rabbitmq")]
    RabbitMq,
}

/// The section `bus` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which variant.
    pub backend: Backend,
    /// RabbitMQ only: `amqp://user:password@host:5672/vhost`.
    pub url: Secret,
    /// First part of every exchange's and queue's name, so that fleets can share a broker: 1 to 64 of
    /// `[a-z0-9_-]`.
    pub namespace: String,
    /// What a message waits before its second, third, … try, in ms; the last one repeats. Where something is away the
    /// last but one repeats, without end. 1 to 8 steps of 10 ms to 1 h.
    pub retry_delays_ms: Vec<u64>,
    /// RabbitMQ only: longest wait for a connection, and for the confirmation of one message, in ms;
    /// 100 ms to 1 min.
    pub publish_timeout_ms: u64,
    /// Longest wait for the handlers in flight when the bus stops, in ms; up to 10 min.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            url: Secret::default(),
            namespace: "octroi".into(),
            retry_delays_ms: vec![1_000, 5_000, 30_000],
            publish_timeout_ms: 5_000,
            drain_ms: 10_000,
        }
    }
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        let namespace_ok = (1..=64).contains(&self.namespace.len())
            && self
                .namespace
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let delays_ok = (1..=8).contains(&self.retry_delays_ms.len())
            && self
                .retry_delays_ms
                .iter()
                .all(|ms| (10..=3_600_000).contains(ms));
        let timeout_ok = (100..=60_000).contains(&self.publish_timeout_ms);
        let checks = [
            (namespace_ok, "bus.namespace", "must be 1 to 64 of [a-z0-9_-]"),
            (
                delays_ok,
                "bus.retry_delays_ms",
                "must be 1 to 8 steps of 10 to 3600000",
            ),
            (timeout_ok, "bus.publish_timeout_ms", "must be 100 to 60000"),
            (self.drain_ms <= 600_000, "bus.drain_ms", "must be at most 600000"),
        ];
        for (ok, key, problem) in checks {
            if !ok {
                return Err(ConfigError::new(key, problem));
            }
        }
        match self.backend {
            Backend::InProcess => Ok(()),
            Backend::RabbitMq => rabbitmq::parse_url(&self.url).map(drop),
        }
    }
}

impl Config {
    fn retry_delays(&self) -> Arc<[Duration]> {
        self.retry_delays_ms
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect()
    }
}

/// The bus. Clones share one bus.
#[derive(Clone)]
pub enum Bus {
    /// Over a broker, between processes.
    RabbitMq(RabbitMq),
    /// Within this process.
    InProcess(InProcess),
}

impl Bus {
    /// Builds the variant that the configuration names. Opens no socket: [`Bus::run`] does.
    ///
    /// `dead_letters` is used by the variant in process; RabbitMQ keeps dead letters in a queue
    /// `<namespace>.<queue>.dead` beside each queue.
    ///
    /// # Errors
    /// The value of the configuration that is out of range or cannot be read.
    pub fn new(
        config: &Config,
        topology: Topology,
        dead_letters: Arc<dyn DeadLetters>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(match config.backend {
            Backend::InProcess => Self::InProcess(InProcess::new(config, topology, dead_letters)),
            Backend::RabbitMq => Self::RabbitMq(RabbitMq::new(config, topology)?),
        })
    }

    /// Says how the messages of a queue are handled. Before [`Bus::run`].
    ///
    /// # Errors
    /// If the queue does not agree with the topology, is out of its ranges or has a handler already, or if
    /// the bus runs.
    pub fn subscribe(&self, queue: Queue, handler: Handler) -> Result<(), SubscribeError> {
        match self {
            Self::RabbitMq(bus) => bus.subscribe(queue, handler),
            Self::InProcess(bus) => bus.subscribe(queue, handler),
        }
    }

    /// Publishes messages and answers one result a message, in their order. `Ok` means that every queue of
    /// the topology that listens to the routing key has the message safely; in process, that each has
    /// handled it or made it a dead letter. No order is kept between messages.
    ///
    /// Dropping the future does not take back what is under way.
    pub async fn publish(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let keys: Vec<String> = messages
            .iter()
            .map(|message| message.routing_key.clone())
            .collect();
        let results = match self {
            Self::RabbitMq(bus) => bus.publish(messages).await,
            Self::InProcess(bus) => bus.publish(messages).await,
        };
        for (routing_key, result) in keys.into_iter().zip(&results) {
            let outcome = result.as_ref().map_or_else(PublishError::outcome, |()| "ok");
            metrics::counter!("octroi_bus_published_total", "routing_key" => routing_key, "outcome" => outcome)
                .increment(1);
        }
        results
    }

    /// Brings a message to one queue alone, whoever else listens to its routing key: what a dead letter needs,
    /// which all others have handled. `Ok` and errors as with [`Bus::publish`]; a queue that the topology does
    /// not have is unroutable.
    ///
    /// # Errors
    /// [`PublishError`]; the caller keeps the message and comes again.
    pub async fn redeliver(&self, queue: &str, message: Message) -> Result<(), PublishError> {
        let topology = match self {
            Self::RabbitMq(bus) => bus.topology(),
            Self::InProcess(bus) => bus.topology(),
        };
        let Some(route) = topology.routes().iter().find(|route| route.queue == queue) else {
            return Err(PublishError::Unroutable {
                queue: queue.to_owned(),
            });
        };
        match self {
            Self::RabbitMq(bus) => bus.redeliver(route.queue, message).await,
            Self::InProcess(bus) => bus.redeliver(route.queue, message).await,
        }
    }

    /// Runs the bus until `stop` is cancelled, then stops taking messages, lets the handlers in flight finish
    /// within the drain time, and closes. Called once; a second call returns at once.
    pub async fn run(&self, stop: CancellationToken) {
        match self {
            Self::RabbitMq(bus) => bus.run(stop).await,
            Self::InProcess(bus) => bus.run(stop).await,
        }
    }

    /// For readiness: the bus runs, and has not been without its broker for more than 10 s.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::RabbitMq(bus) => bus.is_ready(),
            Self::InProcess(bus) => bus.is_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_names_the_key_that_is_wrong() {
        let check = |change: fn(&mut Config), key: Option<&str>| {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate().err().map(|error| error.key).as_deref(), key);
        };
        check(|_| (), None);
        check(|config| config.namespace = "a.b".into(), Some("bus.namespace"));
        check(|config| config.namespace.clear(), Some("bus.namespace"));
        check(
            |config| config.retry_delays_ms.clear(),
            Some("bus.retry_delays_ms"),
        );
        check(
            |config| config.retry_delays_ms = vec![1],
            Some("bus.retry_delays_ms"),
        );
        check(
            |config| config.publish_timeout_ms = 0,
            Some("bus.publish_timeout_ms"),
        );
        check(|config| config.drain_ms = 600_001, Some("bus.drain_ms"));
        check(|config| config.backend = Backend::RabbitMq, Some("bus.url"));
        check(
            |config| {
                config.backend = Backend::RabbitMq;
                config.url = Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f");
            },
            None,
        );
    }

    #[test]
    fn a_payload_is_not_printed() {
        let message = Message {
            id: Uuid::nil(),
            routing_key: "a.b".into(),
            payload: Bytes::from_static(b"secret"),
            traceparent: None,
            occurred_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let printed = format!("{message:?}");
        assert!(
            printed.contains("payload_bytes: 6") && !printed.contains("secret"),
            "{printed}"
        );
    }
}
