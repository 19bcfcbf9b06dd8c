//! The real program, started the way an operator starts it, on servers of the test's own.
//!
//! A story is told to a [`Fleet`] and does not know in how many processes it runs: [`Topology::OneProcess`]
//! is `octroi all` with the bus and the counters in process, [`Topology::Split`] is `octroi run` once a
//! service, with RabbitMQ and Redis between them. Every fleet has a database, a corner of Redis and of
//! RabbitMQ, ports and a directory that nobody else uses. A service of a [`Topology::Split`] fleet may run more
//! than once ([`Builder::replicas`]).
//!
//! A fleet that is dropped looks whether the test left work behind: events that were never published,
//! messages that nobody took, dead letters. It fails the test that did, unless the test said that it
//! would ([`Fleet::expect_leftovers`]).

mod clients;
mod leftovers;
mod plan;
mod program;
mod rest;
mod wait;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use octroi_proto::billing::v1::ApplyCatalogRequest;
use tempfile::TempDir;

use super::backends::{self, BusNamespace, Servers, TestDatabase};
use super::port::Port;
use plan::{Member, Plan};

pub use clients::{APPLICATION, Clients, GATEWAY, OPERATOR};
pub use program::{Call, Ended, Program, is_ready};
pub use rest::{Answer, Rest};
pub use wait::{PATIENCE, eventually, now, roomy_hour, within};

/// How a fleet is spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// `octroi all`.
    OneProcess,
    /// `octroi run <service>`, once each.
    Split,
}

/// A fleet that is still to be started.
#[derive(Debug)]
pub struct Builder {
    topology: Topology,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    replicas: BTreeMap<String, usize>,
    ports: BTreeMap<String, Arc<Port>>,
    catalog: String,
    servers: Option<Servers>,
    program: Option<String>,
}

impl Builder {
    /// Sets a configuration key, such as `telemetry.otlp_endpoint`, in every process.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    /// Sets a variable that is no configuration of the fleet, in every process.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs so many processes of a service. The second is called `quota-2`, where `quota` is the service. Only in
    /// [`Topology::Split`].
    #[must_use]
    pub fn replicas(mut self, service: &str, count: usize) -> Self {
        self.replicas.insert(service.to_owned(), count);
        self
    }

    /// Lets a process, such as `usage` or `quota-2`, answer at a port that was reserved before. Only in
    /// [`Topology::Split`].
    #[must_use]
    pub fn port(mut self, process: &str, port: Arc<Port>) -> Self {
        self.ports.insert(process.to_owned(), port);
        self
    }

    /// Applies this catalog instead of the demo's. Only in [`Topology::Split`].
    #[must_use]
    pub fn catalog(mut self, document: String) -> Self {
        self.catalog = document;
        self
    }

    /// Stands on these servers instead of those that tests share.
    #[must_use]
    pub fn servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Runs another program that is built beside `octroi` and does the same.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.program = Some(name.to_owned());
        self
    }

    fn replicas_of(&self, service: &str) -> usize {
        self.replicas.get(service).copied().unwrap_or(1)
    }

    /// Starts it and waits until all of it is ready and a catalog is in force.
    ///
    /// # Errors
    /// What could not be started, with the end of its log.
    pub async fn start(self) -> Result<Fleet> {
        Fleet::start_as(&self).await
    }
}

/// A fleet of the test's own. It ends with this value.
#[derive(Debug)]
pub struct Fleet {
    topology: Topology,
    members: Vec<Member>,
    /// Where each process of a service answers gRPC, and the gateway HTTP.
    ports: BTreeMap<String, Arc<Port>>,
    tokens: PathBuf,
    leftovers_expected: bool,
    bus: Option<BusNamespace>,
    // After the processes that use them, as fields are dropped in this order.
    database: TestDatabase,
    dir: TempDir,
}

impl Fleet {
    /// Starts a fleet as it is by default.
    ///
    /// # Errors
    /// What could not be started, with the end of its log.
    pub async fn start(topology: Topology) -> Result<Self> {
        Self::builder(topology).start().await
    }

    /// A fleet that is still to be started.
    #[must_use]
    pub fn builder(topology: Topology) -> Builder {
        Builder {
            topology,
            settings: Vec::new(),
            environment: Vec::new(),
            replicas: BTreeMap::new(),
            ports: BTreeMap::new(),
            catalog: octroi_fleet::seed::CATALOG.to_owned(),
            servers: None,
            program: None,
        }
    }

