//! PostgreSQL, Redis and RabbitMQ for the tests, from whatever this machine offers.
//!
//! The ladder, for each of the three by itself:
//! 1. an address that was given: `TEST_POSTGRES_URL` (a superuser's), `TEST_REDIS_URL`,
//!    `TEST_RABBITMQ_URL`;
//! 2. Docker, where its socket accepts a connection: one container;
//! 3. programs installed on this machine, started on free loopback ports;
//! 4. none: the test fails with the sentence that says what to install. Nothing is skipped silently.
//!
//! A runner that gives each test a process of its own would start every server once a test. So the
//! servers of rungs 2 and 3 belong to a process of their own, the keeper ([`keep`]), which the first
//! test starts and all later ones share; it starts only what is asked for. Every test process holds a
//! lease, a shared lock on a file, which the kernel takes back however the process ends. When nobody
//! has held the lease for [`IDLE_MAX`], the keeper stops its servers and itself.
//!
//! A test gets a database ([`Postgres::create_database`]), a Redis database and key prefix
//! ([`Redis::namespace`]) and a prefix for exchanges and queues ([`RabbitMq::namespace`]) that nobody
//! else uses. Tests that break servers start private ones: [`RedisServer`], [`RabbitMqServer`] and
//! `octroi_fleet::postgres`.

mod docker;
mod keeper;
mod place;
mod postgres;
pub(super) mod process;
mod rabbitmq;
mod redis;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

pub use keeper::keep;
pub use place::{Place, Tenant};
pub use postgres::{Postgres, SERVICES, Template, TestDatabase};
pub use rabbitmq::{BusNamespace, RabbitMq, RabbitMqServer};
pub use redis::{Redis, RedisNamespace, RedisServer};

/// How long the shared servers outlive the last test that used them: long enough to go from one run
/// to the next while somebody works, short enough not to be found the next day.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// One of the three servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The database of record.
    Postgres,
    /// The counters' cache.
    Redis,
    /// The bus between services.
    RabbitMq,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::RabbitMq];

    /// Its name in files and directories.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// The variable that gives its address, and so stands on the first rung.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "TEST_POSTGRES_URL",
            Self::Redis => "TEST_REDIS_URL",
            Self::RabbitMq => "TEST_RABBITMQ_URL",
        }
    }

    /// What to do on a machine that offers none of it.
    #[must_use]
    pub fn advice(self) -> String {
        let (debian, homebrew) = match self {
            Self::Postgres => ("postgresql", "postgresql"),
            Self::Redis => ("redis-server", "redis"),
            Self::RabbitMq => ("rabbitmq-server", "rabbitmq"),
        };
        format!(
            "the tests need {self}: set {}, or start Docker, or install it (Debian: apt-get install {debian}; \
             macOS: brew install {homebrew})",
            self.variable()
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::RabbitMq => "RabbitMQ",
        })
    }
}

/// Which rung of the ladder a server stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Its address was given.
    Given,
    /// A container.
    Docker,
    /// A program of this machine.
    Local,
}

/// A server that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Where it is, with its credentials.
    pub url: String,
    /// Where it came from.
    pub rung: Rung,
    /// One line about it, for people.
    pub about: String,
}

/// Servers that somebody started for a fleet, instead of those that tests share.
#[derive(Clone, Debug)]
pub struct Servers {
    /// The database.
    pub postgres: Postgres,
    /// The answers.
    pub redis: Redis,
    /// The bus.
    pub rabbitmq: RabbitMq,
    /// Where a service finds its database, if not there directly.
    pub doors: BTreeMap<String, SocketAddr>,
}

impl Servers {
    /// The servers at these addresses; PostgreSQL's is a superuser's.
    #[must_use]
    pub fn at(postgres: &str, redis: &str, rabbitmq: &str) -> Self {
        let given = |url: &str| Backend {
            url: url.to_owned(),
            rung: Rung::Given,
            about: "given by whoever starts the fleet".to_owned(),
        };
        Self {
            postgres: Postgres::new(given(postgres)),
            redis: Redis::new(given(redis)),
            rabbitmq: RabbitMq::new(given(rabbitmq)),
            doors: BTreeMap::new(),
        }
    }
}

/// PostgreSQL for this test.
///
/// # Panics
/// When no rung of the ladder holds, with the sentence that says what to do.
pub async fn postgres() -> Postgres {
    static FOUND: OnceCell<Backend> = OnceCell::const_new();
    Postgres::new(found(&FOUND, Kind::Postgres).await)
}

/// Redis for this test.
///
/// # Panics
/// When no rung of the ladder holds, with the sentence that says what to do.
pub async fn redis() -> Redis {
    static FOUND: OnceCell<Backend> = OnceCell::const_new();
    Redis::new(found(&FOUND, Kind::Redis).await)
}

/// RabbitMQ for this test.
///
/// # Panics
/// When no rung of the ladder holds, with the sentence that says what to do.
pub async fn rabbitmq() -> RabbitMq {
    static FOUND: OnceCell<Backend> = OnceCell::const_new();
    RabbitMq::new(found(&FOUND, Kind::RabbitMq).await)
}

/// Climbs the ladder once a process; a failure is tried again by the next test, which then fails with
/// the same sentence.
async fn found(cell: &'static OnceCell<Backend>, kind: Kind) -> Backend {
    let climbed = cell
        .get_or_try_init(|| async {
            let backend = climb(kind).await?;
            // A test's output is shown when it fails, and then this line belongs to the story.
            let _ = writeln!(std::io::stderr(), "{kind}: {}", backend.about);
            anyhow::Ok(backend)
        })
        .await;
    match climbed {
        Ok(backend) => backend.clone(),
        Err(error) => panic!("{error:#}"),
    }
}

async fn climb(kind: Kind) -> Result<Backend> {
    match given(kind.variable()) {
        Some(url) => {
            let about = format!("given by {}", kind.variable());
            let backend = Backend {
                url,
                rung: Rung::Given,
                about,
            };
            check(kind, &backend.url)
                .await
                .with_context(|| format!("{} does not lead to a {kind} that answers", kind.variable()))?;
            Ok(backend)
        }
        None => Tenant::of_this_checkout()?.ask(kind).await,
    }
}

/// Whether a server answers in its own protocol.
async fn check(kind: Kind, url: &str) -> Result<()> {
    match kind {
        Kind::Postgres => postgres::check(url).await,
        Kind::Redis => redis::check(url).await,
        Kind::RabbitMq => rabbitmq::check(url).await,
    }
}

/// A variable of the surroundings, if it says anything.
#[expect(
    clippy::disallowed_methods,
    reason = "where the tests' servers are is no configuration of the fleet"
)]
fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// A name that no other test has, in any process.
fn unique(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}
