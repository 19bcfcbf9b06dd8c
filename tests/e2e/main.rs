//! Stories about a whole fleet, told once and run in both topologies.

mod asks;
mod batches;
mod buffered;
mod callers;
mod client;
mod clock;
mod ledger;
mod newcomer;
mod operations;
mod python;
mod refusals;
mod repeats;
mod replay;
mod rest;
mod road;
mod scripts;
mod sign_up;
mod story;
mod trace;
