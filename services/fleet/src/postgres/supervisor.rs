//! Starts the server, watches it, brings it back when it dies, and stops it.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::binaries::{self, Binaries};
use super::error::Error;
use super::instance::{self, Instance};
use super::user::RunAs;
use super::{Options, SUPERUSER, leftover, port, superuser_url};

/// Recovery after a kill replays the write-ahead log, which takes a while on a slow disk.
const READY_MAX: Duration = Duration::from_secs(120);
const READY_POLL: Duration = Duration::from_millis(20);

/// A port chosen at the first start may be taken by the time that PostgreSQL asks for it.
const PORT_TRIES_MAX: u32 = 3;

/// A fast stop ends every session and writes a checkpoint; past this it is killed, which is safe.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How often a server that dies is brought back before we say that it does not hold.
const RESTARTS_MAX: u32 = 5;

/// A server that ran this long was healthy: its next death is counted from one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// What happens to a private PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// On the way up for the first time.
    Starting,
    /// It answers.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It died and is being brought back on the same port.
    Restarting {
        /// Which try this is, from 1.
        attempt: u32,
        /// One sentence for the operator.
        why: String,
    },
    /// It died too often; nothing more is tried.
    Failed {
        /// One sentence for the operator.
        why: String,
    },
    /// It was stopped because that was asked for.
    Stopped,
}

impl State {
    /// Whether nothing comes after this.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Stopped)
    }
}

/// What a caller has to know of a server that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) url: String,
    pub(super) port: u16,
    pub(super) binaries: PathBuf,
    pub(super) password: String,
    pub(super) summary: String,
}

/// The supervisor's whole life, on a thread of its own: ends when the server is stopped, or given up.
pub(super) fn run(
    options: Options,
    ready: oneshot::Sender<Result<Running, Error>>,
    state: &watch::Sender<State>,
    stop: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            // Nobody waits any more when this fails, and then nobody needs to know.
            let _ = ready.send(Err(Error::Thread { source }));
            return;
        }
    };
    let last = runtime.block_on(live(options, ready, state, stop));
    // Sent when the data directory is unlocked again, so that whoever waited can start anew at once.
    state.send_replace(last);
}

async fn live(
    options: Options,
    ready: oneshot::Sender<Result<Running, Error>>,
    state: &watch::Sender<State>,
    mut stop: oneshot::Receiver<()>,
) -> State {
    let (server, mut child, _lock) = match bring_up(options).await {
        Ok(up) => up,
        Err(error) => {
            let why = error.to_string();
            let _ = ready.send(Err(error));
            return State::Failed { why };
        }
    };
    state.send_replace(State::Running {
        pid: child.id().unwrap_or_default(),
    });
    if ready.send(Ok(server.describe())).is_err() {
        // The caller went away while we started.
        server.end(child).await;
        return State::Stopped;
    }
    let mut attempt = 0;
    loop {
        let since = Instant::now();
        let died = tokio::select! {
            status = child.wait() => server.obituary(status.ok()),
            _ = &mut stop => {
                server.end(child).await;
                return State::Stopped;
            }
        };
        attempt = if since.elapsed() > HEALTHY_AFTER {
            1
        } else {
            attempt + 1
        };
        child = match server.bring_back(&mut attempt, died, state, &mut stop).await {
            Ok(child) => child,
            Err(last) => return last,
        };
        state.send_replace(State::Running {
            pid: child.id().unwrap_or_default(),
        });
    }
}

