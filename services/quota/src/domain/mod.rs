//! The rules of quota, without I/O: which limits hold, where windows begin and end, how limits are carved and
//! spent, what a check is answered, when people are told.

pub mod begun;
pub mod calendar;
pub mod carve;
pub mod check;
pub mod correction;
pub mod decision;
pub mod explained;
pub mod hold;
pub mod holding;
pub mod limits;
pub mod pace;
pub mod plan;
pub mod slice;
pub mod thresholds;
pub mod wallet;
pub mod window;
