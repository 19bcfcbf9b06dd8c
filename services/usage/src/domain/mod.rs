//! The rules of usage, without I/O: what an event is, when it is accepted, how a range is cut.

pub mod buckets;
pub mod event;
