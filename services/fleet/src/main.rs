//! The binary `octroi`.

use std::process::ExitCode;

use clap::Parser as _;
use octroi_fleet::{
    cli::{self, Cli},
    output,
};
use octroi_kit::config::ConfigError;

/// A decision asks for little pieces of memory on a thread that does nothing else, which the allocator of glibc is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a wrong configuration ends with: EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("stores")
        .enable_all()
        .build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(cli::execute(cli));
        // What does not end by itself is not waited for.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("octroi: {error:#}"));
            let usage = error.chain().any(|cause| cause.is::<ConfigError>());
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}
