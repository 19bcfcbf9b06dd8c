//! CloudEvents 1.0 in their JSON format, as a way to say that something was used.
//!
//! `id` and `source` identify the event, `type` is the metric, `subject` may repeat the account, and `data`
//! holds the amount and the properties. Extension attributes are allowed by the format and carry nothing
//! for us, so unknown attributes are read over; `data` is ours and read strictly.

use std::collections::BTreeMap;

use octroi_core::AccountId;
use octroi_proto::{errors::v1::ErrorReason, usage::v1::UsageEvent};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    amount::Amount,
    body::{JSON, Object, given},
    instant::Instant,
    problem::{Names, Problem},
};

/// The content type of one event.
pub(crate) const ONE: &str = "application/cloudevents+json";
/// The content type of an array of events.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// How the contract's fields are called in a CloudEvent.
pub(crate) const NAMES: Names = &[
    ("event.event_id", "id"),
    ("event.source", "source"),
    ("event.metric", "type"),
    ("event.event_time", "time"),
    ("event", "data"),
];

/// What was used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloudEventData {
    amount: Amount,
    /// Up to 16 properties.
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

/// A CloudEvent 1.0 whose type is a metric.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CloudEvent {
    /// `1.0`.
    specversion: String,
    /// The event's id within its source.
    id: String,
    /// Who says so.
    source: String,
    /// The metric's slug.
    #[serde(rename = "type")]
    metric: String,
    /// The key's account; absent means the same.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    subject: Option<String>,
    /// When it happened; absent means now.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    time: Option<Instant>,
    /// `application/json`; absent means the same.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    datacontenttype: Option<String>,
    #[schema(value_type = CloudEventData)]
    data: Object<CloudEventData>,
}

impl CloudEvent {
    /// The usage event that it says; `prefix` is where it stands in the body.
    pub(crate) fn into_usage_event(self, account: &AccountId, prefix: &str) -> Result<UsageEvent, Problem> {
        let invalid = |field: &str, rule: &str| {
            Err(Problem::field(
                ErrorReason::FieldInvalid,
                format!("{prefix}{field}"),
                rule,
            ))
        };
        if self.specversion != "1.0" {
            return invalid("specversion", "must be `1.0`");
        }
        if self
            .datacontenttype
            .is_some_and(|given| !given.eq_ignore_ascii_case(JSON))
        {
            return invalid("datacontenttype", "must be `application/json`");
        }
        if self.subject.is_some_and(|subject| subject != account.as_str()) {
            return Err(Problem::new(
                ErrorReason::AccountNotFound,
                "the subject is not the account of the API key",
            ));
        }
        let Object(data) = self.data;
        Ok(UsageEvent {
            account_id: account.to_string(),
            event_id: self.id,
            source: self.source,
            metric: self.metric,
            amount: data.amount.get(),
            event_time: self.time.map(Instant::to_proto),
            properties: data.properties.into_iter().collect(),
            origin: 0,
            charges: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    const GOOD: &str = r#"{"specversion":"1.0","id":"e1","source":"/shop","type":"api.requests",
        "time":"2026-03-01T12:00:00Z","traceparent":"00-a-b-01","data":{"amount":3,"properties":{"region":"eu"}}}"#;

    fn read(json: &str) -> Result<UsageEvent, Problem> {
        let account = AccountId::parse("acme").expect("an id");
        parse::<CloudEvent>(json.as_bytes(), "")?.into_usage_event(&account, "")
    }

    #[test]
    fn a_cloud_event_says_what_a_usage_event_says() {
        let event = read(GOOD).expect("a good event");
        assert_eq!(
            (event.account_id.as_str(), event.event_id.as_str()),
            ("acme", "e1")
        );
        assert_eq!(
            (event.source.as_str(), event.metric.as_str(), event.amount),
            ("/shop", "api.requests", 3)
        );
        assert_eq!(event.event_time.map(|time| time.seconds), Some(1_772_366_400));
        assert_eq!(event.properties["region"], "eu");
    }

    fn check(from: &str, to: &str, reason: &str, field: &str) {
        let document = read(&GOOD.replace(from, to)).expect_err(to).into_document();
        assert_eq!(document.reason, reason, "{to}: {}", document.detail);
        let found = document.errors.first().map_or("", |error| error.field.as_str());
        assert_eq!(found, field, "{to}");
    }

    #[test]
    fn a_bad_cloud_event_is_refused_with_the_attribute() {
        check("\"1.0\"", "\"0.3\"", "FIELD_INVALID", "specversion");
        check("\"amount\":3", "\"amount\":3.5", "FIELD_INVALID", "data.amount");
        check("\"amount\":3,", "", "FIELD_REQUIRED", "data.amount");
        check(
            "\"amount\":3",
            "\"amount\":3,\"plan\":1",
            "FIELD_INVALID",
            "data.plan",
        );
        check("\"id\":\"e1\",", "", "FIELD_REQUIRED", "id");
        check("2026-03-01T12:00:00Z", "2026-03-01", "FIELD_INVALID", "time");
        check(
            "\"id\":",
            "\"datacontenttype\":\"text/xml\",\"id\":",
            "FIELD_INVALID",
            "datacontenttype",
        );
        check(
            "\"id\":",
            "\"subject\":\"other\",\"id\":",
            "ACCOUNT_NOT_FOUND",
            "",
        );
    }
}
