//! The binary `octroi`: every service, in one process or in many.

pub mod all;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dead_letters;
pub mod doctor;
pub mod migrate;
pub mod operator;
pub mod output;
pub mod postgres;
pub mod process;
pub mod replay;
pub mod seed;
