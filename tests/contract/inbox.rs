//! A message has its effect once, and what follows the effect is done in the end.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};
use octroi_kit::{
    bus::{HandleError, Message, Queue},
    config::Secret,
    db::{DatabaseConfig, DatabaseError, Db},
    inbox::{self, Turn},
    outbox::Wake,
};
use octroi_proto::{event::Event as _, events::v1::UsageRecorded};
use octroi_tests::harness::backends::{self, TestDatabase};
use prost::Message as _;
use sqlx::PgConnection;
use uuid::Uuid;

/// Quota's schema in a database of its own, which lasts as long as it is held.
async fn connected() -> Result<(TestDatabase, Db)> {
    let database = backends::postgres()
        .await
        .create_migrated(&[("quota", &octroi_quota::MIGRATOR)])
        .await?;
    let config = DatabaseConfig {
        url: Secret::new(database.url("quota")),
        connections_max: 4,
    };
    let db = Db::connect(&config, "quota", false).await?;
    Ok((database, db))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_effect_is_done_again_and_the_effect_is_not() -> Result<()> {
    let (_database, db) = connected().await?;
    let effects: Arc<AtomicU32> = Arc::default();
    let told: Arc<AtomicU32> = Arc::default();
    let (effect, tell) = (effects.clone(), told.clone());
    let consumer = inbox::prepared_consumer(
        &db,
        Queue::new("quota.usage", &["usage.recorded"]),
        &Wake::default(),
        async |_: UsageRecorded| Ok::<_, DatabaseError>(()),
        move |_: &mut PgConnection, (), turn| {
            let effect = effect.clone();
            Box::pin(async move {
                if turn == Turn::First {
                    effect.fetch_add(1, Ordering::SeqCst);
                }
                Ok(turn)
            })
        },
        move |_: Turn| {
            let tell = tell.clone();
            async move {
                // Whoever is told is away the first time.
                match tell.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(DatabaseError::Aborted),
                    _ => Ok(()),
                }
            }
        },
    );
    let message = Message {
        id: Uuid::new_v4(),
        routing_key: UsageRecorded::ROUTING_KEY.to_owned(),
        // A commit without events.
        payload: Vec::new().into(),
        traceparent: None,
        occurred_at: "2026-03-01T00:00:00Z".parse()?,
    };
    let first = (consumer.handler)(message.clone()).await;
    ensure!(first.is_err(), "nobody was told, and nobody hears of it");
    let second = (consumer.handler)(message).await;
    ensure!(second.is_ok(), "{second:?}");
    let counts = (effects.load(Ordering::SeqCst), told.load(Ordering::SeqCst));
    ensure!(counts == (1, 2), "{counts:?}");
    Ok(())
}

/// What consumers of messages that wait together did: transactions that ended well, and the commits whose turn was the first.
#[derive(Debug, Default)]
struct Done {
    prepared: AtomicU32,
    transactions: AtomicU32,
    first: Mutex<Vec<u64>>,
}

/// A consumer whose first transaction waits until `messages` are read, and which refuses every transaction with commit 13.
fn gathered(db: &Db, done: &Arc<Done>, messages: u32) -> inbox::Consumer {
    let (prepare, handle, after) = (done.clone(), done.clone(), done.clone());
    inbox::gathered_consumer(
        db,
        Queue::new("quota.usage", &["usage.recorded"]),
        &Wake::default(),
        (
            move |event: UsageRecorded| {
                let done = prepare.clone();
                async move {
                    done.prepared.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, DatabaseError>(event.ledger_transaction)
                }
            },
            |_| 1,
        ),
        move |_: &mut PgConnection, commits: Vec<(Arc<u64>, Turn)>| {
            let done = handle.clone();
            Box::pin(async move {
                while done.prepared.load(Ordering::SeqCst) < messages {
                    tokio::task::yield_now().await;
                }
                let first = commits.iter().filter(|(_, turn)| *turn == Turn::First);
                let first: Vec<u64> = first.map(|(commit, _)| **commit).collect();
                if first.contains(&13) {
                    return Err(DatabaseError::Corrupt { what: "commit 13" });
                }
                Ok(first)
            })
        },
        move |first: Vec<u64>| {
            let done = after.clone();
            async move {
                done.transactions.fetch_add(1, Ordering::SeqCst);
                done.first
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(first);
                Ok(())
            }
        },
    )
}

fn commit(number: u64) -> Result<Message> {
    let event = UsageRecorded {
        ledger_transaction: number,
        ..UsageRecorded::default()
    };
    Ok(Message {
        id: Uuid::from_u128(number.into()),
        routing_key: UsageRecorded::ROUTING_KEY.to_owned(),
        payload: event.encode_to_vec().into(),
        traceparent: None,
        occurred_at: "2026-03-01T00:00:00Z".parse()?,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_have_their_effect_together_and_one_that_cannot_harms_no_other() -> Result<()> {
    let (_database, db) = connected().await?;
    let done: Arc<Done> = Arc::default();
    let consumer = gathered(&db, &done, 24);
    let numbers: Vec<u64> = (1..=24).collect();
    let messages = numbers.iter().map(|number| commit(*number));
    let handled = messages
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .map(|message| tokio::spawn((consumer.handler)(message)));
    let handled = futures::future::try_join_all(handled).await?;
    for (number, handled) in numbers.iter().zip(handled) {
        match (number, handled) {
            (13, Err(HandleError::Retry(_))) | (_, Ok(())) => {}
            (number, handled) => anyhow::bail!("{number}: {handled:?}"),
        }
    }
    let mut first = std::mem::take(&mut *done.first.lock().unwrap_or_else(PoisonError::into_inner));
    first.sort_unstable();
    let expected: Vec<u64> = numbers.into_iter().filter(|number| *number != 13).collect();
    ensure!(first == expected, "{first:?}");

    // What comes again has no effect again, and whoever is told hears of it.
    (consumer.handler)(commit(1)?).await?;
    ensure!(
        done.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    );
    // Of commit 13's transaction each was tried alone; the rest had its effect together.
    let transactions = done.transactions.load(Ordering::SeqCst);
    ensure!(transactions < 24, "{transactions} transactions");
    Ok(())
}
