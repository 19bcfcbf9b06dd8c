//! The bus over RabbitMQ, from 3.10 on.
//!
//! ```text
//! publisher ──> each <ns>.<queue> that listens ──> consumer ── handled ──> ack
//!     │                   ^    │                      ├── failed ──> <ns>.<queue>.delay.<n>ms, ack
//!     │                   │    │                      └── dead ────> <ns>.<queue>.dead, ack
//!     │   after its time ─┘    └─ delivered 20 times and never settled ──> .dead
//!     └─────> <ns>.feed (topic) ──> whoever listens outside of the fleet
//! ```
//! A message goes to each queue by itself, over the default exchange, because a broker confirms what goes to another
//! one once those queues have it that are bound there: the one of two that an operator took away would miss it for
//! ever. It goes to the topic exchange too, for programs that are not of the fleet; what they cannot take they miss.
//!
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
    fn parcel_for(&self, queue: &str, message: &Message) -> Parcel {
        Parcel {
            exchange: String::new(),
            routing_key: self.names.queue(queue),
            mandatory: true,
            properties: wire::properties(message, Failed::default()),
            payload: message.payload.clone(),
        }
    }

    /// A message for each queue that listens to it, and last for those outside of the fleet.
    fn parcels_of(&self, message: Message) -> Vec<Parcel> {
        let queues = self.topology.queues_of(&message.routing_key);
        let mut parcels: Vec<_> = queues.map(|queue| self.parcel_for(queue, &message)).collect();
        parcels.push(Parcel {
            exchange: self.names.feed(),
            properties: wire::properties(&message, Failed::default()),
            routing_key: message.routing_key,
            mandatory: false,
            payload: message.payload,
        });
        parcels
    }
}

/// How a message went: as the worst of its parcels, the one for those outside of the fleet last. A full queue of theirs
/// must not keep a message in an outbox.
fn outcome_of(mut parcels: Vec<Result<(), PublishError>>) -> Result<(), PublishError> {
    if let Some(outside @ Err(PublishError::Full)) = parcels.last_mut() {
        *outside = Ok(());
    }
    let worst = parcels.into_iter().max_by_key(gravity);
    worst.unwrap_or(Err(PublishError::Unavailable))
}

/// What somebody must look at is worse than what mends itself; and a connection that is given up for one parcel is
/// merely not there for the others.
fn gravity(result: &Result<(), PublishError>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(PublishError::Unavailable | PublishError::Pending) => 1,
        Err(PublishError::Timeout | PublishError::Blocked) => 2,
        Err(PublishError::Unroutable { .. } | PublishError::Full | PublishError::Invalid(_)) => 3,
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
        let settings = &self.inner.settings;
        let parcels: Vec<_> = messages
            .into_iter()
            .map(|message| settings.parcels_of(message))
            .collect();
        let counts: Vec<usize> = parcels.iter().map(Vec::len).collect();
        let mut sent = self
            .inner
            .send(parcels.into_iter().flatten().collect())
            .await
            .into_iter();
        counts
            .into_iter()
            .map(|count| outcome_of(sent.by_ref().take(count).collect()))
            .collect()
    }

    pub(super) async fn redeliver(&self, queue: &'static str, message: Message) -> Result<(), PublishError> {
        let parcel = self.inner.settings.parcel_for(queue, &message);
        let sent = self.inner.send(vec![parcel]).await.pop();
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
    /// Publishes parcels, one result each, in their order. A queue that is missing is soon there again.
    async fn send(&self, parcels: Vec<Parcel>) -> Vec<Result<(), PublishError>> {
        let sent = self.publisher.send(parcels).await;
        let missing = sent.iter().find_map(|result| match result {
            Err(PublishError::Unroutable { queue }) => Some(queue),
            _ => None,
        });
        if let Some(queue) = missing {
            self.publisher.mend(queue);
        }
        sent
    }

    /// The state is only ever changed by single assignments, so it is whole after a panic too.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use uuid::Uuid;

    fn settings() -> Settings {
        let config = Config {
            url: Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f"),
            ..Config::default()
        };
        let routes: [(&'static str, &'static [&'static str]); 3] = [
            ("left.all", &["test.happened"]),
            ("other.all", &["test.stopped"]),
            ("right.all", &["test.stopped", "test.happened"]),
        ];
        let topology = Topology::new(routes).expect("a topology");
        Settings::new(&config, topology).expect("settings")
    }

    fn message(routing_key: &str) -> Message {
        Message {
            id: Uuid::from_u128(7),
            routing_key: routing_key.into(),
            payload: Bytes::from_static(&[1, 2, 3]),
            traceparent: None,
            occurred_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_message_goes_to_each_queue_that_listens_and_to_those_outside() {
        let check = |key: &str, expected: &[(&str, &str, bool)]| {
            let parcels = settings().parcels_of(message(key));
            let addresses: Vec<_> = parcels
                .iter()
                .map(|parcel| (&*parcel.exchange, &*parcel.routing_key, parcel.mandatory))
                .collect();
            assert_eq!(addresses, expected, "{key}");
            // Wherever it goes, it says which event it is.
            for parcel in &parcels {
                let read = wire::read(&parcel.properties, parcel.payload.clone());
                assert_eq!(read, Ok((message(key), Failed::default())));
            }
        };
        check(
            "test.happened",
            &[
                ("", "octroi.left.all", true),
                ("", "octroi.right.all", true),
                ("octroi.feed", "test.happened", false),
            ],
        );
        check("test.unheard", &[("octroi.feed", "test.unheard", false)]);
    }

    #[test]
    fn a_message_is_sent_once_every_queue_has_it() {
        use PublishError::{Full, Timeout, Unavailable};
        let missing = || PublishError::Unroutable {
            queue: "octroi.left.all".into(),
        };
        let check = |parcels: &[Result<(), PublishError>], expected: Result<(), PublishError>| {
            assert_eq!(outcome_of(parcels.to_vec()), expected, "{parcels:?}");
        };
        check(&[Ok(()), Ok(()), Ok(())], Ok(()));
        check(&[Ok(()), Err(missing()), Ok(())], Err(missing()));
        check(&[Err(missing()), Ok(()), Ok(())], Err(missing()));
        check(&[Err(Timeout), Err(missing()), Err(Unavailable)], Err(missing()));
        check(&[Err(Timeout), Err(Unavailable), Ok(())], Err(Timeout));
        check(&[Err(Unavailable), Err(Timeout), Ok(())], Err(Timeout));
        check(&[Ok(()), Err(Full), Ok(())], Err(Full));
        // Those outside of the fleet have a copy of all that they can take.
        check(&[Ok(()), Ok(()), Err(Full)], Ok(()));
        check(&[Ok(()), Ok(()), Err(Timeout)], Err(Timeout));
        check(&[], Err(Unavailable));
    }
}
