//! The keeper: the process that the shared servers belong to.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use octroi_fleet::postgres::{self, PrivatePostgres};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::docker::Container;
use super::place::Place;
use super::rabbitmq::RabbitMqServer;
use super::redis::RedisServer;
use super::{Backend, Kind, Rung};

/// How soon a wish is seen, and how often the lease is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How often a server that ends is started again before the keeper says that it does not hold.
const RESTARTS_MAX: u32 = 3;

/// What the tests' PostgreSQL has besides the settings of a private one. Without `fsync` a commit
/// survives the death of every process, which is what tests break, though not of the machine; it
/// makes a database from a template several times faster. Each test process has pools of its own.
pub(super) const POSTGRES_SETTINGS: [&str; 4] = [
    "fsync=off",
    "full_page_writes=off",
    "max_connections=400",
    "shared_buffers=64MB",
];

/// Keeps the servers of the place in `dir` until nobody has had a lease for `idle_max`, or until
/// SIGTERM or SIGINT.
///
/// # Errors
/// When the place cannot be used.
pub fn keep(dir: &Path, idle_max: Duration) -> Result<()> {
    let place = Place::at(dir)?;
    let _keeper = place.become_keeper()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Held until we are gone, so that whoever comes meanwhile waits and then starts a new keeper.
    let _last_lease = runtime.block_on(serve(&place, idle_max))?;
    place.clear()
}

async fn serve(place: &Place, idle_max: Duration) -> Result<File> {
    let lease = place.lease()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    let mut started = Vec::new();
    let mut last_used = Instant::now();
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        for kind in Kind::ALL {
            if !started.contains(&kind) && place.wanted(kind) {
                started.push(kind);
                servers.spawn(keep_one(place.clone(), kind, stopping.clone()));
            }
        }
        while let Some(given_up) = servers.try_join_next() {
            let kind = given_up?;
            started.retain(|other| *other != kind);
        }
        if lease.try_lock().is_err() {
            last_used = Instant::now();
        } else if last_used.elapsed() >= idle_max {
            break;
        } else {
            lease.unlock()?;
        }
    }
    stop.send_replace(true);
    servers.join_all().await;
    Ok(lease)
}

/// One server's life here, restarts included, until the keeper stops or the server is given up; then
/// a new wish begins anew.
async fn keep_one(place: Place, kind: Kind, stopping: watch::Receiver<bool>) -> Kind {
    if let Err(error) = serve_one(&place, kind, stopping).await {
        place.fulfil(kind);
        // Where even this cannot be written, the tests say that nobody answered.
        let _ = place.publish(kind, &Err(error));
    }
    kind
}

async fn serve_one(place: &Place, kind: Kind, mut stopping: watch::Receiver<bool>) -> Result<()> {
    for _ in 0..=RESTARTS_MAX {
        // Never given up halfway: a container or an `initdb` that nobody waits for goes on by itself.
        let mut server = Server::start(place, kind).await?;
        place.publish(kind, &Ok(server.backend()))?;
        tokio::select! {
            () = server.ended() => place.withdraw(kind),
            () = told_to(&mut stopping) => {
                place.withdraw(kind);
                server.stop().await;
                return Ok(());
            }
        }
    }
    bail!("{kind} ended again and again")
}

async fn told_to(stopping: &mut watch::Receiver<bool>) {
    // The sender going away means the same.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// A server that the keeper runs.
enum Server {
    Container(Box<Container>),
    Postgres(PrivatePostgres),
    Redis(RedisServer),
    RabbitMq(RabbitMqServer),
}

impl Server {
    /// The rungs that a keeper climbs: Docker, then this machine.
    async fn start(place: &Place, kind: Kind) -> Result<Self> {
        let no_docker = match Container::start(kind).await {
            Some(Ok(container)) => return Ok(Self::Container(Box::new(container))),
            Some(Err(error)) => format!("{error:#}"),
            None => "Docker does not answer".to_owned(),
        };
        let dir = place.server(kind);
        Self::start_local(kind, &dir)
            .await
            .with_context(|| format!("{} ({no_docker})", kind.advice()))
    }

    async fn start_local(kind: Kind, dir: &Path) -> Result<Self> {
        match kind {
            Kind::Postgres => {
                let mut options = postgres::Options::new(dir);
                options.binaries = std::env::var_os("PG_BIN").map(Into::into);
                options.settings = POSTGRES_SETTINGS.map(str::to_owned).to_vec();
                Ok(Self::Postgres(postgres::start(options).await?))
            }
            Kind::Redis => Ok(Self::Redis(RedisServer::start(dir).await?)),
            Kind::RabbitMq => Ok(Self::RabbitMq(RabbitMqServer::start(dir).await?)),
        }
    }

    fn backend(&self) -> Backend {
        let (url, about) = match self {
            Self::Container(container) => return container.backend().clone(),
            Self::Postgres(server) => (server.url().to_owned(), server.summary().to_owned()),
            Self::Redis(server) => (
                server.url(),
                format!("redis-server on 127.0.0.1:{}", server.port()),
            ),
            Self::RabbitMq(server) => (
                server.url(),
                format!("rabbitmq-server on 127.0.0.1:{}", server.port()),
            ),
        };
        Backend {
            url,
            rung: Rung::Local,
            about,
        }
    }

    async fn ended(&mut self) {
        match self {
            Self::Container(container) => container.ended().await,
            Self::Postgres(server) => drop(server.wait().await),
            // A process that cannot be waited for is as good as gone.
            Self::Redis(server) => drop(server.ended().await),
            Self::RabbitMq(server) => drop(server.ended().await),
        }
    }

    async fn stop(self) {
        match self {
            Self::Container(container) => drop(container.stop().await),
            Self::Postgres(server) => server.stop().await,
            // Killed when dropped: nothing they hold is wanted again.
            Self::Redis(_) | Self::RabbitMq(_) => {}
        }
    }
}
