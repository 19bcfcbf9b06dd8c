//! `make bench-quota`: measures what decisions cost. See `octroi_tests::bench::suite`.

use anyhow::Result;
use clap::Parser as _;
use octroi_tests::bench::{floor, route, suite};

/// What the program has that is measured, so that floor and route have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    if floor::serve_if_asked()? || route::serve_if_asked()? {
        return Ok(());
    }
    suite::run(&suite::Options::parse())
}
