//! What a service gives to whoever runs it, and what it is given.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{auth::Auth, config::Loader, link::Links};

/// What a service's gRPC handlers need before them.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// The full name of the gRPC service, such as `octroi.quota.v1.QuotaService`.
    pub service_name: &'static str,
    /// Its routes, without layers.
    pub routes: Routes,
    /// How long a call may take where the caller does not say.
    pub deadline: Duration,
}

/// Work that goes on until the process stops.
pub struct Task {
    /// What logs call it.
    pub name: &'static str,
    /// The work; it ends soon after the token is cancelled.
    pub work: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Task {
    /// Work that goes on until the process stops.
    pub fn new<F>(name: &'static str, work: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            work: Box::new(move |stop| Box::pin(work(stop))),
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

type Check = dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// Asks whether something that the service cannot do without works.
#[derive(Clone)]
pub struct Probe {
    /// What is asked for, such as `database`.
    pub name: &'static str,
    /// The question; the answer says what is wrong.
    pub check: Arc<Check>,
}

impl Probe {
    /// A probe that asks `check`.
    pub fn new<F>(name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name,
            check: Arc::new(move || Box::pin(check())),
        }
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A service, ready to be run.
#[derive(Debug)]
pub struct Component {
    /// Its name, which is also its schema's and its caller's.
    pub name: &'static str,
    /// Its gRPC side; the gateway has none.
    pub grpc: Option<Grpc>,
    /// Its database and migrations.
    #[cfg(feature = "db")]
    pub schema: Option<(crate::db::Db, &'static sqlx::migrate::Migrator)>,
    /// What it does with events.
    #[cfg(feature = "bus")]
    pub consumers: Vec<crate::inbox::Consumer>,
    /// What it does all the time.
    pub tasks: Vec<Task>,
    /// What it cannot do without.
    pub probes: Vec<Probe>,
    /// Addresses that it listens on besides gRPC, with what each is for.
    pub addresses: Vec<(&'static str, SocketAddr)>,
}

impl Component {
    /// A component that does nothing yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            grpc: None,
            #[cfg(feature = "db")]
            schema: None,
            #[cfg(feature = "bus")]
            consumers: Vec::new(),
            tasks: Vec::new(),
            probes: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Adds what every service with a database and an outbox has: the relay, the clock's samples, the
    /// probe, the home of its dead letters and their way back, the end of old marks in its inbox.
    #[cfg(feature = "bus")]
    #[must_use]
    pub fn with_schema(
        mut self,
        context: &Context,
        db: &crate::db::Db,
        migrator: &'static sqlx::migrate::Migrator,
        wake: &crate::outbox::Wake,
    ) -> Self {
        context.dead_letters.add(self.name, db.clone());
        self.schema = Some((db.clone(), migrator));
        let clock = db.clone();
        self.tasks
            .push(Task::new("clock", move |stop| clock.keep_time(stop)));
        let (relay, bus, wake) = (db.clone(), context.bus.clone(), wake.clone());
        self.tasks.push(Task::new("outbox", move |stop| {
            crate::outbox::relay(relay, bus, wake, stop)
        }));
        let (letters, bus) = (db.clone(), context.bus.clone());
        self.tasks.push(Task::new("dead_letters", move |stop| {
            crate::dead_letter::requeue_asked(letters, bus, stop)
        }));
        let inbox = db.clone();
        self.tasks.push(Task::new("inbox", move |stop| {
            crate::inbox::prune_marks(inbox, stop)
        }));
        let probe = db.clone();
        self.probes.push(Probe::new("database", move || {
            let db = probe.clone();
            async move { db.ping().await.map_err(|error| error.to_string()) }
        }));
        let bus = context.bus.clone();
        self.probes.push(Probe::new("bus", move || {
            let ready = bus.is_ready();
            async move {
                if ready {
                    Ok(())
                } else {
                    Err("the bus is away".to_owned())
                }
            }
        }));
        self
    }
}

/// What every service is given to build its component.
#[derive(Clone)]
pub struct Context {
    /// The merged configuration.
    pub config: Loader,
    /// Whether a test clock may be used.
    pub sandbox: bool,
    /// The ways to the other services.
    pub links: Links,
    /// Tokens and keys.
    pub auth: Auth,
    /// The bus.
    #[cfg(feature = "bus")]
    pub bus: crate::bus::Bus,
    /// Where the bus in process leaves what nobody can handle.
    #[cfg(feature = "bus")]
    pub dead_letters: Arc<crate::dead_letter::DeadLetterTables>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("sandbox", &self.sandbox)
            .finish_non_exhaustive()
    }
}
