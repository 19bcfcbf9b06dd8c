//! Stories told end to end, in both topologies, and the rules of the house.

pub mod harness;
