//! Faults while usage is recorded, and what must be in the ledger all the same.
//!
//! A [`plan`] says by its seed which events are sent, a tenth of them twice, in which calls and when. The [`load`] sends
//! them over every way there is, writes into its log what it sends before it does, and repeats what was not answered.
//! [`scenarios`] break things meanwhile. Afterwards the [`rules`] compare the log, and nothing else, with what the
//! [`books`] have: the ledger, its rollups, quota's windows, what was told, and what nobody could handle.

pub mod books;
pub mod load;
pub mod oracle;
pub mod plan;
pub mod report;
pub mod rules;
pub mod run;
pub mod scenarios;
pub mod site;
