//! A message has its effect once, and what follows the effect is done in the end.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};
use octroi_kit::{
    bus::{Message, Queue},
    config::Secret,
    db::{DatabaseConfig, DatabaseError, Db},
    inbox::{self, Turn},
    outbox::Wake,
};
use octroi_proto::{event::Event as _, events::v1::UsageRecorded};
use octroi_tests::harness::backends;
use sqlx::PgConnection;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_effect_is_done_again_and_the_effect_is_not() -> Result<()> {
    let database = backends::postgres()
        .await
        .create_migrated(&[("quota", &octroi_quota::MIGRATOR)])
        .await?;
    let config = DatabaseConfig {
        url: Secret::new(database.url("quota")),
        connections_max: 2,
    };
    let db = Db::connect(&config, "quota", false).await?;
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
