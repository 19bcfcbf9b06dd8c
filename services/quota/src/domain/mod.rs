//! The rules of quota, without I/O: which limits hold, what a check is answered, when people are told.

pub mod check;
pub mod decision;
pub mod holding;
pub mod limits;
pub mod thresholds;
pub mod window;