/// From options to a server that answers. The lock is held for as long as the server lives.
async fn bring_up(options: Options) -> Result<(Server, Child, std::fs::File), Error> {
    let instance = Instance::at(&options.data_dir)?;
    let lock = instance.lock()?;
    let cluster = instance.cluster();
    let run_as = RunAs::choose(&cluster)?;
    let major = instance.major()?;
    let tools = places_of_tools(&instance);
    let wanted = major.as_deref().map(|major| (cluster.as_path(), major));
    let binaries = binaries::find(options.binaries.as_deref(), &tools, wanted)?;
    run_as.open_to_pass(instance.data_dir())?;
    run_as.check_reach(&cluster)?;
    run_as.check_reach(&binaries.dir.join("postgres"))?;
    let password = instance.password(major.is_none())?;
    if major.is_none() {
        instance.make(&binaries, &run_as, &password)?;
    } else {
        leftover::clear(&cluster)?;
    }
    let settings = options.settings;
    let mut server = Server {
        instance,
        binaries,
        run_as,
        password,
        settings,
        port: 0,
    };
    let mut tries = 0;
    loop {
        tries += 1;
        server.port = port::free_port().map_err(|source| Error::NoPort { source })?;
        match server.launch().await {
            Ok(child) => return Ok((server, child, lock)),
            Err(Error::Start { last_line, .. })
                if last_line.contains("TCP/IP sockets") && tries < PORT_TRIES_MAX => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where a package manager may have put binaries: beside the data directory, which by default lies in
/// the checkout, and where we were started.
fn places_of_tools(instance: &Instance) -> Vec<PathBuf> {
    let beside = instance.data_dir().parent().map(|parent| parent.join(".tools"));
    let here = std::env::current_dir().ok().map(|here| here.join(".tools"));
    let mut places: Vec<PathBuf> = here.into_iter().chain(beside).collect();
    places.dedup();
    places
}

/// One instance with all that is needed to start its server again.
struct Server {
    instance: Instance,
    binaries: Binaries,
    run_as: RunAs,
    password: String,
    settings: Vec<String>,
    port: u16,
}

impl Server {
    /// Starts the server and waits until it answers.
    async fn launch(&self) -> Result<Child, Error> {
        let (log, log_from) = self.instance.open_log()?;
        let program = self.binaries.dir.join("postgres");
        let mut command = instance::server_command(&program, &self.run_as, "INT");
        command.arg("-D").arg(self.instance.cluster());
        for setting in self.settings() {
            command.arg("-c").arg(setting);
        }
        let errors = log.try_clone().map_err(Error::io("open", &self.instance.log()))?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .current_dir("/");
        // In our own group a Ctrl-C of the terminal would stop the database before the services that
        // still finish their work on it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = Command::from(command)
            .spawn()
            .map_err(Error::io("run", &program))?;
        match self.answers(&mut child, log_from).await {
            Ok(()) => Ok(child),
            Err(error) => {
                self.end(child).await;
                Err(error)
            }
        }
    }

    /// Given on the command line, so that an instance made by an earlier release has them too.
    fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            // The path of a socket may hold about 100 bytes, which a data directory easily exceeds.
            "unix_socket_directories=".to_owned(),
            "max_connections=100".to_owned(),
            // A development machine pays for idle memory; the system's file cache does the rest.
            "shared_buffers=32MB".to_owned(),
            "fsync=on".to_owned(),
            "synchronous_commit=on".to_owned(),
            // A transaction that a cancelled request left open holds its locks no longer than this.
            "idle_in_transaction_session_timeout=5s".to_owned(),
            // Compiling a plan costs more than our short statements ever gain from it.
            "jit=off".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "log_destination=stderr".to_owned(),
            "logging_collector=off".to_owned(),
            "cluster_name=octroi".to_owned(),
        ];
        settings.extend(self.settings.iter().cloned());
        settings
    }

    /// Waits until a session opens: to be accepted takes our password, so it is our server that answers.
    async fn answers(&self, child: &mut Child, log_from: u64) -> Result<(), Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(SUPERUSER)
            .password(&self.password)
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        let since = Instant::now();
        while since.elapsed() < READY_MAX {
            if let Ok(Some(_)) = child.try_wait() {
                let last_line = self.instance.last_words(log_from);
                return Err(Error::Start {
                    last_line,
                    log: self.instance.log(),
                });
            }
            match timeout(Duration::from_secs(5), options.connect()).await {
                Ok(Ok(session)) => {
                    // Only to be polite: the session ends with the connection anyway.
                    let _ = sqlx::Connection::close(session).await;
                    return Ok(());
                }
                Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() == Some("28P01") => {
                    return Err(Error::Password {
                        path: self.instance.password_file(),
                    });
                }
                _ => sleep(READY_POLL).await,
            }
        }
        Err(Error::Silent {
            waited_s: READY_MAX.as_secs(),
            log: self.instance.log(),
        })
    }

    /// Brings a dead server back on its port. `Err` is the last state: stopped meanwhile, or given up.
    async fn bring_back(
        &self,
        attempt: &mut u32,
        mut why: String,
        state: &watch::Sender<State>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<Child, State> {
        loop {
            if *attempt > RESTARTS_MAX {
                return Err(State::Failed {
                    why: format!("{why}; it was restarted {RESTARTS_MAX} times"),
                });
            }
            tracing::warn!(attempt = *attempt, "{why}; starting it again");
            state.send_replace(State::Restarting {
                attempt: *attempt,
                why: why.clone(),
            });
            let pause = Duration::from_millis(50) * 2_u32.pow(*attempt);
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut *stop => return Err(State::Stopped),
            }
            let launched = match leftover::clear(&self.instance.cluster()) {
                Ok(()) => self.launch().await,
                Err(error) => Err(error),
            };
            match launched {
                Ok(child) => return Ok(child),
                Err(error) => why = error.to_string(),
            }
            *attempt += 1;
        }
    }

    /// Stops the server: fast, and after a while by force.
    async fn end(&self, mut child: Child) {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It cannot be somebody else: its process id is ours until we have waited for it.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if timeout(STOP_MAX, child.wait()).await.is_err() {
            tracing::warn!("the private PostgreSQL did not stop in time, it is killed");
            let _ = child.kill().await;
            if let Err(error) = leftover::clear(&self.instance.cluster()) {
                tracing::warn!("{error}");
            }
        }
    }

    fn obituary(&self, status: Option<ExitStatus>) -> String {
        let how = status.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string());
        format!(
            "the private PostgreSQL died ({how}; its log is {})",
            self.instance.log().display()
        )
    }

    fn describe(&self) -> Running {
        let Self {
            instance,
            binaries,
            port,
            password,
            ..
        } = self;
        Running {
            url: superuser_url(password, *port),
            port: *port,
            binaries: binaries.dir.clone(),
            password: password.clone(),
            summary: format!(
                "private PostgreSQL {} from {} on 127.0.0.1:{port}, data in {}, running as {}",
                binaries.version,
                binaries.dir.display(),
                instance.cluster().display(),
                self.run_as.name()
            ),
        }
    }
}
