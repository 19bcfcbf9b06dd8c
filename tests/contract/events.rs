//! What a service's schema keeps of events: those that leave, marks of those that arrived, dead letters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use octroi_kit::{
    bus::{self, Bus, DeadReason, Queue, Topology},
    config::Secret,
    db::{DatabaseConfig, DatabaseError, Db, Scope},
    dead_letter::{self, DeadLetterTables},
    inbox, outbox,
};
use octroi_proto::events::v1::{AccountClosed, UsageRecorded};
use octroi_tests::harness::backends::{self, TestDatabase};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

const ROLLUP: Queue = Queue::new("usage.rollup", &["usage.recorded"]);
/// Nobody subscribes to it, so what it listens to is unroutable.
const ABSENT: Queue = Queue::new("usage.absent", &["account.closed"]);

/// The schema of one service, and a bus within this process.
struct Site {
    _database: TestDatabase,
    db: Db,
    bus: Bus,
    stop: CancellationToken,
}

impl Site {
    async fn new() -> Result<Self> {
        let postgres = backends::postgres().await;
        let database = postgres
            .create_migrated(&[("usage", &octroi_usage::MIGRATOR)])
            .await?;
        let config = DatabaseConfig {
            url: Secret::new(database.url("usage")),
            connections_max: 4,
        };
        let db = Db::connect(&config, "usage", false).await?;
        let letters = Arc::new(DeadLetterTables::default());
        letters.add("usage", db.clone());
        let queues = [ROLLUP, ABSENT];
        let topology = Topology::new(queues.map(|queue| (queue.name, queue.routing_keys)))?;
        let config = bus::Config {
            retry_delays_ms: vec![20],
            ..bus::Config::default()
        };
        let bus = Bus::new(&config, topology, letters)?;
        Ok(Self {
            _database: database,
            db,
            bus,
            stop: CancellationToken::new(),
        })
    }

    /// Runs the bus, the relay and what brings dead letters back, as a process does.
    fn run(&self, consumer: inbox::Consumer, wake: &outbox::Wake) -> Result<()> {
        self.bus.subscribe(consumer.queue, consumer.handler)?;
        let (bus, stop) = (self.bus.clone(), self.stop.clone());
        tokio::spawn(async move { bus.run(stop).await });
        let (db, bus, stop) = (self.db.clone(), self.bus.clone(), self.stop.clone());
        tokio::spawn(outbox::relay(db, bus, wake.clone(), stop));
        let (db, bus, stop) = (self.db.clone(), self.bus.clone(), self.stop.clone());
        tokio::spawn(dead_letter::requeue_asked(db, bus, stop));
        Ok(())
    }

