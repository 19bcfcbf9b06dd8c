//! Publishing: a message is safe once the broker has confirmed it *and* has not returned it as unroutable.
//!
//! lapin hands a returned message to whichever confirmation comes next. So a channel has one message in
//! flight, and is not used again before the broker has answered for it; several channels make up for that.

use super::{
    super::PublishError,
    Settings, declare,
    link::{Link, LinkError},
    supervisor::Role,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Channels, and so parcels in flight, of one publisher: four events that two queues listen to, with the
/// copies for those outside of the fleet.
const CHANNELS: usize = 12;
/// How often the state of the connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a queue that was deleted is left to its consumers. Where another of its name is there before the broker has
/// cancelled them, it takes them to that one and brings them nothing (seen with 3.10.8).
const MEND_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for what is in flight when the bus stops; the outbox sends again what did not make it.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// One message addressed.
#[derive(Clone)]
pub(super) struct Parcel {
    /// Empty: the default exchange, whose routing keys are names of queues.
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// It is an error if no queue takes it.
    pub(super) mandatory: bool,
    pub(super) payload: Bytes,
    pub(super) properties: BasicProperties,
}

/// Publishes over whichever connection is up. Clones share it.
#[derive(Clone)]
pub(super) struct Publisher {
    settings: Arc<Settings>,
    session: watch::Sender<Option<Arc<Session>>>,
    closed: CancellationToken,
}

/// One connection with its channels.
pub(super) struct Session {
    link: Link,
    /// Channels with nothing in flight; as many as `slots` has permits.
    channels: Mutex<Vec<Channel>>,
    slots: Arc<Semaphore>,
    publish_timeout: Duration,
    /// Whether somebody is about to declare again what is missing.
    mending: AtomicBool,
    /// Cancelled: the connection is to be dropped, `failure` says why.
    broken: CancellationToken,
    failure: Mutex<Option<LinkError>>,
}

impl Publisher {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            session: watch::Sender::new(None),
            closed: CancellationToken::new(),
        }
    }

    /// Publishes parcels, one result each, in their order. A queue that is slow to confirm holds up no other.
    pub(super) async fn send(&self, parcels: Vec<Parcel>) -> Vec<Result<(), PublishError>> {
        let Some(session) = self.session().await else {
            return parcels.iter().map(|_| Err(PublishError::Unavailable)).collect();
        };
        let mut sent: Vec<_> = futures::stream::iter(parcels.into_iter().enumerate())
            .map(|(place, parcel)| session.send(parcel).map(move |result| (place, result)))
            .buffer_unordered(CHANNELS)
            .collect()
            .await;
        sent.sort_unstable_by_key(|(place, _)| *place);
        sent.into_iter().map(|(_, result)| result).collect()
    }

    /// Declares a queue that is missing, and all others, after a while. Its consumers do so too, but may be away for
    /// long, and nothing must wait for them elsewhere than in their queue.
    pub(super) fn mend(&self, queue: &str) {
        let Some(session) = self.session.borrow().clone() else {
            return;
        };
        if !session.mending.swap(true, Ordering::Relaxed) {
            tracing::warn!(queue, "a queue is missing; it is declared again");
            let settings = Arc::clone(&self.settings);
            tokio::spawn(async move { session.mend(&settings).await });
        }
    }

    /// Nothing is published any more, and nobody waits for a connection.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.session.send_replace(None);
    }

    /// The connection, waited for as long as a confirmation would be.
    async fn session(&self) -> Option<Arc<Session>> {
        let mut watch = self.session.subscribe();
        let connected = watch.wait_for(Option::is_some);
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            connected = tokio::time::timeout(self.settings.publish_timeout, connected) => {
                connected.ok()?.ok()?.clone()
            }
        }
    }
}

impl Role for Publisher {
    type Session = Arc<Session>;

    async fn open(&self) -> Result<Self::Session, LinkError> {
        let settings = &self.settings;
        let link = Link::open(&settings.uri, "octroi publish", settings.publish_timeout).await?;
        declare_all(&link, settings).await?;
        let mut channels = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            let channel = link.channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            channels.push(channel);
        }
        Ok(Arc::new(Session {
            link,
            channels: Mutex::new(channels),
            slots: Arc::new(Semaphore::new(CHANNELS)),
            publish_timeout: settings.publish_timeout,
            mending: AtomicBool::new(false),
            broken: CancellationToken::new(),
            failure: Mutex::default(),
        }))
    }

    async fn serve(&self, session: Arc<Session>, stop: &CancellationToken) -> Result<(), LinkError> {
        self.session.send_replace(Some(Arc::clone(&session)));
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            error = session.watch() => Err(error),
        };
        self.session.send_replace(None);
        if ended.is_ok() {
            let all = session.slots.acquire_many(CHANNELS as u32);
            let _ = tokio::time::timeout(FINISH_MAX, all).await;
            session.link.close().await;
        }
        session.broken.cancel();
        ended
    }
}

