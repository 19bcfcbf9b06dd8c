//! What every variant of a port must do, and what the harness itself promises.

mod answers;
mod backends;
mod bus;
mod cache;
mod decisions;
mod events;
mod inbox;
mod mail;
mod private_postgres;
