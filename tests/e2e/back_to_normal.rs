//! Whoever was told of a threshold is told once that the use is normal again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use octroi_proto::{
    common::v1::Period,
    event::Event as _,
    events::v1::BackToNormal,
    quota::v1::{LimitOverride, ReturnQuotaRequest, SetLimitOverrideRequest},
};
use octroi_tests::harness::fleet::{
    APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour, tell,
};
use prost::Message as _;

use crate::{
    asks::{consume, decide, items, upsert_account},
    clock::in_the_sandbox,
};

const ACCOUNT: &str = "acme";
/// 60 an hour, where nothing was bought.
const HOURLY: &str = "api.requests";
/// 25 at a time.
const STORED: &str = "personas.stored";
const QUEUE: &str = "back";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_of_a_threshold_is_told_once_that_the_use_is_normal_again() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split)
        .replicas("quota", 2)
        .set("sandbox", "true")
        .set("quota.thresholds.look_ms", "200");
    tell(sandbox, told_once).await
}

/// A queue of this test alone that has every such event.
async fn listen(fleet: &Fleet) -> Result<(Connection, Channel)> {
    let bus = fleet.bus().context("a fleet of processes has a bus")?;
    let connection = Connection::connect(&bus.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    (channel.queue_declare(QUEUE.into(), exclusive, FieldTable::default())).await?;
    let exchange = format!("{}.feed", bus.namespace);
    channel
        .queue_bind(
            QUEUE.into(),
            exchange.into(),
            BackToNormal::ROUTING_KEY.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok((connection, channel))
}

/// The next event, which comes within a while.
async fn next(channel: &Channel) -> Result<BackToNormal> {
    eventually("it is told that the use is normal", async || {
        let no_ack = BasicGetOptions { no_ack: true };
        let message = channel.basic_get(QUEUE.into(), no_ack).await?;
        let message = message.context("nothing was told")?;
        Ok(BackToNormal::decode(message.data.as_slice())?)
    })
    .await
}

/// Takes so much, and waits until a threshold was told of it.
async fn reach(fleet: &Fleet, app: &Clients, request_id: &str, (metric, amount): (&str, i64)) -> Result<()> {
    let before = standing(fleet).await?;
    let taken = decide(app, consume(ACCOUNT, request_id, &[(metric, amount)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    eventually("a threshold stands", async || {
        let now = standing(fleet).await?;
        ensure!(now > before, "{now} thresholds stand");
        Ok(())
    })
    .await
}

/// How many thresholds people were told of.
async fn standing(fleet: &Fleet) -> Result<i64> {
    use sqlx::Connection as _;
    let mut session = sqlx::PgConnection::connect(fleet.database().superuser_url()).await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM quota.crossed_threshold WHERE notified")
        .fetch_one(&mut session)
        .await?;
    session.close().await?;
    Ok(count)
}

async fn told_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let (connection, channel) = listen(fleet).await?;

    reach(fleet, &app, "r-1", (HOURLY, 50)).await?;
    let raised = SetLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: HOURLY.to_owned(),
        period: Period::Hour.into(),
        r#override: Some(LimitOverride {
            amount: 100,
            ..LimitOverride::default()
        }),
    };
    operator.quota.clone().set_limit_override(raised).await?;
    let back = next(&channel).await?;
    ensure!(
        (back.metric.as_str(), back.limit, back.used, back.window_closed) == (HOURLY, Some(100), 50, false),
        "{back:?}"
    );

    reach(fleet, &app, "r-2", (STORED, 24)).await?;
    let returned = ReturnQuotaRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(&[(STORED, 10)]),
        request_id: "b-1".to_owned(),
    };
    app.quota.clone().return_quota(returned).await?;
    let back = next(&channel).await?;
    ensure!(
        (back.metric.as_str(), back.limit, back.used, &back.window_end_time) == (STORED, Some(25), 14, &None),
        "{back:?}"
    );

    // What is reached after that is told of anew, and ends with its window.
    reach(fleet, &app, "r-3", (HOURLY, 40)).await?;
    in_the_sandbox(fleet, &["move", "1h"]).await?;
    let back = next(&channel).await?;
    ensure!(
        (back.metric.as_str(), back.used, back.window_closed) == (HOURLY, 0, true),
        "{back:?}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let more = channel
        .basic_get(QUEUE.into(), BasicGetOptions { no_ack: true })
        .await?;
    ensure!(more.is_none(), "told twice");
    connection.close(200, "done".into()).await?;
    Ok(())
}
