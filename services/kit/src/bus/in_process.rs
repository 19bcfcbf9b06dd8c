//! The bus within one process: a message goes from the outbox straight to the handlers.
//!
//! Nothing is kept here but in memory. What makes it safe is the outbox: `publish` answers `Ok`
//! only once every queue has handled the message or made it a dead letter, so after a crash the row is still
//! unsent and comes again.
//!
//! A publisher must not wait for a message that fails and fails again. It is told [`PublishError::Pending`] as
//! soon as a message only waits for its next try, and at the latest [`PUBLISH_WAIT_MAX`] after the message
//! was first published, while the message goes on here; publishing it again asks how it goes and never
//! waits any longer. So a few bad messages in every batch of an outbox do not slow down the good ones.

#[cfg(test)]
mod tests;

use super::{
    Config, DeadLetter, DeadLetters, Handler, Message, PublishError, Queue, SubscribeError, Topology,
    handling::{self, Failed, Verdict},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// Longest that a publisher waits for the handlers of one message, over all its calls. Below the second by
/// which a bad message may delay a good one.
pub const PUBLISH_WAIT_MAX: Duration = Duration::from_millis(500);

/// Most messages under way at the same time; with more, publishers are told to come again.
pub const PENDING_MAX: usize = 10_000;

/// The bus within one process. Clones share one bus.
#[derive(Clone)]
pub struct InProcess {
    inner: Arc<Inner>,
}

struct Inner {
    topology: Topology,
    dead_letters: Arc<dyn DeadLetters>,
    retry_delays: Arc<[Duration]>,
    drain: Duration,
    /// Cancelled: nothing new begins, what waits gives up.
    stopping: CancellationToken,
    /// Cancelled: the drain time is over, handlers still running are dropped.
    aborting: CancellationToken,
    tasks: TaskTracker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    consumers: BTreeMap<&'static str, Arc<Consumer>>,
    pending: HashMap<Key, Ticket>,
    /// Tells one delivery of a key from a later one of the same key.
    deliveries: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Subscribing,
    Running,
    Stopped,
}

struct Consumer {
    queue: Queue,
    handler: Handler,
    slots: Semaphore,
}

/// How far a message is.
struct Progress {
    /// Queues that are not through with it.
    unfinished: usize,
    /// Those of them where it waits for its next try.
    parked: usize,
    outcome: Option<Result<(), PublishError>>,
}

impl Progress {
    /// Whether there is something to tell the publisher now.
    fn is_news(&self) -> bool {
        self.outcome.is_some() || (self.parked > 0 && self.parked == self.unfinished)
    }
}

/// A delivery: the message's id, and the queue where it goes to one alone.
type Key = (Uuid, Option<&'static str>);

/// One message under way, and what its publisher holds of it.
#[derive(Clone)]
struct Ticket {
    key: Key,
    delivery: u64,
    patience_ends: Instant,
    progress: watch::Receiver<Progress>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess")
            .field("topology", &self.inner.topology)
            .finish_non_exhaustive()
    }
}

impl InProcess {
    pub(super) fn new(config: &Config, topology: Topology, dead_letters: Arc<dyn DeadLetters>) -> Self {
        let inner = Inner {
            topology,
            dead_letters,
            retry_delays: config.retry_delays(),
            drain: Duration::from_millis(config.drain_ms),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            state: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn subscribe(&self, queue: Queue, handler: Handler) -> Result<(), SubscribeError> {
        self.inner.topology.check(&queue)?;
        let mut state = self.inner.state();
        if state.phase != Phase::Subscribing {
            return Err(SubscribeError::Running);
        }
        if state.consumers.contains_key(queue.name) {
            return Err(SubscribeError::Twice(queue.name));
        }
        let slots = Semaphore::new(usize::from(queue.concurrency));
        state.consumers.insert(
            queue.name,
            Arc::new(Consumer {
                queue,
                handler,
                slots,
            }),
        );
        Ok(())
    }

    pub(super) async fn publish(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let begun: Vec<_> = messages
            .into_iter()
            .map(|message| self.begin(message, None))
            .collect();
        let mut results = Vec::with_capacity(begun.len());
        for begun in begun {
            results.push(self.settled(begun).await);
        }
        results
    }

    pub(super) async fn redeliver(&self, queue: &'static str, message: Message) -> Result<(), PublishError> {
        self.settled(self.begin(message, Some(queue))).await
    }

    async fn settled(&self, begun: Result<Option<Ticket>, PublishError>) -> Result<(), PublishError> {
        match begun? {
            Some(ticket) => self.inner.wait(ticket).await,
            None => Ok(()),
        }
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        {
            let mut state = self.inner.state();
            if state.phase != Phase::Subscribing {
                return;
            }
            state.phase = Phase::Running;
        }
        metrics::gauge!("octroi_bus_connected", "link" => "in_process").set(1.0);
        stop.cancelled().await;
        self.inner.state().phase = Phase::Stopped;
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(self.inner.drain, self.inner.tasks.wait())
            .await
            .is_err()
        {
            let messages_left = self.inner.tasks.len();
            tracing::warn!(
                messages_left,
                "handlers are stopped: they did not finish within the drain time"
            );
            self.inner.aborting.cancel();
            self.inner.tasks.wait().await;
        }
        metrics::gauge!("octroi_bus_connected", "link" => "in_process").set(0.0);
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.inner.topology
    }

    pub(super) fn is_ready(&self) -> bool {
        self.inner.state().phase == Phase::Running
    }

    /// Starts a delivery to every queue that listens, or to `only` one; or joins the same one that is under
    /// way. `None`: nobody listens.
    fn begin(&self, message: Message, only: Option<&'static str>) -> Result<Option<Ticket>, PublishError> {
        let mut state = self.inner.state();
        if state.phase != Phase::Running {
            return Err(PublishError::Unavailable);
        }
        let Message {
            id, ref routing_key, ..
        } = message;
        let mut consumers = Vec::new();
        let queues: Vec<_> = match only {
            Some(queue) => vec![queue],
            None => self.inner.topology.queues_of(routing_key).collect(),
        };
        for queue in queues {
            let Some(consumer) = state.consumers.get(queue) else {
                return Err(PublishError::Unroutable {
                    queue: queue.to_owned(),
                });
            };
            consumers.push(Arc::clone(consumer));
        }
        if consumers.is_empty() {
            return Ok(None);
        }
        let key = (id, only);
        if let Some(ticket) = state.pending.get(&key) {
            return Ok(Some(ticket.clone()));
        }
        if state.pending.len() >= PENDING_MAX {
            // Outcomes that nobody came for: their publisher is gone, or its row is.
            state
                .pending
                .retain(|_, ticket| ticket.progress.borrow().outcome.is_none());
            if state.pending.len() >= PENDING_MAX {
                return Err(PublishError::Full);
            }
        }
        let progress = watch::Sender::new(Progress {
            unfinished: consumers.len(),
            parked: 0,
            outcome: None,
        });
        state.deliveries += 1;
        let (delivery, patience_ends) = (state.deliveries, Instant::now() + PUBLISH_WAIT_MAX);
        let ticket = Ticket {
            key,
            delivery,
            patience_ends,
            progress: progress.subscribe(),
        };
        state.pending.insert(key, ticket.clone());
        let inner = Arc::clone(&self.inner);
        self.inner
            .tasks
            .spawn(async move { inner.deliver(key, &consumers, &message, &progress).await });
        Ok(Some(ticket))
    }
}

impl Inner {
    /// The state is only ever changed by single assignments, so it is whole after a panic too.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, mut ticket: Ticket) -> Result<(), PublishError> {
        let news = tokio::time::timeout_at(ticket.patience_ends, ticket.progress.wait_for(Progress::is_news));
        let result = match news.await {
            Err(_) => return Err(PublishError::Pending),
            Ok(Ok(progress)) => progress.outcome.clone().ok_or(PublishError::Pending)?,
            // The delivery ended without an outcome: its task was dropped with the runtime.
            Ok(Err(_)) => Err(PublishError::Unavailable),
        };
        let mut state = self.state();
        if state
            .pending
            .get(&ticket.key)
            .is_some_and(|pending| pending.delivery == ticket.delivery)
        {
            state.pending.remove(&ticket.key);
        }
        result
    }

    /// `Ok` is the outcome once every queue is through with the message.
    async fn deliver(
        &self,
        key: Key,
        consumers: &[Arc<Consumer>],
        message: &Message,
        progress: &watch::Sender<Progress>,
    ) {
        let all = consumers.iter().map(async |consumer| {
            let result = self.deliver_to(key, consumer, message, progress).await;
            progress.send_modify(|progress| progress.unfinished -= 1);
            result
        });
        let outcome = futures::future::join_all(all).await.into_iter().collect();
        progress.send_modify(|progress| progress.outcome = Some(outcome));
    }

    async fn deliver_to(
        &self,
        key: Key,
        consumer: &Consumer,
        message: &Message,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), PublishError> {
        let mut before = Failed::default();
        loop {
            let result = self.attempt(consumer, message).await?;
            match handling::judge(&consumer.queue, message, before, result, &self.retry_delays) {
                Verdict::Handled => return Ok(()),
                Verdict::Again { delay, failed } => {
                    before = failed;
                    self.pause(delay, progress).await?;
                }
                Verdict::Dead {
                    reason,
                    attempts,
                    error,
                } => {
                    if key.1.is_some() {
                        // Nobody comes for how this went: the letter says it. The next time that somebody puts
                        // it back is another delivery, and must not be answered with the end of this one.
                        self.state().pending.remove(&key);
                    }
                    let (queue, message) = (consumer.queue.name, message.clone());
                    let letter = DeadLetter {
                        queue,
                        message,
                        reason,
                        attempts,
                        error,
                    };
                    return self.bury(letter, progress).await;
                }
            }
        }
    }

    /// One try, in a slot of the queue's. The slot is held for the try alone: a message that waits for its
    /// next one is in nobody's way.
    async fn attempt(
        &self,
        consumer: &Consumer,
        message: &Message,
    ) -> Result<Result<(), handling::HandleError>, PublishError> {
        let slot = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return Err(PublishError::Unavailable),
            slot = consumer.slots.acquire() => slot,
        };
        let Ok(_slot) = slot else {
            return Err(PublishError::Unavailable);
        };
        tokio::select! {
            () = self.aborting.cancelled() => Err(PublishError::Unavailable),
            result = handling::attempt(&consumer.queue, &consumer.handler, message.clone()) => Ok(result),
        }
    }

    /// Keeps a dead letter, as often as it takes: until then the message is not sent.
    async fn bury(&self, letter: DeadLetter, progress: &watch::Sender<Progress>) -> Result<(), PublishError> {
        let mut logged = false;
        loop {
            let kept = tokio::select! {
                () = self.aborting.cancelled() => return Err(PublishError::Unavailable),
                kept = self.dead_letters.keep(letter.clone()) => kept,
            };
            let Err(error) = kept else {
                handling::count_dead(letter.queue);
                return Ok(());
            };
            if !logged {
                let error = handling::text(&*error);
                tracing::error!(queue.name = letter.queue, message.id = %letter.message.id, error,
                    "a dead letter could not be kept; trying until it is");
                logged = true;
            }
            let delay = self
                .retry_delays
                .first()
                .copied()
                .unwrap_or(Duration::from_secs(1));
            self.pause(delay, progress).await?;
        }
    }

    /// Nobody waits for a message that waits itself.
    async fn pause(&self, delay: Duration, progress: &watch::Sender<Progress>) -> Result<(), PublishError> {
        progress.send_modify(|progress| progress.parked += 1);
        let paused = tokio::select! {
            () = self.stopping.cancelled() => Err(PublishError::Unavailable),
            () = tokio::time::sleep(delay) => Ok(()),
        };
        progress.send_modify(|progress| progress.parked -= 1);
        paused
    }
}
