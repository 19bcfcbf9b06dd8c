//! What only a broker can do: be away, go silent, and keep what nobody has asked for yet.

use super::{
    LEFT, RIGHT,
    proxy::{Mode, Proxy},
    site::{Running, Site, Tries, eventually, message},
};
use anyhow::{Context, Result, bail, ensure};
use lapin::{BasicProperties, uri::AMQPUri};
use octroi_kit::{
    bus::{Backend, Config, DeadReason, HandleError, PublishError, Topology, rabbitmq::DeadLetterQueues},
    config::Secret,
};
use octroi_tests::harness::backends::{BusNamespace, RabbitMqServer};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, time::sleep};
use uuid::Uuid;

/// A time-out of 1 s, on a machine that has other things to do.
const IN_TIME: Duration = Duration::from_secs(3);

/// A site whose bus reaches the broker through a proxy, and its time-outs short.
async fn behind_a_proxy() -> Result<(Site, Proxy)> {
    let mut site = Site::rabbitmq().await?;
    let mut uri: AMQPUri = site.config.url.expose().parse().map_err(anyhow::Error::msg)?;
    let proxy = Proxy::before(format!("{}:{}", uri.authority.host, uri.authority.port)).await?;
    uri.authority.host = proxy.address.ip().to_string();
    uri.authority.port = proxy.address.port();
    site.config.url = Secret::new(uri.to_string());
    site.config.publish_timeout_ms = 1_000;
    Ok((site, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_consumer_that_has_never_run() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let publisher = site.start(&[LEFT], Vec::new()).await?;
    let sent = message("test.happened");
    publisher.relay(vec![sent.clone()]).await?;
    publisher.stop().await?;
    let tries = Tries::that_succeed();
    let consumer = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    eventually("it is handled", || tries.ids() == [sent.id]).await?;
    consumer.stop().await
}

/// Two processes of a fleet, each with its own connections, and a network that is cut again and again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_sent_is_lost_when_connections_break() -> Result<()> {
    let (site, proxy) = behind_a_proxy().await?;
    let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
    let consumer = site
        .start(
            &[LEFT, RIGHT],
            vec![(LEFT, left.handler()), (RIGHT, right.handler())],
        )
        .await?;
    let publisher = site.start(&[LEFT, RIGHT], Vec::new()).await?;
    let mut sent = BTreeSet::new();
    for round in 0..60 {
        let batch: Vec<_> = (0..20).map(|_| message("test.happened")).collect();
        sent.extend(batch.iter().map(|message| message.id));
        if round % 5 == 2 {
            proxy.cut();
        }
        publisher.relay(batch).await?;
    }
    let has_all = |tries: &Tries| {
        tries
            .ids()
            .into_iter()
            .collect::<BTreeSet<Uuid>>()
            .is_superset(&sent)
    };
    eventually("every message is handled by both", || {
        has_all(&left) && has_all(&right)
    })
    .await?;
    publisher.stop().await?;
    consumer.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_while_the_broker_is_away_fails_in_time_and_goes_on_when_it_is_back() -> Result<()> {
    for (mode, expected) in [
        (Mode::Refuse, PublishError::Unavailable),
        (Mode::Silent, PublishError::Timeout),
    ] {
        let (site, proxy) = behind_a_proxy().await?;
        let tries = Tries::that_succeed();
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        proxy.set(mode);
        let (sent, asked_at) = (message("test.happened"), Instant::now());
        let results = running.bus.publish(vec![sent.clone()]).await;
        assert_eq!(results, [Err(expected)], "{mode:?}");
        assert!(asked_at.elapsed() < IN_TIME, "{mode:?}: {:?}", asked_at.elapsed());
        // The next ones find no connection and fail no later than a confirmation would.
        let asked_at = Instant::now();
        let batch = (0..50).map(|_| message("test.happened")).collect();
        assert!(
            running.bus.publish(batch).await.iter().all(Result::is_err),
            "{mode:?}"
        );
        assert!(asked_at.elapsed() < IN_TIME, "{mode:?}: {:?}", asked_at.elapsed());
        proxy.set(Mode::Pass);
        running.relay(vec![sent.clone()]).await?;
        eventually("it is handled", || tries.ids().contains(&sent.id)).await?;
        running.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_being_handled_when_its_connection_breaks_comes_again() -> Result<()> {
    let (site, proxy) = behind_a_proxy().await?;
    let tries = Tries::that_succeed().slowly(Duration::from_millis(500));
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let sent = message("test.happened");
    running.relay(vec![sent.clone()]).await?;
    eventually("it has begun", || tries.begun() == 1).await?;
    proxy.cut();
    eventually("it came again", || tries.ids() == [sent.id, sent.id]).await?;
    running.stop().await?;
    // It is settled now: a later consumer does not get it.
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(tries.begun(), 2);
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_survives_that_its_delay_queue_is_deleted() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that(|try_number| match try_number {
        1 => Err(HandleError::retry("away")),
        _ => Ok(()),
    });
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let broker = site.broker()?;
    let name = site.name(&LEFT, ".delay.50ms");
    broker.queue_delete(name.into(), Default::default()).await?;
    let sent = message("test.happened");
    running.relay(vec![sent.clone()]).await?;
    eventually("it came again", || tries.ids() == [sent.id, sent.id]).await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_else_is_a_dead_letter() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let tries = Tries::that_succeed();
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let broker = site.broker()?;
    let (queue, properties) = (site.name(&LEFT, ""), BasicProperties::default());
    broker
        .basic_publish("".into(), queue.into(), Default::default(), b"what?", properties)
        .await?
        .await?;
    let letter = site.dead_letter(&LEFT).await?;
    assert_eq!(letter.reason, DeadReason::Malformed);
    assert_eq!(&letter.message.payload[..], b"what?");
    assert!(tries.seen().is_empty());
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_put_back_and_tried_from_the_beginning() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let mended = Arc::new(AtomicBool::new(false));
    let tries = Tries::that_for({
        let mended = Arc::clone(&mended);
        move |_, _| match mended.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(HandleError::poison("a bug")),
        }
    });
    let queues = [LEFT, RIGHT];
    let other = Tries::that_succeed();
    let running = site
        .start(&queues, vec![(LEFT, tries.handler()), (RIGHT, other.handler())])
        .await?;
    let (first, second) = (message("test.happened"), message("test.happened"));
    running.relay(vec![first.clone(), second.clone()]).await?;
    let topology = Topology::new(queues.iter().map(|queue| (queue.name, queue.routing_keys)))?;
    let letters = DeadLetterQueues::open(&site.config, topology).await?;
    let since = Instant::now();
    let listed = loop {
        let listed = letters.list(LEFT.name, None).await?;
        if listed.len() == 2 {
            break listed;
        }
        anyhow::ensure!(since.elapsed() < Duration::from_secs(20), "{listed:?}");
    };
    assert!(
        listed.iter().all(
            |letter| (letter.reason.as_str(), letter.error.as_str(), letter.attempts)
                == ("poison", "a bug", 1)
        ),
        "{listed:?}"
    );
    assert!(letters.list(RIGHT.name, None).await?.is_empty());

    mended.store(true, Ordering::SeqCst);
    requeue_one(&letters, Some(second.id)).await?;
    eventually("one of them is handled", || tries.begun() == 3).await?;
    // The broker has what was looked at and given back a moment later.
    let since = Instant::now();
    let left = loop {
        let left = letters.list(LEFT.name, None).await?;
        if !left.is_empty() || since.elapsed() > Duration::from_secs(20) {
            break left;
        }
    };
    assert_eq!(
        left.iter().map(|letter| letter.message_id).collect::<Vec<_>>(),
        [Some(first.id)]
    );
    requeue_one(&letters, None).await?;
    eventually("both are handled", || tries.begun() == 4).await?;
    assert!(letters.list(LEFT.name, None).await?.is_empty());
    letters.close().await;
    running.stop().await?;
    let handled: Vec<_> = tries
        .seen()
        .split_off(2)
        .into_iter()
        .map(|(seen, _)| seen)
        .collect();
    assert_eq!(handled, [second, first]);
    // Nobody else heard of it again.
    assert_eq!(other.begun(), 2);
    Ok(())
}

/// Nobody lives to count the tries of a message that takes its consumers down; the broker counts them.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_never_settled_is_a_dead_letter_in_the_end() -> Result<()> {
    let site = Site::rabbitmq().await?;
    let never = Tries::that_succeed();
    site.start(&[LEFT], vec![(LEFT, never.handler())])
        .await?
        .stop()
        .await?;
    let publisher = site.start(&[LEFT], Vec::new()).await?;
    let sent = message("test.happened");
    publisher.relay(vec![sent.clone()]).await?;
    publisher.stop().await?;
    let mut deliveries = 0;
    while site.deliver_and_crash(&LEFT).await? {
        deliveries += 1;
        assert!(deliveries <= 21, "it comes again and again");
    }
    assert_eq!(deliveries, 21);
    let got = site.get_dead(&LEFT).await?;
    let id = got.properties.message_id().as_ref().map(ToString::to_string);
    assert_eq!(
        (id, &got.data[..]),
        (Some(sent.id.to_string()), &sent.payload[..])
    );
    assert!(never.seen().is_empty());
    Ok(())
}

/// The words of the command of the operator's page that says what a service's user may do.
fn permissions_of_the_page() -> Result<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations/deploy.md");
    let text = std::fs::read_to_string(page)?;
    let mut commands = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("rabbitmqctl set_permissions "));
    let command = commands.next().context("the page has no such command")?;
    ensure!(commands.next().is_none(), "the page has more than one");
    // What is quoted has no spaces.
    let words = command.split_ascii_whitespace();
    Ok(words.map(|word| word.trim_matches('\'').to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permissions_that_the_operators_page_names_are_enough_and_needed() -> Result<()> {
    const PASSWORD: &str = "hunter2";
    let dir = tempfile::tempdir()?;
    let broker = RabbitMqServer::start(dir.path()).await?;
    let words = permissions_of_the_page()?;
    let [option, vhost, user, configure, write, read] = &words[..] else {
        bail!("{words:?}");
    };
    broker.control(&["add_user", user, PASSWORD]).await?;
    let allow = async |write: &str| {
        let arguments = ["set_permissions", option, vhost, user, configure, write, read];
        broker.control(&arguments).await
    };
    // Without the default exchange not even a queue can be declared.
    allow(read).await?;
    let url = format!("amqp://{user}:{PASSWORD}@127.0.0.1:{}/%2f", broker.port());
    let site = Site::at(BusNamespace {
        url,
        namespace: "octroi".to_owned(),
    })
    .await?;
    let running = Running::of(site.bus(&[LEFT])?);
    sleep(Duration::from_secs(2)).await;
    assert!(!running.bus.is_ready(), "{write} allows more than is needed");
    running.stop().await?;

    allow(write).await?;
    let tries = Tries::that(|try_number| match try_number {
        1 => Err(HandleError::retry("away")),
        2 => Ok(()),
        _ => Err(HandleError::poison("never")),
    });
    let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
    let (sent, deadly) = (message("test.happened"), message("test.happened"));
    running.relay(vec![sent.clone()]).await?;
    eventually("it came again", || tries.ids() == [sent.id, sent.id]).await?;
    running.relay(vec![deadly.clone()]).await?;
    let letter = site.dead_letter(&LEFT).await?;
    assert_eq!(letter.message.id, deadly.id);
    running.stop().await
}

/// The password must not go over the wire in the clear because nobody noticed that TLS is missing.
#[tokio::test(flavor = "multi_thread")]
async fn amqps_is_never_spoken_in_the_clear() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("amqps://guest:hunter2@{}/%2f", listener.local_addr()?);
    let config = Config {
        backend: Backend::RabbitMq,
        url: Secret::new(url),
        ..Config::default()
    };
    let mut site = Site::rabbitmq().await?;
    site.config = config;
    let running = Running::of(site.bus(&[LEFT])?);
    let (mut client, _) = listener.accept().await?;
    let mut first = [0; 4];
    // Nothing, or the beginning of a TLS handshake.
    if let Ok(read) = tokio::time::timeout(Duration::from_secs(2), client.read(&mut first)).await {
        let _ = read?;
        assert_ne!(&first, b"AMQP");
    }
    running.stop().await
}

/// Puts back one letter, once the broker has it again from whoever looked at it last.
async fn requeue_one(letters: &DeadLetterQueues, id: Option<Uuid>) -> Result<()> {
    let since = Instant::now();
    loop {
        match letters.requeue(LEFT.name, id).await? {
            0 => anyhow::ensure!(since.elapsed() < Duration::from_secs(20), "nothing is put back"),
            1 => return Ok(()),
            more => anyhow::bail!("{more} are put back"),
        }
    }
}
