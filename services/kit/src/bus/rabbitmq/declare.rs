//! The queues, and the exchange for those outside of the fleet. This is the one place that says what they are;
//! a queue that exists with other arguments is refused by the broker, and the error names the argument.

use super::{super::topology::Route, link::LinkError};
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongLongInt},
};
use std::time::Duration;

/// How often the broker delivers a message that is never settled, because it takes its consumer down or its
/// consumers keep going away, before it is a dead letter. Well above the tries of a queue, which are counted
/// by us: messages that were only in the same process as a deadly one must not end with it.
const DELIVERIES_MAX: LongLongInt = 20;
/// The same for dead letters, which must not die again of being looked at.
const DEAD_DELIVERIES_MAX: LongLongInt = 1_000_000;
/// Most messages and bytes in a queue. A full queue refuses, and messages wait in the outbox.
const MESSAGES_MAX: LongLongInt = 1_000_000;
const BYTES_MAX: LongLongInt = 8 * 1024 * 1024 * 1024;

/// Every name on the broker, all with the fleet's namespace.
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
        }
    }

    /// The exchange that has a copy of each message.
    pub(super) fn feed(&self) -> String {
        format!("{}.feed", self.namespace)
    }

    /// The exchange over which the version before published.
    fn feed_before(&self) -> String {
        format!("{}.events", self.namespace)
    }

    pub(super) fn queue(&self, queue: &str) -> String {
        format!("{}.{queue}", self.namespace)
    }

    pub(super) fn dead(&self, queue: &str) -> String {
        format!("{}.{queue}.dead", self.namespace)
    }

    /// Named after the time, so that other steps in the configuration are other queues.
    pub(super) fn delay(&self, queue: &str, delay: Duration) -> String {
        format!("{}.{queue}.delay.{}ms", self.namespace, delay.as_millis())
    }
}

/// Declares the exchanges.
pub(super) async fn exchanges(channel: &Channel, names: &Names) -> Result<(), LinkError> {
    for name in [names.feed(), names.feed_before()] {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())
            .await?;
    }
    Ok(())
}

/// Declares a queue. Publishers do so too: events wait there for a consumer that has never run.
///
/// It is bound for publishers of the version before alone, which reach it over an exchange that nobody else
/// publishes to. A later version deletes that exchange, and the bindings go with it.
pub(super) async fn queue(channel: &Channel, names: &Names, route: &Route) -> Result<(), LinkError> {
    let name = names.queue(route.queue);
    let mut arguments = bounded(DELIVERIES_MAX);
    dead_letter_to(&mut arguments, &names.dead(route.queue));
    declare(channel, &name, arguments).await?;
    for routing_key in route.routing_keys {
        let (name, exchange) = (name.as_str().into(), names.feed_before().into());
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                name,
                exchange,
                (*routing_key).into(),
                options,
                FieldTable::default(),
            )
            .await?;
    }
    Ok(())
}

/// Declares what a consumer needs beside its queue: where messages go that are tried later, or never again.
pub(super) async fn detours(
    channel: &Channel,
    names: &Names,
    queue: &str,
    delays: &[Duration],
) -> Result<(), LinkError> {
    declare(channel, &names.dead(queue), bounded(DEAD_DELIVERIES_MAX)).await?;
    for delay in delays {
        let mut arguments = bounded(DELIVERIES_MAX);
        let delay_ms = LongLongInt::try_from(delay.as_millis()).unwrap_or(LongLongInt::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(delay_ms));
        dead_letter_to(&mut arguments, &names.queue(queue));
        declare(channel, &names.delay(queue, *delay), arguments).await?;
    }
    Ok(())
}

/// How many messages wait in a queue, which must exist.
pub(super) async fn depth(channel: &Channel, name: &str) -> Result<u32, LinkError> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    Ok(channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await?
        .message_count())
}

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), LinkError> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(name.into(), options, arguments).await?;
    Ok(())
}

/// A quorum queue that refuses what it has no room for.
fn bounded(deliveries_max: LongLongInt) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MESSAGES_MAX));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(BYTES_MAX));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(deliveries_max));
    arguments
}

/// What leaves the queue without having been settled goes to another, over the default exchange. Only with
/// this strategy, which wants `reject-publish`, it cannot be lost between the two.
fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
