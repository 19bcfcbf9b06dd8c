//! Which queues have a message, whatever an operator does to them, and who hears of it outside of the fleet.

use super::{
    LEFT, RIGHT,
    site::{Running, Site, Tries, eventually, message},
};
use anyhow::{Result, ensure};
use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use octroi_kit::bus::{Message, PublishError};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Longest wait for what the broker has somewhere.
const PATIENCE: Duration = Duration::from_secs(20);

fn batch() -> (Vec<Message>, BTreeSet<Uuid>) {
    let messages: Vec<_> = (0..20).map(|_| message("test.happened")).collect();
    let ids = messages.iter().map(|message| message.id).collect();
    (messages, ids)
}

fn seen(tries: &Tries) -> BTreeSet<Uuid> {
    tries.ids().into_iter().collect()
}

/// The consumer is cancelled, and begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_declared_again_by_its_consumer() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that_succeed();
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    site.delete(&LEFT).await?;
    let sent = message("test.happened");
    running.relay(vec![sent.clone()]).await?;
    eventually("it is handled", || tries.ids() == [sent.id]).await?;
    running.stop().await
}

/// The consumer may be away for long; nothing waits for it elsewhere than in its queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_declared_again_by_who_publishes() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let publisher = site.start(&[LEFT], Vec::new()).await?;
    site.delete(&LEFT).await?;
    let (messages, ids) = batch();
    publisher.relay(messages).await?;
    publisher.stop().await?;
    let tries = Tries::that_succeed();
    let consumer = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    eventually("all are handled", || seen(&tries) == ids).await?;
    consumer.stop().await
}

/// The broker would confirm what the other queue has.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_queues_misses_nothing_of_what_is_published_while_it_is_away() -> Result<()> {
    for away in [LEFT, RIGHT] {
        let site = Site::rabbitmq().await?;
        let publisher = site.start(&[LEFT, RIGHT], Vec::new()).await?;
        site.delete(&away).await?;
        let (messages, ids) = batch();
        let results = publisher.bus.publish(messages.clone()).await;
        let missing = Err(PublishError::Unroutable {
            queue: site.name(&away, ""),
        });
        assert_eq!(results, vec![missing; messages.len()]);
        publisher.relay(messages).await?;
        publisher.stop().await?;
        let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
        let handlers = vec![(LEFT, left.handler()), (RIGHT, right.handler())];
        let consumer = site.start(&[LEFT, RIGHT], handlers).await?;
        eventually("both have all", || seen(&left) == ids && seen(&right) == ids).await?;
        consumer.stop().await?;
    }
    Ok(())
}

/// As an operator might, who takes a queue from all exchanges that there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_unbound_has_every_message() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
    let handlers = vec![(LEFT, left.handler()), (RIGHT, right.handler())];
    let running = site.start(&[LEFT, RIGHT], handlers).await?;
    for key in RIGHT.routing_keys {
        for exchange in ["events", "feed"] {
            let (queue, exchange) = (site.name(&RIGHT, ""), site.exchange(exchange));
            site.broker()?
                .queue_unbind(
                    queue.into(),
                    exchange.into(),
                    (*key).into(),
                    FieldTable::default(),
                )
                .await?;
        }
    }
    let (messages, ids) = batch();
    let results = running.bus.publish(messages.clone()).await;
    assert_eq!(results, vec![Ok(()); messages.len()]);
    eventually("both have all", || seen(&left) == ids && seen(&right) == ids).await?;
    running.stop().await?;
    // Each once, although there is more than one exchange.
    assert_eq!((left.begun(), right.begun()), (ids.len(), ids.len()));
    Ok(())
}

/// A queue of somebody who is not of the fleet, with all events that there are.
async fn outsider(site: &Site, messages_max: Option<i64>) -> Result<String> {
    let (name, broker) = (format!("outside-{}", Uuid::new_v4()), site.broker()?);
    let mut arguments = FieldTable::default();
    if let Some(max) = messages_max {
        let refuse = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(max));
        arguments.insert("x-overflow".into(), refuse);
    }
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    broker
        .queue_declare(name.as_str().into(), exclusive, arguments)
        .await?;
    let (options, feed) = (QueueBindOptions::default(), site.exchange("feed"));
    broker
        .queue_bind(
            name.as_str().into(),
            feed.into(),
            "#".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok(name)
}

