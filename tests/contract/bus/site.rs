//! Where a case runs: one variant of the bus, with a namespace of its own, and what to look at it with.

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use lapin::{Channel, Connection, ConnectionProperties, message::Delivery, types::AMQPValue};
use octroi_kit::{
    bus::{
        Backend, BoxError, Bus, Config, DeadLetter, DeadLetters, DeadReason, HandleError, Handler, Message,
        PublishError, Queue, Topology,
    },
    config::Secret,
};
use octroi_tests::harness::backends::{self, BusNamespace};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a failed message waits in these tests, in ms.
pub(super) const RETRY_MS: u64 = 50;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// One variant of the bus.
pub(super) struct Site {
    pub(super) variant: &'static str,
    pub(super) config: Config,
    letters: Arc<Letters>,
    broker: Option<Channel>,
    connection: Option<Arc<Connection>>,
}

/// A bus that runs.
pub(super) struct Running {
    pub(super) bus: Bus,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Letters(Mutex<Vec<DeadLetter>>);

impl DeadLetters for Letters {
    fn keep(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), BoxError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        Box::pin(async { Ok(()) })
    }
}

impl Site {
    pub(super) async fn all() -> Result<Vec<Self>> {
        let in_process = Config {
            retry_delays_ms: vec![RETRY_MS],
            ..Config::default()
        };
        let in_process = Self {
            variant: "in process",
            config: in_process,
            letters: Arc::default(),
            broker: None,
            connection: None,
        };
        Ok(vec![in_process, Self::rabbitmq().await?])
    }

    pub(super) async fn rabbitmq() -> Result<Self> {
        Self::at(backends::rabbitmq().await.namespace()).await
    }

    /// A corner of some broker.
    pub(super) async fn at(BusNamespace { url, namespace }: BusNamespace) -> Result<Self> {
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let broker = Some(connection.create_channel().await?);
        let config = Config {
            backend: Backend::RabbitMq,
            url: Secret::new(url),
            namespace,
            retry_delays_ms: vec![RETRY_MS],
            ..Config::default()
        };
        let connection = Some(Arc::new(connection));
        Ok(Self {
            variant: "RabbitMQ",
            config,
            letters: Arc::default(),
            broker,
            connection,
        })
    }

    /// What the variant calls a queue, or what stands beside it.
    pub(super) fn name(&self, queue: &Queue, beside: &str) -> String {
        if self.broker.is_none() {
            return queue.name.to_owned();
        }
        format!("{}.{}{beside}", self.config.namespace, queue.name)
    }

    /// An exchange on the broker.
    pub(super) fn exchange(&self, name: &str) -> String {
        format!("{}.{name}", self.config.namespace)
    }

    /// A look at the broker from beside the bus.
    pub(super) fn broker(&self) -> Result<&Channel> {
        self.broker.as_ref().context("there is no broker")
    }

    /// The same, where a failed message waits a minute.
    pub(super) fn patient(&self) -> Self {
        let config = Config {
            retry_delays_ms: vec![60_000],
            ..self.config.clone()
        };
        let (letters, broker) = (Arc::clone(&self.letters), self.broker.clone());
        Self {
            variant: self.variant,
            config,
            letters,
            broker,
            connection: self.connection.clone(),
        }
    }

    /// A bus in whose fleet these queues are.
    pub(super) fn bus(&self, queues: &[Queue]) -> Result<Bus> {
        let topology = Topology::new(queues.iter().map(|queue| (queue.name, queue.routing_keys)))?;
        Ok(Bus::new(
            &self.config,
            topology,
            Arc::<Letters>::clone(&self.letters),
        )?)
    }

    /// A bus that is ready, with some consumers of the fleet.
    pub(super) async fn start(&self, queues: &[Queue], consumers: Vec<(Queue, Handler)>) -> Result<Running> {
        let bus = self.bus(queues)?;
        for (queue, handler) in consumers {
            bus.subscribe(queue, handler)?;
        }
        let running = Running::of(bus);
        eventually("the bus is ready", || running.bus.is_ready()).await?;
        Ok(running)
    }

