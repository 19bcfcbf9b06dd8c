//! What the least server costs that could answer at all: tonic, and nothing behind it.
//!
//! The floor is built here and not with `octroi_kit::grpc`, whose shape it has: a baseline must stay where it
//! is when what is compared with it changes.

mod no_op;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Builder;
use tonic::transport::{Server, server::TcpIncoming};

use super::served::{self, Served};
pub(super) use no_op::NoOp;

/// What names the threads of a floor that runs in this process.
pub const THREADS: &str = "floor-";

/// The argument that makes a program a floor.
const ARGUMENT: &str = "--floor";

/// On what a floor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A current-thread runtime on each core, which share a port: as services of the fleet.
    PerCore,
    /// What `#[tokio::main]` makes: one runtime whose workers steal work from each other.
    WorkStealing,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::PerCore => "per-core",
            Self::WorkStealing => "work-stealing",
        }
    }
}

/// A floor in a process of its own. It ends with this value.
#[derive(Debug)]
pub struct Floor {
    /// Where it answers.
    pub address: SocketAddr,
    served: Served,
}

impl Floor {
    /// Starts this program again as a floor with a worker on each of `cores`. The program's `main` must begin
    /// with [`serve_if_asked`].
    ///
    /// # Errors
    /// When it cannot be started or says no address.
    pub fn start(shape: Shape, cores: &[usize]) -> Result<Self> {
        let workers = cores.len().to_string();
        let arguments = [ARGUMENT, shape.name(), &workers];
        let served = Served::start(&std::env::current_exe()?, &arguments, cores)?;
        Ok(Self {
            address: served.address,
            served,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.served.pid()
    }
}

/// Where this process was started as a floor, is one until whoever started it is gone. Answers whether it was;
/// then there is nothing left to do.
///
/// # Errors
/// When it cannot be the floor that it was asked to be.
pub fn serve_if_asked() -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return Ok(false);
    }
    let name = arguments.next().unwrap_or_default();
    let shapes = [Shape::PerCore, Shape::WorkStealing];
    let Some(shape) = shapes.into_iter().find(|shape| shape.name() == name) else {
        bail!("there is no floor {name:?}");
    };
    let workers = arguments.next().context("a floor has workers")?.parse()?;
    let address = serve_here(shape, workers)?;
    served::announce(address)?;
    Ok(true)
}

/// Serves a floor in this process until it ends, on threads whose names begin with [`THREADS`]. They run
/// where the caller runs: start it with [`super::pin::on`].
///
/// # Errors
/// When there is no port or no thread.
pub fn serve_here(shape: Shape, workers: usize) -> Result<SocketAddr> {
    let mut listeners = vec![bind((Ipv4Addr::LOCALHOST, 0).into())?];
    let address = listeners[0].local_addr()?;
    let builder = match shape {
        Shape::PerCore => {
            for _ in 1..workers {
                listeners.push(bind(address)?);
            }
            Builder::new_current_thread
        }
        Shape::WorkStealing => Builder::new_multi_thread,
    };
    for (index, listener) in listeners.into_iter().enumerate() {
        let runtime = builder()
            .worker_threads(workers)
            .thread_name(format!("{THREADS}worker"))
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name(format!("{THREADS}{index}"));
        thread.spawn(move || {
            runtime
                .block_on(serve(listener))
                .expect("a floor serves for good")
        })?;
    }
    Ok(address)
}

/// Serves until the process ends.
async fn serve(listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    // The limit that the services of the fleet have.
    let mut server = Server::builder().max_concurrent_streams(200);
    Ok(server
        .add_service(NoOp::default())
        .serve_with_incoming(incoming)
        .await?)
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    Ok(socket.into())
}