/// The routing key and id of what comes next to a queue.
async fn next(site: &Site, queue: &str) -> Result<(String, String)> {
    let since = Instant::now();
    loop {
        let no_ack = BasicGetOptions { no_ack: true };
        if let Some(got) = site.broker()?.basic_get(queue.into(), no_ack).await? {
            let id = got.properties.message_id().as_ref().map(ToString::to_string);
            return Ok((got.routing_key.to_string(), id.unwrap_or_default()));
        }
        ensure!(since.elapsed() < PATIENCE, "nothing comes to {queue}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_outside_of_the_fleet_hears_every_event() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that_succeed();
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let queue = outsider(&site, None).await?;
    for key in ["test.happened", "test.unheard"] {
        let sent = message(key);
        let (key, id) = (key.to_owned(), sent.id.to_string());
        running.relay(vec![sent]).await?;
        assert_eq!(next(&site, &queue).await?, (key, id));
    }
    eventually("the fleet has what is its own", || tries.begun() == 1).await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_outside_of_the_fleet_holds_nobody_up() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that_succeed();
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let queue = outsider(&site, Some(1)).await?;
    let (messages, ids) = batch();
    let results = running.bus.publish(messages.clone()).await;
    assert_eq!(results, vec![Ok(()); messages.len()]);
    eventually("the fleet has all", || seen(&tries) == ids).await?;
    // It has what it could take.
    let (key, _) = next(&site, &queue).await?;
    assert_eq!(key, "test.happened");
    running.stop().await
}

/// Somebody deletes the exchange: it is there again, and the fleet misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_declared_again() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that_succeed();
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let feed = site.exchange("feed");
    site.broker()?
        .exchange_delete(feed.into(), Default::default())
        .await?;
    let (messages, ids) = batch();
    running.relay(messages).await?;
    eventually("the fleet has all", || seen(&tries) == ids).await?;
    let queue = outsider(&site, None).await?;
    let sent = message("test.happened");
    let id = sent.id.to_string();
    running.relay(vec![sent]).await?;
    assert_eq!(next(&site, &queue).await?, ("test.happened".to_owned(), id));
    running.stop().await
}

/// While versions change: it publishes to an exchange, and counts on bindings that others keep.
#[tokio::test(flavor = "multi_thread")]
async fn every_queue_has_what_the_version_before_publishes() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
    let handlers = vec![(LEFT, left.handler()), (RIGHT, right.handler())];
    let running = site.start(&[LEFT, RIGHT], handlers).await?;
    published_before(&site, &running, (&left, &right)).await?;
    // What is declared again is bound again, and only then consumed from.
    site.delete(&RIGHT).await?;
    let stopped = message("test.stopped");
    running.relay(vec![stopped.clone()]).await?;
    eventually("it is there again", || right.ids().contains(&stopped.id)).await?;
    published_before(&site, &running, (&left, &right)).await?;
    running.stop().await
}

/// Publishes as the version before does; both have the message, exactly as a message of this version.
async fn published_before(site: &Site, running: &Running, (left, right): (&Tries, &Tries)) -> Result<()> {
    ensure!(running.bus.is_ready());
    let sent = message("test.happened");
    let mut headers = FieldTable::default();
    let text = |text: String| AMQPValue::LongString(text.into());
    headers.insert("octroi-occurred-at".into(), text(sent.occurred_at.to_string()));
    let traceparent = sent.traceparent.clone().unwrap_or_default();
    headers.insert("traceparent".into(), text(traceparent));
    let properties = BasicProperties::default()
        .with_message_id(sent.id.to_string().into())
        .with_type(sent.routing_key.as_str().into())
        .with_delivery_mode(2)
        .with_headers(headers);
    let (exchange, key) = (site.exchange("events"), sent.routing_key.as_str());
    let options = BasicPublishOptions::default();
    site.broker()?
        .basic_publish(exchange.into(), key.into(), options, &sent.payload, properties)
        .await?
        .await?;
    let has = |tries: &Tries| tries.seen().iter().any(|(seen, _)| *seen == sent);
    eventually("both have it", || has(left) && has(right)).await
}
