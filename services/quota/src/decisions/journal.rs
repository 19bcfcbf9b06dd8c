//! Writes decisions down, some time after they were made.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use octroi_kit::db::{Db, Scope};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::explained::{Record, WRITTEN},
    store,
};

/// The most of one transaction.
const AT_ONCE: usize = 500;
/// How long is waited for more, so that those that come together share a transaction.
const GATHER: Duration = Duration::from_millis(50);
/// How often a transaction is tried.
const TRIES: u32 = 3;
/// How long between tries.
const RETRY: Duration = Duration::from_millis(500);
/// How often is looked for what was kept for long enough.
const CLEAN_EVERY: Duration = Duration::from_secs(60);
/// The most that one statement deletes.
const DELETED_AT_ONCE: i64 = 1_000;

/// A queue of what is to be written down. Where it is full, what comes is not written down, and counted.
#[derive(Debug)]
pub(super) struct Journal {
    queue: mpsc::Sender<Arc<Record>>,
    waiting: Mutex<Option<mpsc::Receiver<Arc<Record>>>>,
}

impl Journal {
    pub(super) fn new(queue_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(queue_max);
        Self {
            queue,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// Has it written down soon. Never waits.
    pub(super) fn write(&self, record: Arc<Record>) {
        if self.queue.try_send(record).is_err() {
            count_lost(1);
        }
    }

    /// Writes what comes, and cleans up, until `stop`; what waits then is written first.
    pub(super) async fn run(&self, db: &Db, stop: CancellationToken) {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = taken else { return };
        // Before anything is written, which the first tick of an interval does not promise.
        clean(db).await;
        let mut cleaning = tokio::time::interval_at(tokio::time::Instant::now() + CLEAN_EVERY, CLEAN_EVERY);
        cleaning.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut some = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = cleaning.tick() => clean(db).await,
                count = waiting.recv_many(&mut some, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    if count < AT_ONCE {
                        tokio::time::sleep(GATHER).await;
                        let more = AT_ONCE - count;
                        while some.len() < count + more && let Ok(one) = waiting.try_recv() {
                            some.push(one);
                        }
                    }
                    insert(db, std::mem::take(&mut some), &stop).await;
                }
            }
        }
        waiting.close();
        while waiting.recv_many(&mut some, AT_ONCE).await > 0 {
            if !insert(db, std::mem::take(&mut some), &stop).await {
                // The process does not wait for a database that is away.
                return count_lost(waiting.len());
            }
        }
    }
}

fn count_lost(count: usize) {
    metrics::counter!("octroi_quota_explanations_lost_total")
        .increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Writes them in one transaction, and answers whether that was done. What cannot be written after some tries is
/// counted; once the process stops there is one try.
async fn insert(db: &Db, records: Vec<Arc<Record>>, stop: &CancellationToken) -> bool {
    for number in 1..=TRIES {
        let some = records.clone();
        let written = db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::upsert_decisions(connection, &some).await })
            })
            .await;
        match written {
            Ok(()) => return true,
            Err(error) => {
                tracing::debug!(error = %error, try_number = number, "decisions are not written down")
            }
        }
        if stop.is_cancelled() {
            break;
        }
        tokio::time::sleep(RETRY).await;
    }
    count_lost(records.len());
    false
}

/// Deletes what was kept for long enough, some at a time, so that nobody waits for a long statement.
async fn clean(db: &Db) {
    let before = db.clock().now() - WRITTEN;
    loop {
        let deleted = db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::delete_decisions(connection, before, DELETED_AT_ONCE))
            })
            .await;
        match deleted {
            Ok(count) if count.cast_signed() >= DELETED_AT_ONCE => {}
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(error = %error, "old decisions are deleted later");
                return;
            }
        }
    }
}
