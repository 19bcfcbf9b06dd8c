//! `make bench-quota` and `make bench-usage`: measures what decisions and recording cost.

use anyhow::Result;
use clap::Parser;
use octroi_tests::bench::{floor, route, suite, usage_suite};

/// What the program has that is measured, so that floor and route have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what the services cost, beside what they could not do without.
#[derive(Debug, Parser)]
#[command(name = "octroi-bench")]
enum Bench {
    /// What decisions about quotas cost, beside a server that decides nothing.
    Quota(suite::Options),
    /// What recording and summing usage cost, beside a plain table.
    Usage(usage_suite::Options),
}

fn main() -> Result<()> {
    if floor::serve_if_asked()? || route::serve_if_asked()? {
        return Ok(());
    }
    match Bench::parse() {
        Bench::Quota(options) => suite::run(&options),
        Bench::Usage(options) => usage_suite::run(&options),
    }
}
