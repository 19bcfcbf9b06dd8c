//! What the tests stand on.
//!
//! [`backends`] finds or starts PostgreSQL, Redis and RabbitMQ and gives every test a corner of its
//! own in them. [`fleet`] starts the real program on them, in one process or in many, on ports that
//! [`port`] reserves. [`catalog`] is what they sell.

pub mod backends;
pub mod catalog;
pub mod fleet;
pub mod port;
