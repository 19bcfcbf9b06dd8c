//! The rules of usage, without I/O: what an event is, when it is accepted, what becomes of calls that share a
//! commit, what may be summed, how a range is cut, which months are kept, what
//! corrections make of an event.

pub mod buckets;
pub mod correction;
pub mod distinct;
pub mod event;
pub mod events;
pub mod figures;
pub mod months;
pub mod settlement;
pub mod spends;
pub mod sums;
