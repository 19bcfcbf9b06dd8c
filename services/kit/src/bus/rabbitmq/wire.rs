//! A message as RabbitMQ carries it.

use super::super::{DeadReason, Message, handling::Failed};
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

const CONTENT_TYPE: &str = "application/x-protobuf";
/// Delivery mode of a message that survives the broker.
const PERSISTENT: u8 = 2;

const TRACEPARENT: &str = "traceparent";
/// The property `timestamp` has whole seconds only.
const OCCURRED_AT: &str = "octroi-occurred-at";
/// How many tries of the message have failed.
const ATTEMPT: &str = "octroi-attempt";
/// How many of them count towards the limit; a message without it was tried before this was told apart, and
/// all of them do.
const FAULTS: &str = "octroi-faults";
/// On a dead letter: why it is one.
const DEAD_REASON: &str = "octroi-dead-reason";
/// On a dead letter: what its handler said.
const ERROR: &str = "octroi-error";

/// The properties of a message of which some tries have failed. Nothing that the broker added on the way
/// is kept: with its own history the broker would take a message that is tried again for one in a loop.
pub(super) fn properties(message: &Message, failed: Failed) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(OCCURRED_AT.into(), text(&message.occurred_at.to_string()));
    if let Some(traceparent) = &message.traceparent {
        headers.insert(TRACEPARENT.into(), text(traceparent));
    }
    if failed.tries > 0 {
        headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(failed.tries.into()));
        headers.insert(FAULTS.into(), AMQPValue::LongLongInt(failed.faults.into()));
    }
    let properties = BasicProperties::default()
        .with_message_id(message.id.to_string().into())
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(message.occurred_at.as_second()).unwrap_or(0))
        .with_headers(headers);
    match ShortString::try_new(message.routing_key.as_str()) {
        // While a message goes round through a delay, its AMQP routing key is a queue's name.
        Ok(kind) => properties.with_type(kind),
        Err(_) => properties,
    }
}

/// The properties of a dead letter that was tried `attempts` times.
pub(super) fn dead(message: &Message, attempts: u32, reason: DeadReason, error: &str) -> BasicProperties {
    let failed = Failed {
        tries: attempts,
        faults: attempts,
    };
    buried(properties(message, failed), reason, error)
}

/// The properties of a dead letter that is no message of ours: its own, and what is wrong with them.
pub(super) fn malformed(properties: BasicProperties, problem: &str) -> BasicProperties {
    buried(properties, DeadReason::Malformed, problem)
}

fn buried(properties: BasicProperties, reason: DeadReason, error: &str) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(DEAD_REASON.into(), text(reason.as_str()));
    headers.insert(ERROR.into(), text(error));
    properties.with_headers(headers)
}

/// Why a dead letter is one, and what its handler said. The broker's own, which were never settled, have
/// neither.
pub(super) fn epitaph(properties: &BasicProperties) -> (String, String) {
    let header = |name| header(properties, name).and_then(as_text).map(str::to_owned);
    (
        header(DEAD_REASON).unwrap_or_else(|| "never_settled".to_owned()),
        header(ERROR).unwrap_or_default(),
    )
}

/// The message of a delivery, and which of its tries have failed. `Err` says what cannot be read.
pub(super) fn read(properties: &BasicProperties, payload: Bytes) -> Result<(Message, Failed), &'static str> {
    let id = properties
        .message_id()
        .as_ref()
        .and_then(|id| Uuid::try_parse(id.as_str()).ok());
    let header = |name| header(properties, name);
    let occurred_at = header(OCCURRED_AT)
        .and_then(as_text)
        .and_then(|at| at.parse().ok());
    let message = Message {
        id: id.ok_or("the property message_id is no UUID")?,
        routing_key: properties
            .kind()
            .as_ref()
            .ok_or("the property type is missing")?
            .to_string(),
        occurred_at: occurred_at.ok_or("the header octroi-occurred-at is no instant")?,
        traceparent: header(TRACEPARENT).and_then(as_text).map(str::to_owned),
        payload,
    };
    let tries = header(ATTEMPT).and_then(as_count).unwrap_or(0);
    let faults = header(FAULTS).and_then(as_count).unwrap_or(tries);
    Ok((message, Failed { tries, faults }))
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn as_text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

fn as_count(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::LongLongInt(count) => Some(u32::try_from(*count).unwrap_or(u32::MAX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            id: Uuid::from_u128(7),
            routing_key: "usage.recorded".into(),
            payload: vec![1, 2, 3].into(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            occurred_at: jiff::Timestamp::new(1_700_000_000, 123_456_789).unwrap_or_default(),
        }
    }

    fn read_all(properties: &BasicProperties) -> Result<(Message, Failed), &'static str> {
        read(properties, Bytes::from_static(&[1, 2, 3]))
    }

    fn failed(tries: u32, faults: u32) -> Failed {
        Failed { tries, faults }
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        for failed in [
            failed(0, 0),
            failed(1, 0),
            failed(7, 4),
            failed(u32::MAX, u32::MAX),
        ] {
            let read = read_all(&properties(&message(), failed));
            assert_eq!(read, Ok((message(), failed)));
        }
        let plain = Message {
            traceparent: None,
            ..message()
        };
        assert_eq!(
            read_all(&properties(&plain, failed(0, 0))),
            Ok((plain, failed(0, 0)))
        );
        let buried = dead(&message(), 5, DeadReason::DeliveryLimit, "a bug");
        assert_eq!(read_all(&buried), Ok((message(), failed(5, 5))));
        assert_eq!(
            epitaph(&buried),
            ("delivery_limit".to_owned(), "a bug".to_owned())
        );
    }

    #[test]
    fn a_message_that_an_older_version_tried_keeps_its_tries() {
        let properties = properties(&message(), failed(3, 1));
        let older: FieldTable = properties
            .headers()
            .iter()
            .flat_map(|headers| headers.inner())
            .filter(|(name, _)| name.as_str() != FAULTS)
            .fold(FieldTable::default(), |mut table, (name, value)| {
                table.insert(name.clone(), value.clone());
                table
            });
        let read = read_all(&properties.with_headers(older));
        assert_eq!(read, Ok((message(), failed(3, 3))));
    }

    #[test]
    fn what_is_no_message_of_ours_is_refused() {
        let check = |properties: BasicProperties| assert!(read_all(&properties).is_err());
        check(BasicProperties::default());
        check(properties(&message(), failed(0, 0)).with_message_id("7".into()));
        check(properties(&message(), failed(0, 0)).with_headers(FieldTable::default()));
    }
}
