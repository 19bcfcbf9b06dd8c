//! What a scenario may break: a fleet with several replicas of quota, servers that nobody else uses, and a proxy in
//! front of each of them and of each replica.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use octroi_fleet::postgres::{self, PrivatePostgres, State};
use octroi_proto::billing::v1::ApplyCatalogRequest;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::proxy::Proxy;
use crate::harness::{
    backends::{RabbitMqServer, RedisServer, Servers},
    catalog,
    fleet::{APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, open_dir},
    port::Port,
};

/// How many replicas of quota there are, where quota is what is broken.
pub const REPLICAS: usize = 4;
/// A metric whose decisions are answered once the ledger has them.
pub const DURABLE: &str = "api.requests";
/// A metric whose decisions are answered before.
pub const BUFFERED: &str = "clicks";
/// What a replica may have set aside of a buffered metric in these fleets.
pub const BUFFERED_UNITS_MAX: u64 = 200;
/// How many connections callers have to a replica.
const CHANNELS: usize = 2;

/// Settings with which everything that waits for a time waits less long than by default.
const SETTINGS: [(&str, &str); 7] = [
    ("sandbox", "true"),
    ("quota.slices.idle_ms", "2000"),
    ("quota.slices.replica_gone_ms", "3000"),
    // BUFFERED_UNITS_MAX.
    ("quota.slices.buffered_units_min", "100"),
    ("quota.slices.buffered_units_max", "200"),
    ("quota.database.connections_max", "12"),
    ("usage.database.connections_max", "20"),
];

/// How many there are of the services that may run more than once.
#[derive(Clone, Copy, Debug)]
pub struct Replicas {
    /// Of quota.
    pub quota: usize,
    /// Of usage.
    pub usage: usize,
}

/// Where faults are put in.
#[derive(Debug)]
pub struct Doors {
    /// Between quota and its database.
    pub quota_database: Proxy,
    /// Between usage and its database.
    pub usage_database: Proxy,
    /// Between quota and Redis.
    pub redis: Proxy,
    /// Between everybody and RabbitMQ.
    pub bus: Proxy,
    /// Between everybody and usage.
    pub usage: Proxy,
    /// Between callers and each further replica of usage.
    pub further_usage: Vec<Proxy>,
    /// Between callers and each replica of quota.
    pub replicas: Vec<Proxy>,
}

impl Doors {
    /// Everything goes through again.
    pub fn heal(&self) {
        let all = [
            &self.quota_database,
            &self.usage_database,
            &self.redis,
            &self.bus,
            &self.usage,
        ];
        let further = self.further_usage.iter().chain(&self.replicas);
        for door in all.into_iter().chain(further) {
            door.heal();
        }
    }
}

/// All of it. The fleet ends first.
#[derive(Debug)]
pub struct Site {
    /// The fleet.
    pub fleet: Fleet,
    /// The proxies.
    pub doors: Doors,
    /// The Redis that quota uses.
    pub redis: RedisServer,
    /// The database server.
    pub postgres: PrivatePostgres,
    /// The broker.
    pub rabbitmq: RabbitMqServer,
    dir: TempDir,
    callers: Vec<Vec<Clients>>,
    operator: Clients,
}

impl Site {
    /// Starts everything, with many replicas of quota.
    ///
    /// # Errors
    /// What cannot be started.
    pub async fn start() -> Result<Self> {
        Self::start_with(Replicas {
            quota: REPLICAS,
            usage: 1,
        })
        .await
    }

    /// Starts everything, with so many replicas.
    ///
    /// # Errors
    /// What cannot be started.
    pub async fn start_with(replicas: Replicas) -> Result<Self> {
        let dir = open_dir()?;
        let (postgres, redis, rabbitmq) = tokio::try_join!(
            start_postgres(dir.path()),
            start_redis(dir.path()),
            start_rabbitmq(dir.path()),
        )?;
        let usage_port = Arc::new(Port::reserve()?);
        let mut doors = Doors {
            quota_database: Proxy::before(local(postgres.port())).await?,
            usage_database: Proxy::before(local(postgres.port())).await?,
            redis: Proxy::before(local(redis.port())).await?,
            bus: Proxy::before(local(rabbitmq.port())).await?,
            usage: Proxy::before(usage_port.address()).await?,
            further_usage: Vec::new(),
            replicas: Vec::new(),
        };
        let servers = servers(&postgres, &rabbitmq, &doors);
        let builder = Fleet::builder(Topology::Split)
            .replicas("quota", replicas.quota)
            .replicas("usage", replicas.usage)
            .servers(servers)
            .port("usage", usage_port)
            .set("links.usage", format!("http://{}", doors.usage.address()));
        let settings = SETTINGS.into_iter();
        let builder = settings.fold(builder, |builder, (key, value)| builder.set(key, value));
        let mut fleet = builder.start().await?;
        // What is killed leaves work that nobody waits for.
        fleet.expect_leftovers();
        for number in 1..=replicas.quota {
            let door = Proxy::before(fleet.address(&replica(number))).await?;
            doors.replicas.push(door);
        }
        for number in 2..=replicas.usage {
            let door = Proxy::before(fleet.address(&format!("usage-{number}"))).await?;
            doors.further_usage.push(door);
        }
        let callers = callers(&fleet, &doors)?;
        let operator = fleet.clients(OPERATOR)?;
        apply_catalog(&operator).await?;
        Ok(Self {
            fleet,
            doors,
            redis,
            postgres,
            rabbitmq,
            dir,
            callers,
            operator,
        })
    }

