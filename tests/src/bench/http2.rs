//! A client of gRPC over HTTP/2 that costs next to nothing, so that what is measured is the server.
//!
//! It speaks HTTP/2 with prior knowledge over plain TCP, and as much of it as a server of gRPC can ask of a
//! client: flow control both ways, HPACK with both tables, padding, continuations, pings, resets, GOAWAY.
//! What it leaves out: TLS, pushes, priorities, compressed messages.
//!
//! From the inside to the outside: [`frame`] and [`hpack`] know bytes, [`head`] what is said before each
//! request, [`message`] what is in DATA, [`streams`] which calls are open, [`protocol`] the rules, and
//! [`connection`] the socket. Only the last one does anything; all others are plain values.

mod connection;
mod fault;
mod frame;
mod head;
mod hpack;
mod message;
mod protocol;
mod streams;

pub(super) use connection::{Broken, Connection};
pub(super) use head::Head;
pub(super) use protocol::{End, Events};
