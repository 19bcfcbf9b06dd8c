//! Amounts as JSON carries them: integers and nothing else.

use std::fmt;

use octroi_core::Units;
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

/// An amount that a client sends: 1 to 2^53 − 1, written as an integer. A fraction, an exponent or a text
/// is refused, because whoever rounds it for the client decides about money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(i64);

impl Amount {
    pub(crate) const fn get(self) -> i64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integer;

        impl Visitor<'_> for Integer {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a JSON integer from 1 to {}", Units::MAX)
            }

            fn visit_i64<E: de::Error>(self, amount: i64) -> Result<Amount, E> {
                match Units::positive(amount) {
                    Ok(units) => Ok(Amount(units.as_i64())),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(amount), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, amount: u64) -> Result<Amount, E> {
                match i64::try_from(amount) {
                    Ok(amount) => self.visit_i64(amount),
                    Err(_) => Err(E::invalid_value(Unexpected::Unsigned(amount), &self)),
                }
            }
        }

        // `deserialize_any` shows the number as it was written; `deserialize_i64` may be lenient.
        deserializer.deserialize_any(Integer)
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1_i64))
            .maximum(Some(Units::MAX.as_i64()))
            .description(Some("Whole units, written as a JSON integer."))
            .into()
    }
}

impl ToSchema for Amount {}