    /// A directory that lives as long as the site.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Clients of each replica, through the proxies.
    #[must_use]
    pub fn callers(&self) -> &[Vec<Clients>] {
        &self.callers
    }

    /// Clients of whoever runs the fleet, past the proxies.
    #[must_use]
    pub fn operator(&self) -> &Clients {
        &self.operator
    }

    /// A session that sees every schema, past the proxies.
    ///
    /// # Errors
    /// When there is none.
    pub async fn database(&self) -> Result<PgConnection> {
        let url = self.fleet.database().superuser_url();
        eventually("PostgreSQL answers", async || {
            Ok(PgConnection::connect(url).await?)
        })
        .await
    }

    /// Copies what every process said to where it outlives the site.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(self.fleet.dir())? {
            let path = entry?.path();
            let name = path
                .file_name()
                .filter(|_| path.extension().is_some_and(|one| one == "log"));
            if let Some(name) = name {
                std::fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    }
}

/// Waits until PostgreSQL, which was killed, is back.
///
/// # Errors
/// When it does not come back.
pub async fn is_back(postgres: &PrivatePostgres, killed: u32) -> Result<()> {
    let mut state = postgres.state();
    let back = |state: &State| matches!(state, State::Running { pid } if *pid != killed);
    let state = state.wait_for(|state| back(state) || state.is_final()).await?;
    ensure!(back(&state), "PostgreSQL did not come back: {:?}", *state);
    Ok(())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn start_postgres(dir: &Path) -> Result<PrivatePostgres> {
    let mut options = postgres::Options::new(dir);
    options.binaries = std::env::var_os("PG_BIN").map(Into::into);
    // A commit survives the death of every process, which is what is broken here, though not of the machine.
    let settings = ["fsync=off", "max_connections=300", "shared_buffers=128MB"];
    options.settings = settings.map(str::to_owned).to_vec();
    Ok(postgres::start(options).await?)
}

async fn start_redis(dir: &Path) -> Result<RedisServer> {
    RedisServer::start(&dir.join("redis")).await
}

async fn start_rabbitmq(dir: &Path) -> Result<RabbitMqServer> {
    RabbitMqServer::start(&dir.join("rabbitmq")).await
}

fn servers(postgres: &PrivatePostgres, rabbitmq: &RabbitMqServer, doors: &Doors) -> Servers {
    let bus_port = format!(":{}/", rabbitmq.port());
    let bus_door = format!(":{}/", doors.bus.address().port());
    let redis = format!("redis://{}", doors.redis.address());
    let bus = rabbitmq.url().replacen(&bus_port, &bus_door, 1);
    Servers {
        doors: BTreeMap::from([
            ("quota".to_owned(), doors.quota_database.address()),
            ("usage".to_owned(), doors.usage_database.address()),
        ]),
        ..Servers::at(postgres.url(), &redis, &bus)
    }
}

/// The name of a replica of quota, from 1 on.
#[must_use]
pub fn replica(number: usize) -> String {
    if number == 1 {
        "quota".to_owned()
    } else {
        format!("quota-{number}")
    }
}

fn callers(fleet: &Fleet, doors: &Doors) -> Result<Vec<Vec<Clients>>> {
    let token = std::fs::read_to_string(fleet.token_file(APPLICATION)).context("the callers' token")?;
    let clients = |door: &Proxy| {
        let address = |called: &str| {
            let address = if called == "quota" {
                door.address()
            } else {
                fleet.address(called)
            };
            format!("http://{address}")
        };
        let all: Result<Vec<Clients>> = (0..CHANNELS)
            .map(|_| Clients::new(address, token.trim()))
            .collect();
        all
    };
    doors.replicas.iter().map(clients).collect()
}

/// The seed's catalog with a buffered metric, of which accounts without a subscription have some.
async fn apply_catalog(operator: &Clients) -> Result<()> {
    let metric = format!(
        "{{ slug: {BUFFERED}, kind: flow, aggregation: sum, recording: buffered, unit: click, \
         name: {{ en: Clicks, fr: Clics }} }}"
    );
    let limits = ["hour", "day", "month"]
        .map(|period| format!("{{ metric: {BUFFERED}, period: {period}, amount: 60, mode: hard }}"));
    let document = catalog::with(&[metric], &limits)?;
    let apply = ApplyCatalogRequest { document };
    operator.billing.clone().apply_catalog(apply).await?;
    Ok(())
}
