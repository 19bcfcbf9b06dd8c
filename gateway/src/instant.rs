//! Instants as JSON carries them: RFC 3339 with a zone.

use std::fmt;

use jiff::Timestamp;
use octroi_kit::convert::to_proto_time;
use serde::{
    Deserialize, Deserializer,
    de::{self, Unexpected, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

/// What an instant is written as, as the end of "must be …".
pub(crate) const RULE: &str = "an RFC 3339 instant with a zone, such as 2026-03-01T12:00:00Z";

/// An instant that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant(Timestamp);

impl Instant {
    pub(crate) fn to_proto(self) -> prost_types::Timestamp {
        to_proto_time(self.0)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Instant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(RULE)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Instant, E> {
                text.parse()
                    .map(Instant)
                    .map_err(|_| E::invalid_value(Unexpected::Other("text"), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl PartialSchema for Instant {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Instant {}
