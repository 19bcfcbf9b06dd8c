//! The ways to people, one file each.

pub mod email;
pub mod in_app;