    async fn start_as(builder: &Builder) -> Result<Self> {
        let database = create_database(builder.servers.as_ref()).await?;
        let dir = open_dir()?;
        let plan = Plan::new(builder, dir.path(), &database).await?;
        let mut fleet = Self {
            topology: builder.topology,
            members: plan.members,
            ports: plan.ports,
            tokens: plan.tokens,
            // Until it is up there is nothing to leave behind.
            leftovers_expected: true,
            bus: plan.bus,
            database,
            dir,
        };
        for name in fleet.member_names() {
            fleet.launch(&name)?;
        }
        fleet.become_ready().await?;
        if builder.topology == Topology::Split {
            fleet.apply_catalog(&builder.catalog).await?;
        }
        fleet.leftovers_expected = false;
        Ok(fleet)
    }

    /// `octroi all` does this by itself.
    async fn apply_catalog(&self, document: &str) -> Result<()> {
        let billing = self.clients(OPERATOR)?.billing;
        eventually("the catalog is in force", async || {
            let request = ApplyCatalogRequest {
                document: document.to_owned(),
            };
            Ok(billing.clone().apply_catalog(request).await?)
        })
        .await?;
        Ok(())
    }

    /// In how many processes it runs.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// The database, for what no service tells.
    #[must_use]
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// A directory of the test's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a service, or a further replica such as `quota-2`, answers gRPC, or where the gateway answers HTTP.
    ///
    /// # Panics
    /// When there is no such service, which is a mistake of the test.
    #[must_use]
    pub fn address(&self, service: &str) -> SocketAddr {
        match self.ports.get(service) {
            Some(port) => port.address(),
            None => panic!("there is no service {service}"),
        }
    }

