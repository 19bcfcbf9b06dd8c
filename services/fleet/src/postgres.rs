//! The private PostgreSQL that `octroi all` starts by itself when no database URL is given.
//!
//! It owns: finding binaries on the machine (`binaries`), making the instance inside the data
//! directory (`instance`), leaving root for a lesser user (`user`), taking over from a process
//! that was killed (`leftover`), starting, watching and stopping the server (`supervisor`), and
//! a database with one role and one schema a service ([`prepare`]).
//! It does not own: migrations, pools, or any server that somebody else runs.
//!
//! Two things end PostgreSQL when `octroi` itself is killed. On Linux `setpriv` (util-linux) gives
//! the server a parent-death signal, which stops it in an orderly way within moments; setting that
//! signal from here would need unsafe code. Where `setpriv` is missing the server outlives us, and
//! the next start takes it over: it is stopped, then started again on a port that this process knows.

mod binaries;
mod error;
mod instance;
mod leftover;
mod port;
mod roles;
mod supervisor;
mod user;

use std::path::{Path, PathBuf};

use tokio::sync::{oneshot, watch};

pub use error::{BinariesError, Error, UserError};
pub use roles::{prepare, service_url};
pub use supervisor::State;

use supervisor::Running;

/// The superuser of a private instance, and the database it is reached at for maintenance.
const SUPERUSER: &str = "postgres";

/// What a private PostgreSQL is started from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the instance lives: its files are in `postgres/` below, beside `postgres.log` and
    /// `postgres.password`.
    pub data_dir: PathBuf,
    /// A directory that holds `initdb` and `postgres`; without it they are looked for on the machine.
    pub binaries: Option<PathBuf>,
    /// Server settings, `name=value`, that come after ours and so override them.
    pub settings: Vec<String>,
}

impl Options {
    /// An instance in `data_dir`, with the binaries and settings that a deployment wants by default.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            binaries: None,
            settings: Vec::new(),
        }
    }
}

/// A running private PostgreSQL. Dropping it asks the server to stop without waiting for it;
/// [`PrivatePostgres::stop`] waits.
#[derive(Debug)]
pub struct PrivatePostgres {
    running: Running,
    state: watch::Receiver<State>,
    /// The supervisor stops the server when this is dropped, so that no way out leaves one behind.
    stop: oneshot::Sender<()>,
}

/// Starts the instance of `options.data_dir`, making it first where there is none, and returns once
/// it answers.
///
/// # Errors
/// Every refusal is one sentence that says what stands in the way and what to do about it.
pub async fn start(options: Options) -> Result<PrivatePostgres, Error> {
    let (stop, stop_asked) = oneshot::channel();
    let (state_changes, state) = watch::channel(State::Starting);
    let (ready, answer) = oneshot::channel();
    // A thread of its own, because the kernel sends a parent-death signal when the *thread* that
    // spawned the child ends: a worker of somebody's runtime may end long before the process does.
    std::thread::Builder::new()
        .name("octroi-postgres".to_owned())
        .spawn(move || supervisor::run(options, ready, &state_changes, stop_asked))
        .map_err(|source| Error::Thread { source })?;
    let running = answer.await.map_err(|_| Error::SupervisorLost)??;
    Ok(PrivatePostgres { running, state, stop })
}

/// The superuser's URL of the server that works in `data_dir`, and the secret of [`PrivatePostgres::secret`],
/// for a program beside the one that started it; none where no server was started there.
#[must_use]
pub fn running_in(data_dir: &Path) -> Option<(String, Vec<u8>)> {
    let password = std::fs::read_to_string(data_dir.join("postgres.password")).ok()?;
    let password = password.trim();
    // PostgreSQL's own file: its process, its directory, its start, its port, each on a line.
    let server = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    let port = server.lines().nth(3)?.trim().parse().ok()?;
    Some((superuser_url(password, port), password.as_bytes().to_vec()))
}

fn superuser_url(password: &str, port: u16) -> String {
    format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres?sslmode=disable")
}

impl PrivatePostgres {
    /// The superuser's URL, at the maintenance database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.running.url
    }

    /// The port on 127.0.0.1, which stays the same through restarts of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The directory of the binaries in use.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.running.binaries
    }

    /// A secret that belongs to this data directory, from which the services' passwords derive.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        self.running.password.as_bytes()
    }

    /// One line for the operator: which PostgreSQL, from where, on which port, as whom.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.running.summary
    }

    /// The server's process while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running { pid } => Some(pid),
            _ => None,
        }
    }

    /// Follows what happens to the server, so that the caller can tell the operator.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Returns when the server is gone for good: it was stopped, or the supervisor gave up.
    pub async fn wait(&self) -> State {
        let mut state = self.state.clone();
        match state.wait_for(State::is_final).await {
            Ok(last) => last.clone(),
            Err(_) => State::Failed {
                why: Error::SupervisorLost.to_string(),
            },
        }
    }

    /// Stops the server and waits until it is gone: a fast stop, then after 10 s a kill.
    pub async fn stop(self) {
        let Self { state, stop, .. } = self;
        drop(stop);
        let mut state = state;
        // An error means that the supervisor is gone already, and the server with it.
        let _ = state.wait_for(State::is_final).await;
    }
}