async fn declare_all(link: &Link, settings: &Settings) -> Result<(), LinkError> {
    let channel = link.channel().await?;
    declare::exchanges(&channel, &settings.names).await?;
    for route in settings.topology.routes() {
        declare::queue(&channel, &settings.names, route).await?;
    }
    Ok(())
}

impl Session {
    async fn send(self: &Arc<Self>, parcel: Parcel) -> Result<(), PublishError> {
        let Ok(routing_key) = ShortString::try_new(parcel.routing_key.as_str()) else {
            return Err(PublishError::Invalid(
                "the routing key is longer than 255 bytes".into(),
            ));
        };
        if self.link.is_blocked() {
            return Err(PublishError::Blocked);
        }
        let slot = tokio::select! {
            biased;
            () = self.broken.cancelled() => return Err(PublishError::Unavailable),
            slot = Arc::clone(&self.slots).acquire_owned() => slot,
        };
        let channel = self.channels.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (Ok(slot), Some(channel)) = (slot, channel) else {
            return Err(PublishError::Unavailable);
        };
        let (reply, answer) = oneshot::channel();
        let flight = Arc::clone(self).fly(channel, slot, routing_key, parcel, reply);
        // A task, so that a caller who goes away does not leave a channel whose next answer is another's.
        tokio::spawn(flight);
        answer.await.unwrap_or(Err(PublishError::Unavailable))
    }

    /// One message, from the publish to the broker's answer; then the channel is free again.
    async fn fly(
        self: Arc<Self>,
        channel: Channel,
        slot: OwnedSemaphorePermit,
        routing_key: ShortString,
        parcel: Parcel,
        reply: oneshot::Sender<Result<(), PublishError>>,
    ) {
        let key = parcel.routing_key.clone();
        let mut reply = Some(reply);
        let mut answer = |result| drop(reply.take().map(|reply| reply.send(result)));
        let published = publish(channel.clone(), routing_key, parcel);
        tokio::pin!(published);
        let confirmation = loop {
            tokio::select! {
                biased;
                confirmation = &mut published => break confirmation,
                () = self.broken.cancelled() => return answer(Err(PublishError::Unavailable)),
                () = tokio::time::sleep(self.publish_timeout) => {
                    if !self.link.is_blocked() {
                        answer(Err(PublishError::Timeout));
                        return self.fail(LinkError::Timeout("confirming a message"));
                    }
                    // The broker holds the message back and answers for it when it can.
                    answer(Err(PublishError::Blocked));
                }
            }
        };
        match confirmation {
            Ok(confirmation) => {
                self.channels
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(channel);
                drop(slot);
                answer(outcome(&confirmation, key));
            }
            Err(error) => {
                answer(Err(PublishError::Unavailable));
                self.fail(error.into());
            }
        }
    }

    async fn mend(&self, settings: &Settings) {
        let declaring = async {
            tokio::time::sleep(MEND_AFTER).await;
            tokio::time::timeout(settings.publish_timeout, declare_all(&self.link, settings)).await
        };
        let declared = tokio::select! {
            () = self.broken.cancelled() => return,
            declared = declaring => declared,
        };
        self.mending.store(false, Ordering::Relaxed);
        match declared {
            Ok(Ok(())) => (),
            Ok(Err(error)) => self.fail(error),
            Err(_) => self.fail(LinkError::Timeout("declaring a queue")),
        }
    }

    fn fail(&self, error: LinkError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.broken.cancel();
    }

    /// Until the connection is broken.
    async fn watch(&self) -> LinkError {
        let mut blocked = false;
        loop {
            tokio::select! {
                () = self.broken.cancelled() => {
                    let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return failure.unwrap_or(LinkError::Closed);
                }
                () = tokio::time::sleep(LOOK_EVERY) => (),
            }
            if !self.link.is_connected() {
                return LinkError::Closed;
            }
            if blocked != self.link.is_blocked() {
                blocked = !blocked;
                metrics::gauge!("octroi_bus_blocked").set(if blocked { 1.0 } else { 0.0 });
                if blocked {
                    tracing::warn!("the broker takes no messages: it is short of memory or disk");
                } else {
                    tracing::info!("the broker takes messages again");
                }
            }
        }
    }
}

/// Publishes on a channel that confirms and has nothing else in flight.
pub(super) async fn publish(
    channel: Channel,
    routing_key: ShortString,
    parcel: Parcel,
) -> lapin::Result<Confirmation> {
    let exchange = ShortString::from(parcel.exchange.as_str());
    let options = BasicPublishOptions {
        mandatory: parcel.mandatory,
        ..BasicPublishOptions::default()
    };
    let Parcel {
        payload, properties, ..
    } = parcel;
    channel
        .basic_publish(exchange, routing_key, options, &payload, properties)
        .await?
        .await
}

/// What the broker's answer says. Only what goes to a queue alone can come back.
pub(super) fn outcome(confirmation: &Confirmation, queue: String) -> Result<(), PublishError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Err(PublishError::Unroutable { queue }),
        Confirmation::Nack(None) => Err(PublishError::Full),
        Confirmation::NotRequested => Err(PublishError::Invalid("confirms are not on".into())),
    }
}