    async fn count(&self, statement: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(statement).fetch_one(self.db.pool()).await?)
    }

    async fn until(&self, statement: &'static str, expected: i64) -> Result<()> {
        let since = Instant::now();
        while self.count(statement).await? != expected {
            ensure!(since.elapsed() < PATIENCE, "{statement} is never {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A consumer that counts what it did, and fails while `broken`.
fn consumer(
    site: &Site,
    wake: &outbox::Wake,
    done: &Arc<AtomicUsize>,
    broken: &Arc<AtomicBool>,
) -> inbox::Consumer {
    let (done, broken) = (Arc::clone(done), Arc::clone(broken));
    inbox::consumer(
        &site.db,
        ROLLUP,
        wake,
        move |_: &mut PgConnection, _: UsageRecorded| {
            let (done, broken) = (Arc::clone(&done), Arc::clone(&broken));
            Box::pin(async move {
                if broken.load(Ordering::SeqCst) {
                    return Err(DatabaseError::Corrupt { what: "noun" });
                }
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_asked_for_is_handled_and_gone() -> Result<()> {
    const LETTERS: &str = "SELECT count(*) FROM dead_letter";
    let site = Site::new().await?;
    let wake = outbox::Wake::default();
    let (done, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    site.run(consumer(&site, &wake, &done, &broken), &wake)?;
    let now = site.db.clock().now();
    site.db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move {
                outbox::enqueue(connection, &UsageRecorded::default(), now).await?;
                outbox::enqueue(connection, &UsageRecorded::default(), now).await
            })
        })
        .await?;
    wake.wake();
    site.until(LETTERS, 2).await?;
    let listed = dead_letter::list(&site.db, None).await?;
    assert!(
        listed.iter().all(|letter| letter.queue == ROLLUP.name
            && letter.reason == DeadReason::DeliveryLimit.as_str()
            && letter.attempts == ROLLUP.delivery_limit
            && letter.error.contains("a stored noun cannot be read")),
        "{listed:?}"
    );
    let one = listed[0].message_id;
    assert_eq!(dead_letter::list(&site.db, one).await?, [listed[0].clone()]);

    // Asked for too early: it dies again, and stays with its reason.
    assert_eq!(dead_letter::ask_requeue(&site.db, one).await?, 1);
    site.until("SELECT count(*) FROM dead_letter WHERE reason = 'requeued'", 0)
        .await?;
    assert_eq!(dead_letter::list(&site.db, None).await?.len(), 2);
    assert_eq!(done.load(Ordering::SeqCst), 0);

    broken.store(false, Ordering::SeqCst);
    assert_eq!(dead_letter::ask_requeue(&site.db, one).await?, 1);
    site.until(LETTERS, 1).await?;
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(dead_letter::ask_requeue(&site.db, Some(Uuid::nil())).await?, 0);
    assert_eq!(dead_letter::ask_requeue(&site.db, None).await?, 1);
    site.until(LETTERS, 0).await?;
    assert_eq!(done.load(Ordering::SeqCst), 2);
    Ok(())
}

/// More rows than a batch has, at the head, that no queue takes.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_refused_do_not_hold_up_those_behind_them() -> Result<()> {
    const REFUSED: i64 = 200;
    let site = Site::new().await?;
    let wake = outbox::Wake::default();
    let (done, broken) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let now = site.db.clock().now();
    site.db
        .transaction(Scope::AllAccounts, move |connection| {
            Box::pin(async move {
                for _ in 0..REFUSED {
                    outbox::enqueue(connection, &AccountClosed::default(), now).await?;
                }
                outbox::enqueue(connection, &UsageRecorded::default(), now).await
            })
        })
        .await?;
    site.run(consumer(&site, &wake, &done, &broken), &wake)?;
    site.until(
        "SELECT count(*) FROM outbox WHERE routing_key = 'usage.recorded'",
        0,
    )
    .await?;
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(site.count("SELECT count(*) FROM outbox").await?, REFUSED);
    assert_eq!(
        site.count("SELECT count(*) FROM outbox WHERE claimed_until IS NULL")
            .await?,
        0
    );
    Ok(())
}

/// More marks than one statement reads.
#[tokio::test(flavor = "multi_thread")]
async fn old_marks_are_deleted_and_young_ones_are_kept() -> Result<()> {
    let site = Site::new().await?;
    sqlx::query(
        "INSERT INTO inbox (consumer, message_id, taken_at)
         SELECT 'usage.rollup', gen_random_uuid(), now() - make_interval(days => n % 61) FROM generate_series(0, 30499) AS n",
    )
    .execute(site.db.pool())
    .await?;
    let pruned = inbox::prune(&site.db, inbox::MARKS_KEPT).await?;
    // Of 61 days the first 30 are younger, and the 31st is just as old, or older by now.
    assert_eq!(pruned, 500 * 31);
    assert_eq!(site.count("SELECT count(*) FROM inbox").await?, 500 * 30);
    let oldest = "SELECT count(*) FROM inbox WHERE taken_at < now() - interval '30 days'";
    assert_eq!(site.count(oldest).await?, 0);
    assert_eq!(inbox::prune(&site.db, inbox::MARKS_KEPT).await?, 0);
    Ok(())
}
