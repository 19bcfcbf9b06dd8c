//! The binary `octroi`: every service, in one process or in many.

pub mod all;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod migrate;
pub mod output;
pub mod postgres;
pub mod process;
pub mod replay;
pub mod seed;
