//! Keeps the servers that the tests of one checkout share. The tests start it; see
//! `octroi_tests::harness::backends`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use octroi_tests::harness::backends;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .context("usage: octroi-test-backends <directory> [idle seconds]")?,
    );
    let idle_max = match arguments.next() {
        Some(seconds) => Duration::from_secs(seconds.to_str().context("idle seconds are a number")?.parse()?),
        None => backends::IDLE_MAX,
    };
    backends::keep(&dir, idle_max)
}
