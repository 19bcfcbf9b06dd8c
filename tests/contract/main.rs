//! What every variant of a port must do, and what the harness itself promises.

mod backends;
mod bus;
mod counters;
mod events;
mod inbox;
mod mail;
mod private_postgres;
