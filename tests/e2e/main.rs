//! Stories about a whole fleet, told once and run in both topologies.

mod asks;
mod callers;
mod ledger;
mod operations;
mod python;
mod refusals;
mod replay;
mod rest;
mod road;
mod story;
mod trace;