    /// Where the process that serves `service` says how it is, and has its metrics page.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn admin(&mut self, service: &str) -> Result<SocketAddr> {
        Ok(self.member(service)?.admin.address())
    }

    /// The file with a caller's token.
    #[must_use]
    pub fn token_file(&self, caller: &str) -> PathBuf {
        self.tokens.join(format!("{caller}.token"))
    }

    /// Typed clients that call as `caller`.
    ///
    /// # Errors
    /// When the caller has no token.
    pub fn clients(&self, caller: &str) -> Result<Clients> {
        self.clients_with(&self.token(caller)?)
    }

    /// The same, where `replica`, such as `quota-2`, is called instead of the first of its service.
    ///
    /// # Errors
    /// When the caller has no token.
    pub fn clients_at(&self, caller: &str, replica: &str) -> Result<Clients> {
        let service = replica.split_once('-').map_or(replica, |(service, _)| service);
        let address = |called: &str| self.address(if called == service { replica } else { called });
        Clients::new(
            |called| format!("http://{}", address(called)),
            &self.token(caller)?,
        )
    }

    /// A caller's token.
    ///
    /// # Errors
    /// When the caller has none.
    pub fn token(&self, caller: &str) -> Result<String> {
        let path = self.token_file(caller);
        let token =
            std::fs::read_to_string(&path).with_context(|| format!("{caller} has no {}", path.display()))?;
        Ok(token.trim().to_owned())
    }

    /// Where the fleet's messages go, in [`Topology::Split`].
    #[must_use]
    pub fn bus(&self) -> Option<&BusNamespace> {
        self.bus.as_ref()
    }

    /// Typed clients that call with this token, whatever it is.
    ///
    /// # Errors
    /// When no header can carry the token.
    pub fn clients_with(&self, token: &str) -> Result<Clients> {
        Clients::new(|service| format!("http://{}", self.address(service)), token)
    }

    /// Somebody who speaks HTTP with the gateway.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(self.address("gateway"))
    }

    /// A call of the program as the operator of this fleet, such as `replay`.
    ///
    /// # Errors
    /// When a path is not text.
    pub fn operator_call(&self, name: &str, arguments: &[&str]) -> Result<Call> {
        let call = Call::new(self.dir.path(), name, arguments).set("auth.tokens_dir", text(&self.tokens)?);
        let services = backends::SERVICES.into_iter();
        Ok(services.fold(call, |call, service| {
            call.set(
                &format!("links.{service}"),
                format!("http://{}", self.address(service)),
            )
        }))
    }

    /// Kills the process that serves `service`, with everything else in it; `quota-2` is its second replica.
    ///
    /// # Errors
    /// When it runs no more.
    pub async fn kill(&mut self, service: &str) -> Result<()> {
        let mut program = self
            .member(service)?
            .program
            .take()
            .context("it was killed before")?;
        program.signal(Signal::SIGKILL)?;
        program.ended().await?;
        Ok(())
    }

    /// Asks the process that serves `service` to stop, and waits for its end.
    ///
    /// # Errors
    /// When it runs no more.
    pub async fn stop(&mut self, service: &str) -> Result<ExitStatus> {
        let mut program = self
            .member(service)?
            .program
            .take()
            .context("it was stopped before")?;
        program.signal(Signal::SIGTERM)?;
        program.ended().await
    }

    /// Starts the process that serves `service` again, with the same addresses, and waits until all of
    /// the fleet is ready.
    ///
    /// # Errors
    /// When it does not become ready, with the end of its log.
    pub async fn restart(&mut self, service: &str) -> Result<()> {
        let name = self.member(service)?.name.clone();
        self.launch(&name)?;
        self.become_ready().await
    }

    /// The process id of whatever serves `service`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&mut self, service: &str) -> Result<u32> {
        let program = self.member(service)?.program.as_ref();
        Ok(program.context("it does not run")?.id())
    }

    /// The end of every process's log.
    #[must_use]
    pub fn log(&self) -> String {
        let mut all = String::new();
        for member in &self.members {
            // Writing into a text does not fail.
            let _ = writeln!(all, "--- {}\n{}", member.name, member.call.log_tail());
        }
        all
    }

    /// Says that the test leaves work behind, because it breaks what would do it.
    pub fn expect_leftovers(&mut self) {
        self.leftovers_expected = true;
    }

    fn member_names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    fn member(&mut self, service: &str) -> Result<&mut Member> {
        let name = match self.topology {
            Topology::OneProcess => plan::ALL,
            Topology::Split => service,
        };
        let member = self.members.iter_mut().find(|member| member.name == name);
        member.with_context(|| format!("there is no service {service}"))
    }

    fn launch(&mut self, name: &str) -> Result<()> {
        let member = self.members.iter_mut().find(|member| member.name == name);
        let member = member.with_context(|| format!("there is no process {name}"))?;
        ensure!(member.program.is_none(), "{name} runs already");
        if let Some(file) = member.call.addresses_file() {
            // What is read there must come from the process that is started now.
            let _ = std::fs::remove_file(file);
        }
        member.program = Some(member.call.start()?);
        Ok(())
    }

    async fn become_ready(&mut self) -> Result<()> {
        for member in &mut self.members {
            let Some(program) = &mut member.program else {
                continue;
            };
            let file = member.call.addresses_file();
            let waited = program
                .becomes_ready(member.admin.address(), file.as_deref())
                .await;
            waited.with_context(|| {
                format!(
                    "{} is not ready; the end of its log:\n{}",
                    member.name,
                    member.call.log_tail()
                )
            })?;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let looked = if self.leftovers_expected || std::thread::panicking() {
            Ok(())
        } else {
            leftovers::none_after_a_while(self.database.superuser_url(), self.bus.as_ref())
        };
        let log = if looked.is_err() {
            self.log()
        } else {
            String::new()
        };
        self.members.clear();
        if let Some(bus) = &self.bus {
            leftovers::remove_queues(bus);
        }
        if let Err(left) = looked {
            let panicking = std::thread::panicking();
            assert!(
                panicking,
                "the test left work behind: {left:#}\n\nthe end of every log:\n{log}"
            );
        }
    }
}

/// Tells a story to a fleet of its own. Where it ends badly, the error has the end of every log.
///
/// # Errors
/// What went wrong in the story.
pub async fn tell(builder: Builder, story: impl AsyncFnOnce(&mut Fleet) -> Result<()>) -> Result<()> {
    let mut fleet = builder.start().await?;
    let told = story(&mut fleet).await;
    if told.is_err() {
        // The story broke off, so what it left says nothing.
        fleet.expect_leftovers();
    }
    told.map_err(|error| anyhow!("{error:?}\n\nthe end of every log:\n{}", fleet.log()))
}

/// A database with every service's schema.
async fn create_database(servers: Option<&Servers>) -> Result<TestDatabase> {
    let migrators = [
        ("account", &octroi_account::MIGRATOR),
        ("usage", &octroi_usage::MIGRATOR),
        ("quota", &octroi_quota::MIGRATOR),
        ("billing", &octroi_billing::MIGRATOR),
        ("notification", &octroi_notification::MIGRATOR),
    ];
    let postgres = match servers {
        Some(servers) => servers.postgres.clone(),
        None => backends::postgres().await,
    };
    postgres.create_migrated(&migrators).await
}

/// A directory that the user whom a private PostgreSQL runs as can pass through.
///
/// # Errors
/// When the system's temporary directory cannot be written.
pub fn open_dir() -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o711);
    Ok(tempfile::Builder::new()
        .prefix("octroi-test-")
        .permissions(permissions)
        .tempdir()?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}
