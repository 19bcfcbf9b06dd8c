//! Consuming: each delivery is handled, copied to where it goes next if it must, and acknowledged.

use super::{
    super::{
        Handler, PublishError, Queue,
        handling::{self, Verdict},
    },
    Settings, declare,
    link::{Link, LinkError},
    publisher::{Parcel, Publisher},
    supervisor::Role,
    wire,
};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{
    Acker, BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often the state of the connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often dead letters are counted on the broker, which makes some of its own.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Longest wait for the broker to send no more deliveries.
const CANCEL_MAX: Duration = Duration::from_secs(1);
/// Longest wait until an acknowledgement is on its way.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// Wait before another try to copy a message that the broker would not take.
const COPY_AGAIN: Duration = Duration::from_millis(500);

/// A queue and its handler.
pub(super) struct Consumer {
    queue: Queue,
    handler: Handler,
    /// Over reconnects, so that what is still being handled from before counts.
    slots: Arc<Semaphore>,
}

/// Every consumer of this process, on one connection.
pub(super) struct Consumers {
    settings: Arc<Settings>,
    publisher: Publisher,
    consumers: Vec<Arc<Consumer>>,
    handling: TaskTracker,
    /// Cancelled: the drain time is over, handlers still running are dropped.
    aborting: CancellationToken,
}

/// One connection with a channel a queue.
pub(super) struct Session {
    link: Link,
    channel: Channel,
    streams: Vec<(Arc<Consumer>, Channel, lapin::Consumer)>,
}

/// What a delivery needs on its way.
struct Visit {
    settings: Arc<Settings>,
    publisher: Publisher,
    consumer: Arc<Consumer>,
    aborting: CancellationToken,
    /// Cancelled: the connection that the delivery came over is given up.
    broken: CancellationToken,
}

impl Consumer {
    pub(super) fn new(queue: Queue, handler: Handler) -> Self {
        let slots = Arc::new(Semaphore::new(usize::from(queue.concurrency)));
        Self {
            queue,
            handler,
            slots,
        }
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Consumers {
    pub(super) fn new(settings: Arc<Settings>, publisher: Publisher, consumers: Vec<Arc<Consumer>>) -> Self {
        let (handling, aborting) = (TaskTracker::new(), CancellationToken::new());
        Self {
            settings,
            publisher,
            consumers,
            handling,
            aborting,
        }
    }

    /// Waits for the handlers in flight, for at most the drain time, then drops them.
    pub(super) async fn drain(&self) {
        self.handling.close();
        if tokio::time::timeout(self.settings.drain, self.handling.wait())
            .await
            .is_err()
        {
            let messages_left = self.handling.len();
            tracing::warn!(
                messages_left,
                "handlers are stopped: they did not finish within the drain time"
            );
            self.aborting.cancel();
            self.handling.wait().await;
        }
    }

    /// Takes deliveries of one queue while the connection holds.
    async fn read(
        &self,
        consumer: &Arc<Consumer>,
        stream: &mut lapin::Consumer,
        broken: &CancellationToken,
    ) -> LinkError {
        loop {
            let Ok(slot) = Arc::clone(&consumer.slots).acquire_owned().await else {
                return LinkError::Closed;
            };
            match stream.next().await {
                Some(Ok(delivery)) => {
                    let visit = Visit {
                        settings: Arc::clone(&self.settings),
                        publisher: self.publisher.clone(),
                        consumer: Arc::clone(consumer),
                        aborting: self.aborting.clone(),
                        broken: broken.clone(),
                    };
                    self.handling.spawn(visit.take(delivery, slot));
                }
                Some(Err(error)) => return error.into(),
                None => return LinkError::Broken(format!("the broker cancelled {}", consumer.queue.name)),
            }
        }
    }

    /// Until the connection is broken.
    async fn watch(&self, link: &Link, channel: &Channel, broken: &CancellationToken) -> LinkError {
        let looking = async {
            while link.is_connected() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            LinkError::Closed
        };
        tokio::select! {
            error = looking => error,
            error = self.count_dead_letters(channel) => error,
            () = broken.cancelled() => LinkError::Broken("a message could not be settled".into()),
        }
    }

    /// Counts for as long as it can.
    async fn count_dead_letters(&self, channel: &Channel) -> LinkError {
        loop {
            for consumer in &self.consumers {
                let queue = consumer.queue.name;
                match declare::depth(channel, &self.settings.names.dead(queue)).await {
                    Ok(letters) => {
                        metrics::gauge!("octroi_bus_dead_letter_messages", "queue" => queue)
                            .set(f64::from(letters));
                    }
                    Err(error) => return error,
                }
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }
}

impl Role for Consumers {
    type Session = Session;

    async fn open(&self) -> Result<Session, LinkError> {
        let settings = &self.settings;
        let link = Link::open(&settings.uri, "octroi consume", settings.publish_timeout).await?;
        let channel = link.channel().await?;
        declare::exchanges(&channel, &settings.names).await?;
        for route in settings.topology.routes() {
            if self
                .consumers
                .iter()
                .any(|consumer| consumer.queue.name == route.queue)
            {
                declare::detours(&channel, &settings.names, route.queue, &settings.retry_delays).await?;
                declare::queue(&channel, &settings.names, route).await?;
            }
        }
        let mut streams = Vec::with_capacity(self.consumers.len());
        for consumer in &self.consumers {
            let channel = link.channel().await?;
            channel
                .basic_qos(consumer.queue.concurrency, BasicQosOptions::default())
                .await?;
            let name = settings.names.queue(consumer.queue.name).into();
            let options = BasicConsumeOptions::default();
            let stream = channel
                .basic_consume(name, "".into(), options, FieldTable::default())
                .await?;
            streams.push((Arc::clone(consumer), channel, stream));
        }
        Ok(Session {
            link,
            channel,
            streams,
        })
    }

    async fn serve(&self, session: Session, stop: &CancellationToken) -> Result<(), LinkError> {
        let Session {
            link,
            channel,
            mut streams,
        } = session;
        let broken = CancellationToken::new();
        let ended = {
            let mut readers: FuturesUnordered<_> = streams
                .iter_mut()
                .map(|(consumer, _, stream)| self.read(consumer, stream, &broken))
                .collect();
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                error = self.watch(&link, &channel, &broken) => Err(error),
                Some(error) = readers.next() => Err(error),
            }
        };
        if ended.is_ok() {
            let cancelling = streams.iter().map(|(_, channel, stream)| {
                channel.basic_cancel(stream.tag(), BasicCancelOptions::default())
            });
            // Where it fails or takes long the connection is gone, and the broker cancels them itself.
            let _ = tokio::time::timeout(CANCEL_MAX, futures::future::join_all(cancelling)).await;
            self.drain().await;
            link.close().await;
        }
        broken.cancel();
        ended
    }
}

impl Visit {
    /// One delivery, from its receipt to its acknowledgement. What is not acknowledged comes again.
    async fn take(self, delivery: Delivery, slot: OwnedSemaphorePermit) {
        let Delivery {
            properties,
            data,
            acker,
            ..
        } = delivery;
        tokio::select! {
            () = self.aborting.cancelled() => (),
            () = async {
                if self.settle(&acker, properties, data.into()).await {
                    self.acknowledge(&acker).await;
                }
            } => (),
        }
        drop(slot);
    }

    /// Acknowledges, or finds that it is too late for that: then the message comes again, and the inbox knows
    /// it.
    async fn acknowledge(&self, acker: &Acker) {
        // An acknowledgement that meets the end of its connection is never answered: lapin waits for ever.
        let acknowledged = tokio::select! {
            acknowledged = tokio::time::timeout(ACKNOWLEDGE_MAX, acker.ack(BasicAckOptions::default())) => {
                acknowledged
            }
            () = self.broken.cancelled() => Ok(Ok(false)),
        };
        match acknowledged {
            Ok(Ok(true)) => (),
            Ok(Ok(false)) => tracing::debug!("a message will come again: its connection is gone"),
            Ok(Err(error)) => tracing::debug!(%error, "a message will come again: it is not acknowledged"),
            // Unless its connection ends, it would stay with a consumer who is done with it.
            Err(_) => self.broken.cancel(),
        }
    }

    /// Handles a delivery; whether it may be acknowledged.
    async fn settle(&self, acker: &Acker, properties: BasicProperties, payload: Bytes) -> bool {
        let queue = &self.consumer.queue;
        let (message, before) = match wire::read(&properties, payload.clone()) {
            Ok(read) => read,
            Err(problem) => {
                tracing::error!(
                    queue.name,
                    problem,
                    "a message is a dead letter: it is none of this fleet's"
                );
                let properties = wire::malformed(properties, problem);
                return self.bury(acker, payload, properties).await;
            }
        };
        let result = handling::attempt(queue, &self.consumer.handler, message.clone()).await;
        match handling::judge(queue, &message, before, result, &self.settings.retry_delays) {
            Verdict::Handled => true,
            Verdict::Again { delay, failed } => {
                let name = self.settings.names.delay(queue.name, delay);
                self.copy(acker, name, payload, wire::properties(&message, failed))
                    .await
            }
            Verdict::Dead {
                reason,
                attempts,
                error,
            } => {
                let properties = wire::dead(&message, attempts, reason, &error);
                self.bury(acker, payload, properties).await
            }
        }
    }

    async fn bury(&self, acker: &Acker, payload: Bytes, properties: BasicProperties) -> bool {
        let queue = self.consumer.queue.name;
        let buried = self
            .copy(acker, self.settings.names.dead(queue), payload, properties)
            .await;
        if buried {
            handling::count_dead(queue);
        }
        buried
    }

    /// Puts a copy into another queue, as often as it takes; whether it is there. It keeps its slot meanwhile:
    /// a broker that does not take the copy of one message would not take those of the next ones either.
    async fn copy(&self, acker: &Acker, name: String, payload: Bytes, properties: BasicProperties) -> bool {
        let parcel = Parcel {
            exchange: String::new(),
            routing_key: name,
            mandatory: true,
            payload,
            properties,
        };
        let mut logged = false;
        loop {
            let error = match self.publisher.send(vec![parcel.clone()]).await.pop() {
                Some(Ok(())) => return true,
                Some(Err(error)) => error,
                None => PublishError::Unavailable,
            };
            if matches!(error, PublishError::Unroutable { .. }) {
                self.broken.cancel();
                return false;
            }
            if acker.poisoned() || self.broken.is_cancelled() {
                return false;
            }
            if !logged {
                let (queue, to) = (self.consumer.queue.name, &parcel.routing_key);
                tracing::warn!(queue.name = queue, to, %error, "a message could not be copied; trying until it is");
                logged = true;
            }
            tokio::time::sleep(COPY_AGAIN).await;
        }
    }
}
