//! The chassis that every service runs on, one file a concern.

pub mod auth;
#[cfg(feature = "bus")]
pub mod bus;
pub mod component;
pub mod config;
pub mod convert;
#[cfg(feature = "db")]
pub mod db;
#[cfg(feature = "bus")]
pub mod dead_letter;
#[cfg(feature = "bus")]
pub mod directory;
pub mod grpc;
pub mod health;
pub mod http;
#[cfg(feature = "bus")]
pub mod inbox;
pub mod lifecycle;
pub mod link;
#[cfg(feature = "bus")]
pub mod outbox;
pub mod page;
pub mod run;
pub mod status;
pub mod telemetry;
