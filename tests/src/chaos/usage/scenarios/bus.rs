//! A broker that closes connections, dies, or has lost what an operator took from it; and messages that nobody can
//! handle.

use std::time::Duration;

use anyhow::{Result, ensure};
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::{AMQPValue, FieldTable},
};
use nix::sys::signal::Signal;
use octroi_proto::{
    event::Event as _,
    events::v1::{RecordedUsage, UsageRecorded},
};
use prost::Message as _;
use rand::{Rng as _, rngs::StdRng};

use super::{
    super::{
        books::Broker,
        load::Load,
        run::{Place, Scene},
    },
    pause,
};
use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::{
    backends::RabbitMqServer,
    fleet::{eventually, now},
};

pub(super) use super::super::rules::QUEUES;

/// How long what is on its way to the broker may take, generously.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// The broker closes every connection, some times.
pub(super) async fn connections_closed(scene: &mut Scene<'_>) -> Result<()> {
    for percent in [15, 40, 70] {
        scene.load.reaches(percent).await;
        close_connections(&scene.site.rabbitmq).await?;
    }
    scene.load.reaches(100).await;
    Ok(())
}

pub(super) async fn close_connections(rabbitmq: &RabbitMqServer) -> Result<()> {
    rabbitmq.control(&["close_all_connections", "chaos"]).await?;
    Ok(())
}

/// The broker is killed and comes back with what it confirmed.
pub(super) async fn killed(scene: &mut Scene<'_>) -> Result<()> {
    scene.load.reaches(30).await;
    kill(&mut scene.site.rabbitmq, &mut scene.random).await?;
    scene.load.reaches(100).await;
    Ok(())
}

pub(super) async fn kill(rabbitmq: &mut RabbitMqServer, random: &mut StdRng) -> Result<()> {
    rabbitmq.signal(Signal::SIGKILL)?;
    rabbitmq.ended().await?;
    pause(random, 300..1_500).await;
    rabbitmq.restart().await
}

/// No queue is bound to anything, until somebody binds them again: those who publish do not count on it.
pub(super) async fn all_unbound(scene: &mut Scene<'_>) -> Result<()> {
    scene.load.reaches(25).await;
    let lasts = Duration::from_millis(scene.random.random_range(500..1_500));
    unbind(&scene.place, &scene.site.doors.bus, &QUEUES, lasts).await?;
    scene.load.reaches(100).await;
    Ok(())
}

/// One queue is not bound to anything, until somebody binds it again. What others have is confirmed meanwhile.
pub(super) async fn one_unbound(scene: &mut Scene<'_>) -> Result<()> {
    scene.load.reaches(25).await;
    let lasts = Duration::from_millis(scene.random.random_range(500..1_500));
    let queue = QUEUES.get(scene.random.random_range(0..QUEUES.len()));
    unbind(&scene.place, &scene.site.doors.bus, queue.as_slice(), lasts).await?;
    scene.load.reaches(100).await;
    Ok(())
}

/// Somebody deletes the exchange for those outside of the fleet, some times: whoever publishes to it is cut off.
pub(super) async fn feed_deleted(scene: &mut Scene<'_>) -> Result<()> {
    for percent in [15, 30, 45, 60, 75] {
        scene.load.reaches(percent).await;
        let broker = Broker::open(&scene.place).await?;
        let feed = broker.name("feed");
        let options = ExchangeDeleteOptions::default();
        let deleting = (broker.channel).exchange_delete(feed.as_str().into(), options);
        deleting.await?;
        broker.close().await?;
    }
    scene.load.reaches(100).await;
    Ok(())
}

pub(super) async fn unbind<Q: AsRef<str>>(
    place: &Place,
    door: &Proxy,
    queues: &[Q],
    lasts: Duration,
) -> Result<()> {
    bind(place, door, queues, false).await?;
    tokio::time::sleep(lasts).await;
    bind(place, door, queues, true).await
}

