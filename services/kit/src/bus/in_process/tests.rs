//! What only the bus in process promises; the rest is the contract of every bus.

use super::*;
use crate::bus::{BoxError, Bus, HandleError};
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicU32, Ordering};

const QUEUE: Queue = Queue::new("left.all", &["test.happened"]);

/// Keeps letters from the third call on.
#[derive(Default)]
struct Reluctant(AtomicU32);

impl DeadLetters for Reluctant {
    fn keep(&self, _: DeadLetter) -> BoxFuture<'_, Result<(), BoxError>> {
        let call = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            if call < 3 {
                Err("the database is away".into())
            } else {
                Ok(())
            }
        })
    }
}

struct Site {
    bus: Bus,
    letters: Arc<Reluctant>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

/// A bus that runs, with one queue.
async fn site(retry_ms: u64, handler: Handler) -> Site {
    let letters = Arc::new(Reluctant::default());
    let topology = Topology::new([(QUEUE.name, QUEUE.routing_keys)]).unwrap_or_else(|e| panic!("{e}"));
    let sink: Arc<dyn DeadLetters> = Arc::<Reluctant>::clone(&letters);
    let config = Config {
        retry_delays_ms: vec![retry_ms],
        drain_ms: 50,
        ..Config::default()
    };
    let bus = Bus::InProcess(InProcess::new(&config, topology, sink));
    assert_eq!(bus.subscribe(QUEUE, Arc::clone(&handler)), Ok(()));
    assert_eq!(
        bus.subscribe(QUEUE, Arc::clone(&handler)),
        Err(SubscribeError::Twice(QUEUE.name))
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (bus, stop) = (bus.clone(), stop.clone());
        async move { bus.run(stop).await }
    });
    while !bus.is_ready() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bus.subscribe(QUEUE, handler), Err(SubscribeError::Running));
    Site {
        bus,
        letters,
        stop,
        running,
    }
}

/// Behaves by the number of the try, from 1.
fn tries(behaviour: fn(u32) -> Result<(), HandleError>) -> Handler {
    let tries = AtomicU32::new(0);
    Arc::new(move |_| {
        let result = behaviour(tries.fetch_add(1, Ordering::SeqCst) + 1);
        Box::pin(async move { result })
    })
}

fn message() -> Message {
    Message {
        id: Uuid::from_u128(7),
        routing_key: "test.happened".into(),
        payload: Vec::new().into(),
        traceparent: None,
        occurred_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

impl Site {
    async fn publish(&self) -> Result<(), PublishError> {
        self.bus
            .publish(vec![message()])
            .await
            .pop()
            .unwrap_or(Err(PublishError::Unavailable))
    }

    /// Publishes until it is not pending any more; says how often.
    async fn publish_until_settled(&self) -> (u32, Result<(), PublishError>) {
        let mut pending = 0;
        loop {
            match self.publish().await {
                Err(PublishError::Pending) => pending += 1,
                result => return (pending, result),
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What a future answers without waiting for any time to pass: only other tasks run in between.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..1_000 {
        if let std::task::Poll::Ready(answer) = futures::poll!(future.as_mut()) {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn nobody_waits_for_a_message_that_waits_for_its_next_try() {
    for error in [HandleError::retry as fn(&'static str) -> _, HandleError::away] {
        let site = site(
            60_000,
            Arc::new(move |_| Box::pin(async move { Err(error("no")) })),
        )
        .await;
        for _ in 0..100 {
            assert_eq!(at_once(site.publish()).await, Some(Err(PublishError::Pending)));
        }
    }
}

#[tokio::test]
async fn a_message_that_waited_for_its_next_try_is_sent_once_it_is_handled() {
    let handler = tries(|number| {
        if number < 3 {
            Err(HandleError::retry("a fault"))
        } else {
            Ok(())
        }
    });
    let site = site(10, handler).await;
    assert_eq!(site.publish().await, Err(PublishError::Pending));
    assert_eq!(site.publish_until_settled().await.1, Ok(()));
}

#[tokio::test]
async fn a_message_is_sent_only_once_its_dead_letter_is_kept() {
    let site = site(10, tries(|_| Err(HandleError::poison("bad")))).await;
    let (pending, settled) = site.publish_until_settled().await;
    assert_eq!(settled, Ok(()));
    assert!(pending > 0);
    assert_eq!(site.letters.0.load(Ordering::SeqCst), 3);
}

/// Both are under way at once: the event, and its dead letter of earlier that somebody put back.
#[tokio::test]
async fn a_dead_letter_that_is_put_back_is_not_taken_for_the_event_under_way() {
    let handler = tries(|number| {
        if number == 1 {
            Err(HandleError::away("for a minute"))
        } else {
            Ok(())
        }
    });
    let site = site(60_000, handler).await;
    assert_eq!(at_once(site.publish()).await, Some(Err(PublishError::Pending)));
    let redelivered = at_once(site.bus.redeliver(QUEUE.name, message())).await;
    assert_eq!(redelivered, Some(Ok(())));
    assert_eq!(at_once(site.publish()).await, Some(Err(PublishError::Pending)));
}

#[tokio::test]
async fn a_dead_letter_that_dies_again_can_be_put_back_again() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    let handler = |number| {
        TRIES.store(number, Ordering::SeqCst);
        if number == 1 {
            Err(HandleError::poison("bad"))
        } else {
            Ok(())
        }
    };
    let site = site(10, tries(handler)).await;
    let redeliver = || site.bus.redeliver(QUEUE.name, message());
    assert_eq!(redeliver().await, Err(PublishError::Pending));
    while site.letters.0.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(redeliver().await, Ok(()));
    assert_eq!(TRIES.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_next_try() {
    let site = site(60_000, tries(|_| Err(HandleError::away("away")))).await;
    assert_eq!(site.publish().await, Err(PublishError::Pending));
    site.stop.cancel();
    let stopped = at_once(site.running).await;
    assert!(stopped.is_some_and(|ended| ended.is_ok()), "it waits");
}

#[tokio::test]
async fn a_stuck_handler_holds_up_its_publisher_and_a_stop_for_a_bounded_time() {
    let site = site(10, Arc::new(|_| Box::pin(futures::future::pending()))).await;
    let since = Instant::now();
    assert_eq!(site.publish().await, Err(PublishError::Pending));
    assert!(since.elapsed() >= PUBLISH_WAIT_MAX, "{:?}", since.elapsed());
    for _ in 0..10 {
        // Its patience is over for good.
        assert_eq!(at_once(site.publish()).await, Some(Err(PublishError::Pending)));
    }
    site.stop.cancel();
    // The handler never ends, so this returns only because the drain time does.
    assert!(site.running.await.is_ok());
}
