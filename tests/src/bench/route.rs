//! What the product costs before it decides anything: the floor's handler behind our own layers.
//!
//! It is served by the chassis that serves quota: caller, metrics, deadline and shedding as everywhere, no spans
//! because none are sent. So what is between the floor and the route is the layers, and what is between the
//! route and a decision is the engine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use octroi_kit::{
    auth::{self, Auth},
    config::{self, LogFormat, Secret},
    grpc, telemetry,
};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    floor::NoOp,
    served::{self, Served},
};

/// The argument that makes a program a route.
const ARGUMENT: &str = "--route";
/// As many calls at once as a service takes by default.
const CALLS_MAX: usize = 4_096;
/// What quota's handlers have.
const DEADLINE: Duration = Duration::from_secs(2);
/// As in a service.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// A route in a process of its own. It ends with this value.
#[derive(Debug)]
pub struct Route {
    /// Where it answers.
    pub address: SocketAddr,
    /// The token to call with.
    pub token: String,
    served: Served,
    _tokens: TempDir,
}

impl Route {
    /// Starts `program` as a route with a worker on each of `cores`. The program's `main` must begin with
    /// [`serve_if_asked`].
    ///
    /// # Errors
    /// When it cannot be started or says no address.
    pub fn start(program: &Path, cores: &[usize]) -> Result<Self> {
        let tokens = tempfile::tempdir()?;
        auth::mint(tokens.path())?;
        let token = std::fs::read_to_string(tokens.path().join("application.token"))?;
        let dir = tokens.path().to_str().context("a path that is not text")?;
        let workers = cores.len().to_string();
        let served = Served::start(program, &[ARGUMENT, dir, &workers], cores)?;
        Ok(Self {
            address: served.address,
            token: token.trim().to_owned(),
            served,
            _tokens: tokens,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.served.pid()
    }
}

/// Where this process was started as a route, is one until whoever started it is gone. Answers whether it was;
/// then there is nothing left to do.
///
/// # Errors
/// When it cannot be the route that it was asked to be.
pub fn serve_if_asked() -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return Ok(false);
    }
    let tokens = PathBuf::from(arguments.next().context("a route has tokens")?);
    let workers = arguments.next().context("a route has workers")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("stores")
        .enable_all()
        .build()?;
    let _context = runtime.enter();
    let telemetry = telemetry::init(&config_of_telemetry(), "route")?;
    let metrics = telemetry.metrics();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            metrics.run_upkeep();
        }
    });
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (address, _threads) = grpc::serve(listen, &routes(&tokens)?, workers, &CancellationToken::new())?;
    served::announce(address)?;
    Ok(true)
}

/// The routes of a process with one service, put together as the chassis does it.
fn routes(tokens: &Path) -> Result<Routes> {
    let config = config::Auth {
        tokens_dir: tokens.to_owned(),
        callers_file: PathBuf::new(),
        principal_secret: Secret::new(""),
    };
    let auth = Auth::load(&config, tokens)?;
    let permits = Arc::new(Semaphore::new(CALLS_MAX));
    let stacked = grpc::stack(Routes::new(NoOp::default()), auth, permits, DEADLINE);
    let (_, health) = tonic_health::server::health_reporter();
    let all = Routes::default().add_service(health).into_axum_router();
    let stacked = stacked.into_axum_router().reset_fallback();
    Ok(Routes::from(all.merge(stacked)).prepare())
}

fn config_of_telemetry() -> config::Telemetry {
    config::Telemetry {
        format: LogFormat::Text,
        filter: "info".to_owned(),
        otlp_endpoint: String::new(),
    }
}
