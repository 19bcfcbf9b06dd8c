//! The program `octroi`, with every piece of memory that it asks for counted. See `octroi_tests::bench::counted`.

use std::process::ExitCode;

use clap::Parser as _;
use octroi_fleet::cli::{self, Cli};
use octroi_tests::bench::{counted, layer, route};

#[global_allocator]
static MEMORY: counted::Counting = counted::Counting;

fn main() -> anyhow::Result<ExitCode> {
    if layer::count_if_asked()? {
        return Ok(ExitCode::SUCCESS);
    }
    counted::say()?;
    if route::serve_if_asked()? {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("stores")
        .enable_all()
        .build()?;
    runtime.block_on(cli::execute(Cli::parse()))
}
