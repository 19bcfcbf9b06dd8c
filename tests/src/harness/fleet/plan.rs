//! Which processes a fleet has, and what each of them is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use super::{Builder, Topology, program, text};
use crate::harness::backends::{self, BusNamespace, RedisNamespace, TestDatabase};
use crate::harness::port::Port;
use program::{Call, Program};

/// The services in the order in which they are started: each after those that it asks.
const SERVICES: [&str; 6] = ["account", "usage", "quota", "billing", "notification", "gateway"];

/// The one process of [`Topology::OneProcess`].
pub(super) const ALL: &str = "all";

/// Few, because the fleets of one run share a server.
const CONNECTIONS_MAX: &str = "5";

/// One process of a fleet.
#[derive(Debug)]
pub(super) struct Member {
    /// The service, or [`ALL`]; a further replica has its number behind it: `quota`, `quota-2`.
    pub(super) name: String,
    pub(super) call: Call,
    pub(super) program: Option<Program>,
    pub(super) admin: Port,
}

impl Member {
    fn new(name: &str, call: Call, admin: Port) -> Self {
        let call = call.set("admin.listen", admin.address().to_string());
        Self {
            name: name.to_owned(),
            call,
            program: None,
            admin,
        }
    }
}

/// The process names of a service with so many replicas. The first has the service's own name, and is the one that
/// the other services call.
fn replica_names(service: &str, count: usize) -> Vec<String> {
    let further = (2..=count).map(|number| format!("{service}-{number}"));
    std::iter::once(service.to_owned()).chain(further).collect()
}

/// A fleet before its processes are started.
pub(super) struct Plan {
    pub(super) members: Vec<Member>,
    /// Where each process of a service answers gRPC, and the gateway HTTP.
    pub(super) ports: BTreeMap<String, Arc<Port>>,
    pub(super) tokens: PathBuf,
    pub(super) bus: Option<BusNamespace>,
}

impl Plan {
    pub(super) async fn new(builder: &Builder, dir: &Path, database: &TestDatabase) -> Result<Self> {
        let mut plan = match builder.topology {
            Topology::OneProcess => {
                ensure!(
                    builder.replicas.is_empty(),
                    "services in one process have no replicas"
                );
                Self::one_process(dir, database)?
            }
            Topology::Split => Self::split(builder, dir, database).await?,
        };
        for member in &mut plan.members {
            if let Some(program) = &builder.program {
                member.call = std::mem::take(&mut member.call).program(program);
            }
            for (key, value) in &builder.settings {
                member.call = std::mem::take(&mut member.call).set(key, value);
            }
            for (name, value) in &builder.environment {
                member.call = std::mem::take(&mut member.call).environment(name, value);
            }
        }
        Ok(plan)
    }

    fn one_process(dir: &Path, database: &TestDatabase) -> Result<Self> {
        let (grpc, gateway) = (Arc::new(Port::reserve()?), Arc::new(Port::reserve()?));
        let data = dir.join("data");
        let file = dir.join("addresses.json");
        let mut call = Call::new(dir, ALL, &["all", "--addresses-file", text(&file)?])
            .set("data_dir", text(&data)?)
            .set("grpc.listen", grpc.address().to_string())
            .set("gateway.listen", gateway.address().to_string())
            .set("gateway.public_url", format!("http://{}", gateway.address()));
        let mut ports = BTreeMap::from([("gateway".to_owned(), gateway)]);
        for service in backends::SERVICES {
            call = with_database(call, service, database);
            ports.insert(service.to_owned(), Arc::clone(&grpc));
        }
        Ok(Self {
            members: vec![Member::new(ALL, call, Port::reserve()?)],
            ports,
            tokens: data.join("tokens"),
            bus: None,
        })
    }

    async fn split(builder: &Builder, dir: &Path, database: &TestDatabase) -> Result<Self> {
        let (redis, bus) = servers(builder).await?;
        let tokens = dir.join("tokens");
        let minting = Call::new(dir, "tokens", &["tokens", "mint", "--dir", text(&tokens)?]);
        minting.ends().await?.succeeded()?;
        let mut places = Vec::new();
        for service in SERVICES {
            for name in replica_names(service, builder.replicas_of(service)) {
                let port = match builder.ports.get(&name) {
                    Some(port) => Arc::clone(port),
                    None => Arc::new(Port::reserve()?),
                };
                places.push((service, name, port));
            }
        }
        let ports: BTreeMap<String, Arc<Port>> = (places.iter())
            .map(|(_, name, port)| (name.clone(), Arc::clone(port)))
            .collect();
        let mut members = Vec::new();
        for (service, name, port) in &places {
            let mut call = Call::new(dir, name, &["run", service])
                .set("data_dir", text(&dir.join("data"))?)
                .set("auth.tokens_dir", text(&tokens)?)
                .set("bus.backend", "rabbitmq")
                .set("bus.url", &bus.url)
                .set("bus.namespace", &bus.namespace);
            for other in SERVICES {
                if [*service, "gateway"].contains(&other) {
                    continue;
                }
                let port = ports.get(other).context("a service without a port")?;
                call = call.set(&format!("links.{other}"), format!("http://{}", port.address()));
            }
            let address = port.address();
            call = match *service {
                "gateway" => call
                    .set("gateway.listen", address.to_string())
                    .set("gateway.public_url", format!("http://{address}")),
                _ => {
                    let call = with_database(call.set("grpc.listen", address.to_string()), service, database);
                    with_door(call, service, database, builder)?
                }
            };
            if *service == "quota" {
                call = with_redis(call, &redis);
                if builder.servers.is_none() {
                    // It is shared with other tests, and a command that takes longer than usual is no fault of theirs.
                    call = call.set("quota.redis.command_timeout_ms", "5000");
                }
            }
            members.push(Member::new(name, call, Port::reserve()?));
        }
        Ok(Self {
            members,
            ports,
            tokens,
            bus: Some(bus),
        })
    }
}

fn with_database(call: Call, service: &str, database: &TestDatabase) -> Call {
    call.set(&format!("{service}.database.url"), database.url(service))
        .set(&format!("{service}.database.connections_max"), CONNECTIONS_MAX)
}

/// Redis and the bus: those that the test brought, or those that all tests share.
async fn servers(builder: &Builder) -> Result<(RedisNamespace, BusNamespace)> {
    let (redis, bus) = match &builder.servers {
        Some(servers) => (servers.redis.clone(), servers.rabbitmq.clone()),
        None => tokio::join!(backends::redis(), backends::rabbitmq()),
    };
    Ok((redis.namespace().await?, bus.namespace()))
}

/// Where the test put something in front of the service's database, that is what the service finds.
fn with_door(call: Call, service: &str, database: &TestDatabase, builder: &Builder) -> Result<Call> {
    let doors = builder.servers.as_ref().map(|servers| &servers.doors);
    let Some(door) = doors.and_then(|doors| doors.get(service)) else {
        return Ok(call);
    };
    let options = PgConnectOptions::from_str(database.url(service))?;
    let url = options
        .host(&door.ip().to_string())
        .port(door.port())
        .to_url_lossy();
    Ok(call.set(&format!("{service}.database.url"), url.to_string()))
}

fn with_redis(call: Call, redis: &RedisNamespace) -> Call {
    call.set("quota.redis.url", &redis.url)
        .set("quota.redis.namespace", &redis.prefix)
        .set("quota.answers.backend", "redis")
        .set("quota.cache.backend", "redis")
}
