//! The ways to people, one file each.

pub mod email;
pub mod in_app;
pub(crate) mod server;
pub(crate) mod smtp;
