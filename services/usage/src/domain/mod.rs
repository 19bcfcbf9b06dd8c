//! The rules of usage, without I/O: what an event is, when it is accepted, what becomes of calls that share a
//! commit, what may be summed, how a range is cut.

pub mod buckets;
pub mod event;
pub mod settlement;
pub mod spends;
pub mod sums;
