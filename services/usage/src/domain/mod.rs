//! The rules of usage, without I/O: what an event is, when it is accepted, what becomes of calls that share a
//! commit, what may be summed, how a range is cut, which months are kept, what corrections make of an event, what a report is of
//! and how a job writes it, what is out of the ordinary, when a limit will be reached.

pub mod anomaly;
pub mod buckets;
pub mod correction;
pub mod csv;
pub mod distinct;
pub mod event;
pub mod events;
pub mod figures;
pub mod forecast;
pub mod months;
pub mod report;
pub mod report_job;
pub mod settlement;
pub mod spends;
pub mod sums;