/// Binds queues, or ends their bindings, while nothing is published, so that all are bound at once. What a broker that
/// has just come back refuses is asked for again.
async fn bind<Q: AsRef<str>>(place: &Place, door: &Proxy, queues: &[Q], bound: bool) -> Result<()> {
    door.set(Mode::Silent);
    // What came through before is with its queues by then.
    tokio::time::sleep(ON_ITS_WAY).await;
    let done = eventually("the queues are bound, or not", async || {
        let broker = Broker::open(place).await?;
        let exchange = broker.name("events");
        for queue in queues {
            let (queue, exchange) = (broker.name(queue.as_ref()), exchange.as_str());
            let (queue, exchange) = (queue.as_str().into(), exchange.into());
            let (key, table) = (UsageRecorded::ROUTING_KEY.into(), FieldTable::default());
            let channel = &broker.channel;
            if bound {
                let options = QueueBindOptions::default();
                channel.queue_bind(queue, exchange, key, options, table).await?;
            } else {
                channel.queue_unbind(queue, exchange, key, table).await?;
            }
        }
        broker.close().await
    })
    .await;
    door.set(Mode::Pass);
    done
}

/// Messages that nobody can handle come between the others.
pub(super) async fn poisoned(scene: &mut Scene<'_>) -> Result<()> {
    for kind in Poison::ALL {
        poison(&scene.place, &scene.load, kind, &mut scene.random).await?;
        scene.load.reaches(kind.percent()).await;
    }
    scene.load.reaches(100).await;
    Ok(())
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Poison {
    /// It is none of the fleet's.
    Foreign,
    /// It is of the fleet, and not what its routing key says.
    Unreadable,
    /// It says what cannot be.
    Impossible,
}

impl Poison {
    pub(super) const ALL: [Self; 3] = [Self::Foreign, Self::Unreadable, Self::Impossible];

    /// How far the run goes on after it, before the next.
    fn percent(self) -> usize {
        match self {
            Self::Foreign => 25,
            Self::Unreadable => 50,
            Self::Impossible => 75,
        }
    }

    fn payload(self, random: &mut StdRng) -> Vec<u8> {
        match self {
            Self::Foreign | Self::Unreadable => letters(random),
            Self::Impossible => impossible(random),
        }
    }

    fn properties(self) -> BasicProperties {
        match self {
            Self::Foreign => BasicProperties::default(),
            Self::Unreadable | Self::Impossible => properties(),
        }
    }
}

/// Sends one such message to each queue that listens to what was recorded.
pub(super) async fn poison(place: &Place, load: &Load, kind: Poison, random: &mut StdRng) -> Result<()> {
    let (payload, properties) = (kind.payload(random), kind.properties());
    load.poisons(String::from_utf8_lossy(&payload).into_owned());
    eventually("the poison is with the broker", async || {
        let broker = Broker::open(place).await?;
        let channel = &broker.channel;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for queue in QUEUES {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let (queue, properties) = (broker.name(queue), properties.clone());
            let publishing =
                channel.basic_publish("".into(), queue.as_str().into(), options, &payload, properties);
            let confirmed = publishing.await?.await?;
            ensure!(confirmed == Confirmation::Ack(None), "{confirmed:?}");
        }
        broker.close().await
    })
    .await
}

/// A text, which no protobuf begins with: its first byte would be a tag of a kind that there is not.
fn letters(random: &mut StdRng) -> Vec<u8> {
    format!("/poison {:08x}", random.random::<u32>()).into_bytes()
}

/// A commit with an event at no time.
fn impossible(random: &mut StdRng) -> Vec<u8> {
    let event = RecordedUsage {
        account_id: "acme".to_owned(),
        metric: "api.requests".to_owned(),
        amount: 1,
        event_id: format!("poison {:08x}", random.random::<u32>()),
        event_time: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..RecordedUsage::default()
    };
    let recorded = UsageRecorded {
        events: vec![event],
        ..UsageRecorded::default()
    };
    recorded.encode_to_vec()
}

/// Those of a message of the fleet's.
fn properties() -> BasicProperties {
    let mut headers = FieldTable::default();
    let occurred_at = AMQPValue::LongString(now().to_string().into());
    headers.insert("octroi-occurred-at".into(), occurred_at);
    BasicProperties::default()
        .with_message_id(uuid::Uuid::new_v4().to_string().into())
        .with_type(UsageRecorded::ROUTING_KEY.into())
        .with_delivery_mode(2)
        .with_headers(headers)
}
