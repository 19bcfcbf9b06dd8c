//! An exhaustive search of the protocol that keeps the limits (`docs/decisions/0005-escrow.md`).
//!
//! The model has two replicas, quota's schema, the ledger, Redis, the messages between them, and callers that repeat
//! what is not answered. Each transaction is one step; everything else may happen between two of them. A world
//! ([`config`]) says which requests come and what may go wrong; the search ([`search`]) visits every state that can
//! be reached in it, and looks in each at what has to hold ([`invariants`]).
//!
//! - [`kept`]: small worlds with every rule, searched to their end by every run of the tests.
//! - [`without`]: the same with one rule less each, until something breaks; the shortest way there is printed.
//! - [`long`]: larger worlds, for minutes.
//!
//! `cargo nextest run --workspace --no-capture -E 'binary(escrow)'` shows what is searched and what is found.

mod check;
mod config;
mod heal;
mod invariants;
mod kept;
mod ledger;
mod long;
mod moves;
mod pack;
mod quota;
mod rules;
mod search;
mod sights;
mod soundness;
mod state;
mod steps;
mod sums;
mod symmetry;
mod without;