    /// Deletes a queue and what is in it, as an operator might; in process there is nothing to delete.
    pub(super) async fn delete(&self, queue: &Queue) -> Result<()> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let name = self.name(queue, "");
        broker.queue_delete(name.into(), Default::default()).await?;
        Ok(())
    }

    /// The next dead letter of a queue.
    pub(super) async fn dead_letter(&self, queue: &Queue) -> Result<DeadLetter> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let letter = match &self.broker {
                None => self
                    .letters
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop(),
                Some(broker) => self.get_dead_letter(broker, queue).await?,
            };
            if let Some(letter) = letter {
                ensure!(letter.queue == queue.name, "a dead letter of {}", letter.queue);
                return Ok(letter);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("no dead letter of {}", queue.name)
    }

    /// Whether no message of this queue died.
    pub(super) async fn has_no_dead_letter(&self, queue: &Queue) -> Result<()> {
        let letter = match &self.broker {
            None => self
                .letters
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop(),
            Some(broker) => self.get_dead_letter(broker, queue).await?,
        };
        ensure!(letter.is_none(), "a dead letter: {letter:?}");
        Ok(())
    }

    /// Takes a message and ends without settling it; whether there was one.
    pub(super) async fn deliver_and_crash(&self, queue: &Queue) -> Result<bool> {
        let connection = self.connection.as_ref().context("there is no broker")?;
        let since = Instant::now();
        // What a channel held is in its queue again a moment after the channel has gone.
        while since.elapsed() < Duration::from_secs(2) {
            let channel = connection.create_channel().await?;
            let got = channel
                .basic_get(self.name(queue, "").into(), Default::default())
                .await?;
            channel.close(200, "crash".into()).await?;
            if got.is_some() {
                return Ok(true);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }

    /// The next dead letter as the broker has it.
    pub(super) async fn get_dead(&self, queue: &Queue) -> Result<Delivery> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let got = self
                .broker()?
                .basic_get(self.name(queue, ".dead").into(), Default::default())
                .await?;
            if let Some(got) = got {
                got.delivery.acker.ack(Default::default()).await?;
                return Ok(got.delivery);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("no dead letter of {}", queue.name)
    }

    async fn get_dead_letter(&self, broker: &Channel, queue: &Queue) -> Result<Option<DeadLetter>> {
        let name = self.name(queue, ".dead");
        let Some(got) = broker.basic_get(name.into(), Default::default()).await? else {
            return Ok(None);
        };
        got.delivery.acker.ack(Default::default()).await?;
        let properties = &got.delivery.properties;
        let header = |name: &str| match properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::LongLongInt(number) => Some(number.to_string()),
            _ => None,
        };
        let message = Message {
            id: properties
                .message_id()
                .as_ref()
                .map_or("", |id| id.as_str())
                .parse()
                .unwrap_or_default(),
            routing_key: properties
                .kind()
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            payload: got.delivery.data.clone().into(),
            traceparent: header("traceparent"),
            occurred_at: header("octroi-occurred-at")
                .unwrap_or_default()
                .parse()
                .unwrap_or_default(),
        };
        let reason = match header("octroi-dead-reason").as_deref() {
            Some("poison") => DeadReason::Poison,
            Some("delivery_limit") => DeadReason::DeliveryLimit,
            Some("malformed") => DeadReason::Malformed,
            other => bail!("the reason {other:?}"),
        };
        let attempts = header("octroi-attempt")
            .unwrap_or_default()
            .parse()
            .unwrap_or_default();
        let error = header("octroi-error").unwrap_or_default();
        Ok(Some(DeadLetter {
            queue: queue.name,
            message,
            reason,
            attempts,
            error,
        }))
    }
}

