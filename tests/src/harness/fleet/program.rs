//! The program `octroi`: one way to call it, and a process that runs.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::harness::backends::process::Process;

const PROGRAM: &str = "octroi";

/// A first start makes a PostgreSQL, on cores that a build may be using too.
const READY_MAX: Duration = Duration::from_secs(90);
/// How long a call that does something and ends may take.
const END_MAX: Duration = Duration::from_secs(180);
/// How much of a log is shown.
const LOG_TAIL_BYTES: u64 = 6 * 1024;

/// What the surroundings of the tests must not tell the program: it refuses keys that it does not know.
const FOREIGN: [&str; 2] = ["OCTROI_", "TEST_"];

/// One way to call the program: again and again the same.
#[derive(Clone, Debug, Default)]
pub struct Call {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    dir: PathBuf,
    log: PathBuf,
    /// Another one than [`PROGRAM`].
    program: Option<String>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it said on standard output.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
}

impl Ended {
    /// Itself, if the exit code is 0.
    ///
    /// # Errors
    /// What it said otherwise.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(
            self.code == Some(0),
            "octroi ended with {:?}: {}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

impl Call {
    /// Calls with `arguments` in the directory `dir`, where `name` is what the log is called.
    #[must_use]
    pub fn new(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: Vec::new(),
            dir: dir.to_owned(),
            log: dir.join(format!("{name}.log")),
            program: None,
        }
    }

    /// Calls another program that lies beside `octroi`.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.program = Some(name.to_owned());
        self
    }

    fn path(&self) -> Result<PathBuf> {
        path(self.program.as_deref().unwrap_or(PROGRAM))
    }

    /// Sets a configuration key by its path, such as `grpc.listen`.
    #[must_use]
    pub fn set(self, key: &str, value: impl Into<String>) -> Self {
        let variable = format!("OCTROI_{}", key.replace('.', "__").to_uppercase());
        self.environment(&variable, value)
    }

    /// Sets a variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The file that the call writes its addresses into, where it does.
    #[must_use]
    pub fn addresses_file(&self) -> Option<PathBuf> {
        let mut arguments = self.arguments.iter();
        arguments.find(|argument| *argument == "--addresses-file")?;
        arguments.next().map(PathBuf::from)
    }

    /// Starts it. What it says goes to the end of its log.
    ///
    /// # Errors
    /// When the program is not built or cannot be run.
    pub fn start(&self) -> Result<Program> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let errors = log.try_clone()?;
        let path = self.path()?;
        let process = Process::start(path.to_str().context("a path that is not text")?, |command| {
            self.surround(command);
            command.args(&self.arguments).stdout(log).stderr(errors);
        })?;
        Ok(Program { process })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be run, or has not ended within three minutes.
    pub async fn ends(&self) -> Result<Ended> {
        let mut command = Command::new(self.path()?);
        self.surround(&mut command);
        command.args(&self.arguments);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).stdin(std::process::Stdio::null());
        let output = tokio::time::timeout(END_MAX, command.output()).await;
        let output =
            output.with_context(|| format!("octroi {} does not end", self.arguments.join(" ")))??;
        Ok(Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn surround(&self, command: &mut Command) {
        command.current_dir(&self.dir);
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| FOREIGN.iter().any(|prefix| name.starts_with(prefix)))
            {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// All that it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it has said so far.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        tail().map_or_else(
            |error| error.to_string(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

/// A process that runs the program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    process: Process,
}

impl Program {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within three minutes.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        tokio::time::timeout(END_MAX, self.process.ended())
            .await
            .context("octroi does not end")?
    }

    /// Waits until `/readyz` says so and, where it writes its addresses, until they are there.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub async fn becomes_ready(&mut self, admin: SocketAddr, addresses: Option<&Path>) -> Result<()> {
        let ready = || async {
            if let Some(file) = addresses {
                ensure!(file.exists(), "it has not written its addresses");
            }
            is_ready(admin).await
        };
        self.process.becomes_ready(READY_MAX, ready).await
    }
}

/// Whether `/readyz` at `admin` says so.
///
/// # Errors
/// What is not ready.
pub async fn is_ready(admin: SocketAddr) -> Result<()> {
    let answer = reqwest::get(format!("http://{admin}/readyz")).await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(
        status.is_success(),
        "{status}: {}",
        body.trim().replace('\n', ", ")
    );
    Ok(())
}

/// The program lies beside the test binary, or, as that is in `deps/`, one above.
fn path(program: &str) -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    us.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("the program {program} is not built: run `cargo build --workspace --bins`"))
}
