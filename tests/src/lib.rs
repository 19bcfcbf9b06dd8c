//! Stories told end to end, in both topologies, and the rules of the house.

#[cfg(target_os = "linux")]
pub mod bench;
pub mod chaos;
pub mod harness;
