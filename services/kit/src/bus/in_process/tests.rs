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
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_a_message_that_waits_for_its_next_try() {
    let handler = tries(|number| {
        if number < 3 {
            Err(HandleError::retry("away"))
        } else {
            Ok(())
        }
    });
    let site = site(1_000, handler).await;
    let since = Instant::now();
    for _ in 0..100 {
        assert_eq!(site.publish().await, Err(PublishError::Pending));
    }
    assert!(
        since.elapsed() < Duration::from_millis(900),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(site.publish_until_settled().await.1, Ok(()));
    assert!(
        since.elapsed() >= Duration::from_millis(2_000),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test]
async fn a_message_is_sent_only_once_its_dead_letter_is_kept() {
    let site = site(20, tries(|_| Err(HandleError::poison("bad")))).await;
    let (pending, settled) = site.publish_until_settled().await;
    assert_eq!(settled, Ok(()));
    assert!(pending > 0);
    assert_eq!(site.letters.0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_next_try() {
    let site = site(60_000, tries(|_| Err(HandleError::retry("away")))).await;
    assert_eq!(site.publish().await, Err(PublishError::Pending));
    let since = Instant::now();
    site.stop.cancel();
    assert!(site.running.await.is_ok());
    assert!(
        since.elapsed() < Duration::from_millis(50),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test]
async fn a_stuck_handler_holds_up_its_publisher_and_a_stop_for_a_bounded_time() {
    let site = site(20, Arc::new(|_| Box::pin(futures::future::pending()))).await;
    let since = Instant::now();
    for _ in 0..10 {
        assert_eq!(site.publish().await, Err(PublishError::Pending));
    }
    let waited = since.elapsed();
    assert!(
        (PUBLISH_WAIT_MAX..PUBLISH_WAIT_MAX * 2).contains(&waited),
        "{waited:?}"
    );
    let since = Instant::now();
    site.stop.cancel();
    assert!(site.running.await.is_ok());
    assert!(
        since.elapsed() < Duration::from_millis(500),
        "{:?}",
        since.elapsed()
    );
}
