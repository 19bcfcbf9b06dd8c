//! What the least server costs that could answer at all: tonic, and nothing behind it.
//!
//! The floor is built here and not with `octroi_kit::grpc`, whose shape it has: a baseline must stay where it
//! is when what is compared with it changes.

mod no_op;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Builder;
use tonic::transport::{Server, server::TcpIncoming};

use super::pin;
use no_op::NoOp;

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
    child: Child,
}

impl Floor {
    /// Starts this program again as a floor with a worker on each of `cores`. The program's `main` must begin
    /// with [`serve_if_asked`].
    ///
    /// # Errors
    /// When it cannot be started or says no address.
    pub fn start(shape: Shape, cores: &[usize]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, shape.name(), &cores.len().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = pin::on(cores, || command.spawn())?.context("the floor cannot be started")?;
        let unspecified = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut floor = Self {
            address: unspecified,
            child,
        };
        let mut line = String::new();
        let output = floor.child.stdout.take().context("its output is ours")?;
        BufReader::new(output).read_line(&mut line)?;
        floor.address = line.trim().parse().context("the floor says no address")?;
        Ok(floor)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let mut output = std::io::stdout();
    writeln!(output, "{address}").and_then(|()| output.flush())?;
    // Nobody writes to it; it ends when the process that holds the other end does, even by a kill.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(true)
}

/// Serves a floor in this process until it ends, on threads whose names begin with [`THREADS`]. They run
/// where the caller runs: start it with [`pin::on`].
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
