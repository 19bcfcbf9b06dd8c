//! Redis: a server of our own, and a corner of one for a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::Config;
use nix::sys::signal::Signal;

use super::process::Process;
use super::{Backend, Rung, unique};
use crate::harness::port::Port;

/// More than a run has tests, so that a number is not used again while its test still runs.
const DATABASES: u32 = 1024;

const READY_MAX: Duration = Duration::from_secs(20);

/// The Redis of this test run.
#[derive(Clone, Debug)]
pub struct Redis {
    backend: Backend,
}

/// A corner of Redis that only one test uses.
#[derive(Clone, Debug)]
pub struct RedisNamespace {
    /// Leads to a database of the test's own; on a server that was given, to the one it names.
    pub url: String,
    /// For keys and channels. Needed even with an own database, since channels know no databases.
    pub prefix: String,
}

impl Redis {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// A database and a key prefix for one test.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn namespace(&self) -> Result<RedisNamespace> {
        let prefix = unique("octroi-test-");
        let url = match self.backend.rung {
            Rung::Given => self.backend.url.clone(),
            Rung::Docker | Rung::Local => {
                let client = client(&self.backend.url).await?;
                // Database 0 holds only this counter.
                let taken: u32 = client.incr("databases_taken").await?;
                client.quit().await?;
                format!("{}/{}", self.backend.url, 1 + taken % (DATABASES - 1))
            }
        };
        Ok(RedisNamespace { url, prefix })
    }
}

/// A Redis of our own, for the keeper and for tests that break it.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    dir: PathBuf,
    port: Port,
}

impl RedisServer {
    /// Starts `redis-server` in `dir` on a free port, keeping nothing on disk.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub async fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let port = Port::reserve()?;
        let process = launch(dir, &port).await?;
        Ok(Self {
            process,
            dir: dir.to_owned(),
            port,
        })
    }

    /// Where it is, through restarts too.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, such as one that stops or kills it.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn ended(&mut self) -> Result<()> {
        self.process.ended().await.map(drop)
    }

    /// Kills it if it lives and starts it again, empty, on the same port.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.signal(Signal::SIGKILL).is_ok() {
            self.process.ended().await?;
        }
        self.process = launch(&self.dir, &self.port).await?;
        Ok(())
    }
}

async fn launch(dir: &Path, port: &Port) -> Result<Process> {
    let mut process = Process::start("redis-server", |command| {
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--databases", &DATABASES.to_string()])
            .args(["--logfile", "redis.log", "--dir", "."])
            .current_dir(dir);
    })?;
    let url = format!("redis://127.0.0.1:{port}");
    process
        .becomes_ready(READY_MAX, || check(&url))
        .await
        .context("redis-server")?;
    Ok(process)
}

/// Whether a Redis answers there.
pub(super) async fn check(url: &str) -> Result<()> {
    client(url).await?.quit().await?;
    Ok(())
}

async fn client(url: &str) -> Result<fred::clients::Client> {
    let client = fred::clients::Client::new(Config::from_url(url)?, None, None, None);
    client.init().await?;
    Ok(client)
}
