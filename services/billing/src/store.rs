//! The statements of billing. Decisions are made elsewhere.

pub(crate) mod catalog;
mod catalog_rows;
pub(crate) mod customer;
pub(crate) mod entitlement;
pub(crate) mod request;
pub(crate) mod subscription;

use octroi_kit::db::DatabaseError;
use serde::{
    Serialize,
    de::{
        DeserializeOwned, IntoDeserializer as _,
        value::{Error as NameError, StringDeserializer},
    },
};

/// The name of an enum's value, as the document and the database write it.
fn to_name<T: Serialize>(value: &T) -> Result<String, DatabaseError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(DatabaseError::Corrupt { what: "name" }),
    }
}

/// The value of a name that the database holds.
fn from_name<T: DeserializeOwned>(name: String, what: &'static str) -> Result<T, DatabaseError> {
    let name: StringDeserializer<NameError> = name.into_deserializer();
    T::deserialize(name).map_err(|_| DatabaseError::Corrupt { what })
}

/// A value that the database holds, checked as if it came from elsewhere.
fn checked<T, E>(value: Result<T, E>, what: &'static str) -> Result<T, DatabaseError> {
    value.map_err(|_| DatabaseError::Corrupt { what })
}
