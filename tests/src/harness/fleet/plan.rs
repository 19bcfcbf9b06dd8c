//! Which processes a fleet has, and what each of them is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

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
    pub(super) name: &'static str,
    pub(super) call: Call,
    pub(super) program: Option<Program>,
    pub(super) admin: Port,
}

impl Member {
    fn new(name: &'static str, call: Call, admin: Port) -> Self {
        let call = call.set("admin.listen", admin.address().to_string());
        Self {
            name,
            call,
            program: None,
            admin,
        }
    }
}

/// A fleet before its processes are started.
pub(super) struct Plan {
    pub(super) members: Vec<Member>,
    /// Where each service answers gRPC, and the gateway HTTP.
    pub(super) ports: BTreeMap<&'static str, Arc<Port>>,
    pub(super) tokens: PathBuf,
    pub(super) bus: Option<BusNamespace>,
}

impl Plan {
    pub(super) async fn new(builder: &Builder, dir: &Path, database: &TestDatabase) -> Result<Self> {
        let mut plan = match builder.topology {
            Topology::OneProcess => Self::one_process(dir, database)?,
            Topology::Split => Self::split(dir, database).await?,
        };
        for member in &mut plan.members {
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
        let mut ports = BTreeMap::from([("gateway", gateway)]);
        for service in backends::SERVICES {
            call = with_database(call, service, database);
            ports.insert(service, Arc::clone(&grpc));
        }
        Ok(Self {
            members: vec![Member::new(ALL, call, Port::reserve()?)],
            ports,
            tokens: data.join("tokens"),
            bus: None,
        })
    }

    async fn split(dir: &Path, database: &TestDatabase) -> Result<Self> {
        let (redis, bus) = tokio::join!(backends::redis(), backends::rabbitmq());
        let (answers, bus) = (redis.namespace().await?, bus.namespace());
        let tokens = dir.join("tokens");
        let minting = Call::new(dir, "tokens", &["tokens", "mint", "--dir", text(&tokens)?]);
        minting.ends().await?.succeeded()?;
        let mut ports = BTreeMap::new();
        for service in SERVICES {
            ports.insert(service, Arc::new(Port::reserve()?));
        }
        let mut members = Vec::new();
        for (service, port) in &ports {
            let mut call = Call::new(dir, service, &["run", service])
                .set("data_dir", text(&dir.join("data"))?)
                .set("auth.tokens_dir", text(&tokens)?)
                .set("bus.backend", "rabbitmq")
                .set("bus.url", &bus.url)
                .set("bus.namespace", &bus.namespace);
            for (other, port) in ports
                .iter()
                .filter(|(other, _)| ![service, &"gateway"].contains(other))
            {
                call = call.set(&format!("links.{other}"), format!("http://{}", port.address()));
            }
            let address = port.address();
            call = match *service {
                "gateway" => call
                    .set("gateway.listen", address.to_string())
                    .set("gateway.public_url", format!("http://{address}")),
                _ => with_database(call.set("grpc.listen", address.to_string()), service, database),
            };
            if *service == "quota" {
                call = with_answers(call, &answers);
            }
            members.push(Member::new(service, call, Port::reserve()?));
        }
        members.sort_by_key(|member| SERVICES.iter().position(|service| *service == member.name));
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

fn with_answers(call: Call, answers: &RedisNamespace) -> Call {
    call.set("quota.answers.backend", "redis")
        .set("quota.answers.url", &answers.url)
        .set("quota.answers.namespace", &answers.prefix)
}
