//! Work that a test left behind: events that were not published, messages that nobody took, dead letters.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use octroi_proto::event::QUEUES;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::wait::within;
use crate::harness::backends::{BusNamespace, SERVICES};

/// How long a fleet may take to finish what a test started. What the relay of a killed process had claimed is
/// left alone for 15 s, and a message whose database was busy is tried again after 1 s and every 5 s then.
const SETTLE_MAX: Duration = Duration::from_secs(45);
/// How long cleaning up may take; what is left goes with the server.
const REMOVE_MAX: Duration = Duration::from_secs(5);

/// Nothing is left, now or in a while.
///
/// # Errors
/// What is left.
pub(super) fn none_after_a_while(superuser_url: &str, bus: Option<&BusNamespace>) -> Result<()> {
    on_a_thread(|| {
        within(SETTLE_MAX, "all work was done", async || {
            none(superuser_url, bus).await
        })
    })
}

/// Takes back what the test's fleet declared at the broker.
pub(super) fn remove_queues(bus: &BusNamespace) {
    // The broker forgets them by itself after a while.
    drop(on_a_thread(|| async {
        tokio::time::timeout(REMOVE_MAX, remove(bus)).await?
    }));
}

/// Runs on a thread and a runtime of its own, as the test's may be on its way out.
fn on_a_thread<W: Future<Output = Result<()>>>(work: impl FnOnce() -> W + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work())
        });
        working
            .join()
            .unwrap_or_else(|_| bail!("looking for it panicked"))
    })
}

async fn none(superuser_url: &str, bus: Option<&BusNamespace>) -> Result<()> {
    let mut session = PgConnection::connect(superuser_url).await?;
    for service in SERVICES {
        for table in ["outbox", "dead_letter"] {
            let count =
                format!("SELECT count(*), min((to_jsonb({table}) - 'payload')::text) FROM {service}.{table}");
            let (rows, first): (i64, Option<String>) = sqlx::query_as(AssertSqlSafe(count))
                .fetch_one(&mut session)
                .await?;
            ensure!(
                rows == 0,
                "{rows} rows in {service}.{table}, such as {}",
                first.unwrap_or_default()
            );
        }
    }
    session.close().await?;
    match bus {
        Some(bus) => no_messages(bus).await,
        None => Ok(()),
    }
}

async fn no_messages(bus: &BusNamespace) -> Result<()> {
    let connection = Connection::connect(&bus.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    for (queue, _) in QUEUES {
        for name in [
            format!("{}.{queue}", bus.namespace),
            format!("{}.{queue}.dead", bus.namespace),
        ] {
            let declared = channel
                .queue_declare(name.as_str().into(), passive, FieldTable::default())
                .await;
            let waiting = declared
                .with_context(|| format!("there is no queue {name}"))?
                .message_count();
            ensure!(waiting == 0, "{waiting} messages in {name}");
        }
    }
    connection.close(200, "seen".into()).await?;
    Ok(())
}

async fn remove(bus: &BusNamespace) -> Result<()> {
    let connection = Connection::connect(&bus.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for (queue, _) in QUEUES {
        for name in [
            format!("{}.{queue}", bus.namespace),
            format!("{}.{queue}.dead", bus.namespace),
        ] {
            channel
                .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
                .await?;
        }
    }
    for exchange in ["feed", "events"] {
        let name = format!("{}.{exchange}", bus.namespace);
        channel
            .exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
