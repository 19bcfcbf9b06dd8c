//! The bus over RabbitMQ, from 3.10 on.
//!
//! ```text
//! publisher ──> <ns>.events (topic) ──> <ns>.<queue> ──> consumer ── handled ──> ack
//!                                           ^    │           ├── failed ──> <ns>.<queue>.delay.<n>ms, ack
//!                                           │    │           └── dead ────> <ns>.<queue>.dead, ack
//!                       after its time ─────┘    └─ delivered 20 times and never settled ──> .dead
//! ```
//! Every queue is a durable quorum queue. A message is never given back with a nack: the versions of RabbitMQ
//! differ in what they make of it. It is copied to where it goes next, and acknowledged once the copy is
//! confirmed. So the broker counts one delivery for each copy, however often a message is tried; its own limit is
//! a net for messages that take their consumers down before they are settled.
//!
//! Publishing and consuming have a connection each, because a broker that is short of memory stops reading
//! from a connection that publishes. Each has a supervisor that, on any error, drops it and builds it anew
//! with everything it declares, without end. lapin's own recovery is not used.

mod consumer;
mod dead;
mod declare;
mod link;
mod publisher;
mod supervisor;
mod wire;

pub use self::dead::{DeadLetterQueues, DeadLetterQueuesError};
use self::{
    consumer::{Consumer, Consumers},
    declare::Names,
    publisher::{Parcel, Publisher},
    supervisor::{Health, supervise},
};
use super::{Config, Handler, Message, PublishError, Queue, SubscribeError, Topology, handling::Failed};
use crate::config::{ConfigError, Secret};
use lapin::uri::AMQPUri;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The bus over RabbitMQ. Clones share one bus.
#[derive(Clone)]
pub struct RabbitMq {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    publisher: Publisher,
    publishing: Health,
    consuming: Health,
    state: Mutex<State>,
}

/// What both connections need.
struct Settings {
    uri: AMQPUri,
    names: Names,
    topology: Topology,
    retry_delays: Arc<[Duration]>,
    publish_timeout: Duration,
    drain: Duration,
}

#[derive(Default)]
struct State {
    running: bool,
    consumers: Vec<Arc<Consumer>>,
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("topology", &self.inner.settings.topology)
            .finish_non_exhaustive()
    }
}

/// Reads the broker's URL.
///
/// # Errors
/// If it is no AMQP URL; the error does not repeat it.
pub(super) fn parse_url(url: &Secret) -> Result<AMQPUri, ConfigError> {
    let problem = "must be amqp://user:password@host:port/vhost, or amqps://";
    let mut uri: AMQPUri = url
        .expose()
        .parse()
        .map_err(|_| ConfigError::new("bus.url", problem))?;
    // RabbitMQ proposes a minute, and a dead peer would be noticed after two.
    uri.query.heartbeat.get_or_insert(10);
    Ok(uri)
}

impl Settings {
    fn new(config: &Config, topology: Topology) -> Result<Self, ConfigError> {
        Ok(Self {
            uri: parse_url(&config.url)?,
            names: Names::new(&config.namespace),
            topology,
            retry_delays: config.retry_delays(),
            publish_timeout: Duration::from_millis(config.publish_timeout_ms),
            drain: Duration::from_millis(config.drain_ms),
        })
    }

    /// A message for one queue alone, as if it had never been tried.
    fn parcel_for(&self, queue: &str, message: Message) -> Parcel {
        Parcel {
            exchange: String::new(),
            routing_key: self.names.queue(queue),
            mandatory: true,
            properties: wire::properties(&message, Failed::default()),
            payload: message.payload,
        }
    }
}

impl RabbitMq {
    pub(super) fn new(config: &Config, topology: Topology) -> Result<Self, ConfigError> {
        let settings = Arc::new(Settings::new(config, topology)?);
        let inner = Inner {
            publisher: Publisher::new(Arc::clone(&settings)),
            publishing: Health::new("publish"),
            consuming: Health::new("consume"),
            settings,
            state: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(super) fn subscribe(&self, queue: Queue, handler: Handler) -> Result<(), SubscribeError> {
        self.inner.settings.topology.check(&queue)?;
        let mut state = self.inner.state();
        if state.running {
            return Err(SubscribeError::Running);
        }
        if state
            .consumers
            .iter()
            .any(|consumer| consumer.queue().name == queue.name)
        {
            return Err(SubscribeError::Twice(queue.name));
        }
        state.consumers.push(Arc::new(Consumer::new(queue, handler)));
        Ok(())
    }

    pub(super) async fn publish(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let parcel = |message: Message| {
            let mandatory = self.inner.settings.topology.is_heard(&message.routing_key);
            Parcel {
                exchange: self.inner.settings.names.exchange(),
                properties: wire::properties(&message, Failed::default()),
                routing_key: message.routing_key,
                mandatory,
                payload: message.payload,
            }
        };
        self.inner
            .publisher
            .send(messages.into_iter().map(parcel).collect())
            .await
    }

    pub(super) async fn redeliver(&self, queue: &'static str, message: Message) -> Result<(), PublishError> {
        let parcel = self.inner.settings.parcel_for(queue, message);
        let sent = self.inner.publisher.send(vec![parcel]).await.pop();
        sent.unwrap_or(Err(PublishError::Unavailable))
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let consumers = {
            let mut state = self.inner.state();
            if std::mem::replace(&mut state.running, true) {
                return;
            }
            state.consumers.clone()
        };
        // Handlers in flight still publish, so the publisher goes last.
        let publisher_stop = CancellationToken::new();
        let publish = supervise(&self.inner.publishing, &publisher_stop, &self.inner.publisher);
        let consume = async {
            if consumers.is_empty() {
                stop.cancelled().await;
            } else {
                let role = Consumers::new(
                    Arc::clone(&self.inner.settings),
                    self.inner.publisher.clone(),
                    consumers,
                );
                supervise(&self.inner.consuming, &stop, &role).await;
                role.drain().await;
            }
            publisher_stop.cancel();
        };
        tokio::join!(publish, consume);
        self.inner.publisher.close();
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.inner.settings.topology
    }

    pub(super) fn is_ready(&self) -> bool {
        let consumes = !self.inner.state().consumers.is_empty();
        self.inner.publishing.is_ready() && (!consumes || self.inner.consuming.is_ready())
    }
}

impl Inner {
    /// The state is only ever changed by single assignments, so it is whole after a panic too.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
