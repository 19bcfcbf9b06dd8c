//! The servers that a bench's fleets stand on: as a deployment has them, and not as tests do, whose PostgreSQL
//! syncs nothing to its disk.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use octroi_fleet::postgres::{self, PrivatePostgres};
use tempfile::TempDir;

use super::cpu::Meter;
use crate::harness::{
    backends::{RabbitMqServer, RedisServer, Servers},
    fleet::open_dir,
};

/// What PostgreSQL has besides the settings of a private one, which syncs each commit to its disk. A checkpoint in
/// the middle of a round would be in one side's figures and not in the other's.
pub const POSTGRES_SETTINGS: [&str; 4] = [
    "max_connections=200",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
];

/// Servers of a bench's own. They end with this value.
#[derive(Debug)]
pub struct Stores {
    postgres: PrivatePostgres,
    redis: RedisServer,
    rabbitmq: RabbitMqServer,
    // After the servers that use it, as fields are dropped in this order.
    _dir: TempDir,
}

impl Stores {
    /// Starts them where the caller runs.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start() -> Result<Self> {
        let dir = open_dir()?;
        let mut options = postgres::Options::new(dir.path().join("postgres"));
        options.settings = POSTGRES_SETTINGS.map(str::to_owned).to_vec();
        let postgres = postgres::start(options).await?;
        Ok(Self {
            postgres,
            redis: RedisServer::start(&dir.path().join("redis")).await?,
            rabbitmq: RabbitMqServer::start(&dir.path().join("rabbitmq")).await?,
            _dir: dir,
        })
    }

    /// Where they are, for a fleet.
    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers::at(self.postgres.url(), &self.redis.url(), &self.rabbitmq.url())
    }

    /// The CPU time of PostgreSQL and of Redis.
    ///
    /// # Errors
    /// When PostgreSQL does not run.
    pub fn meters(&self) -> Result<[Meter; 2]> {
        let postgres = self.postgres.pid().context("PostgreSQL has ended")?;
        Ok([
            Meter::tree(POSTGRES, postgres),
            Meter::process(REDIS, self.redis.pid()),
        ])
    }

    /// The CPU time of RabbitMQ.
    #[must_use]
    pub fn broker(&self) -> Meter {
        Meter::tree(RABBITMQ, self.rabbitmq.pid())
    }

    /// A program that came with PostgreSQL, such as `pgbench`.
    ///
    /// # Errors
    /// When it is not beside the server.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let program = self.postgres.binaries().join(name);
        ensure!(
            program.is_file(),
            "{name} is not beside this PostgreSQL: {} is missing",
            program.display()
        );
        Ok(program)
    }

    /// Stops what would otherwise be killed in the middle of a write.
    pub async fn stop(self) {
        self.postgres.stop().await;
    }
}

/// The meter of PostgreSQL.
pub const POSTGRES: &str = "PostgreSQL";
/// The meter of RabbitMQ.
pub const RABBITMQ: &str = "RabbitMQ";
/// The meter of Redis.
pub const REDIS: &str = "Redis";
