//! A server to compare with, in a process of its own: this program, started again with other arguments.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::pin;

/// A process that serves. It ends with this value.
#[derive(Debug)]
pub(super) struct Served {
    /// Where it answers.
    pub(super) address: SocketAddr,
    child: Child,
}

impl Served {
    /// Starts `program` with `arguments` on `cores`; it begins by [announcing](announce) where it answers.
    pub(super) fn start(program: &Path, arguments: &[&str], cores: &[usize]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = pin::on(cores, || command.spawn())?
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut served = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            child,
        };
        let mut line = String::new();
        let output = served.child.stdout.take().context("its output is ours")?;
        BufReader::new(output).read_line(&mut line)?;
        served.address = line.trim().parse().context("it says no address")?;
        Ok(served)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says where this process answers, and waits until whoever started it is gone.
pub(super) fn announce(address: SocketAddr) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{address}").and_then(|()| output.flush())?;
    // Nobody writes to it; it ends when the process that holds the other end does, even by a kill.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