impl Running {
    /// Runs a bus, which need not become ready.
    pub(super) fn of(bus: Bus) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (bus, stop) = (bus.clone(), stop.clone());
            async move { bus.run(stop).await }
        });
        Self { bus, stop, task }
    }

    /// Publishes as an outbox does: what is not sent is published again.
    pub(super) async fn relay(&self, mut unsent: Vec<Message>) -> Result<()> {
        let since = Instant::now();
        while !unsent.is_empty() {
            ensure!(
                since.elapsed() < PATIENCE,
                "{} messages are still not sent",
                unsent.len()
            );
            unsent = self.relay_once(unsent).await;
        }
        Ok(())
    }

    /// Brings a message to one queue, as somebody does who puts a dead letter back.
    pub(super) async fn redeliver(&self, queue: &Queue, message: &Message) -> Result<()> {
        let since = Instant::now();
        while let Err(error) = self.bus.redeliver(queue.name, message.clone()).await {
            ensure!(since.elapsed() < PATIENCE, "still not sent: {error}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// One round of an outbox; what is left.
    pub(super) async fn relay_once(&self, unsent: Vec<Message>) -> Vec<Message> {
        let results = self.bus.publish(unsent.clone()).await;
        assert_eq!(results.len(), unsent.len());
        if results.iter().flatten().next().is_none()
            && results.iter().any(|r| *r != Err(PublishError::Pending))
        {
            sleep(Duration::from_millis(20)).await;
        }
        unsent
            .into_iter()
            .zip(results)
            .filter(|(_, result)| result.is_err())
            .map(|(message, _)| message)
            .collect()
    }

    /// Stops the bus and waits until it has stopped.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(tokio::time::timeout(PATIENCE, self.task)
            .await
            .context("the bus does not stop")??)
    }
}

type Behaviour = dyn Fn(&Message, usize) -> Result<(), HandleError> + Send + Sync;

/// A handler that writes down what it saw. Clones share it.
#[derive(Clone)]
pub(super) struct Tries {
    behaviour: Arc<Behaviour>,
    takes: Duration,
    begun: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<(Message, Instant)>>>,
}

impl Tries {
    pub(super) fn that_succeed() -> Self {
        Self::that(|_| Ok(()))
    }

    /// Behaves by the number of the try, from 1.
    pub(super) fn that(behaviour: fn(usize) -> Result<(), HandleError>) -> Self {
        Self::that_for(move |_, try_number| behaviour(try_number))
    }

    pub(super) fn that_for(
        behaviour: impl Fn(&Message, usize) -> Result<(), HandleError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            behaviour: Arc::new(behaviour),
            takes: Duration::ZERO,
            begun: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
            seen: Arc::default(),
        }
    }

    pub(super) fn slowly(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    pub(super) fn handler(&self) -> Handler {
        let tries = self.clone();
        Arc::new(move |message| {
            let tries = tries.clone();
            Box::pin(async move {
                let try_number = tries.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let at_once = tries.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                tries.most_at_once.fetch_max(at_once, Ordering::SeqCst);
                sleep(tries.takes).await;
                tries.at_once.fetch_sub(1, Ordering::SeqCst);
                let seen = (message.clone(), Instant::now());
                tries
                    .seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(seen);
                (tries.behaviour)(&message, try_number)
            })
        })
    }

    /// How many tries have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub(super) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// What was tried, and when.
    pub(super) fn seen(&self) -> Vec<(Message, Instant)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.seen().into_iter().map(|(message, _)| message.id).collect()
    }
}

/// A message with everything in it.
pub(super) fn message(routing_key: &str) -> Message {
    let id = Uuid::new_v4();
    Message {
        id,
        routing_key: routing_key.into(),
        payload: id.as_bytes().to_vec().into(),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        occurred_at: jiff::Timestamp::new(1_700_000_000, 123_456_789).unwrap_or_default(),
    }
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let since = Instant::now();
    while !holds() {
        ensure!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
