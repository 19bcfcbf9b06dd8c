//! RabbitMQ: a server of our own, and a corner of one for a test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::process::{Process, connect};
use super::{Backend, unique};
use crate::harness::port::Port;

/// All namespaces of tests begin with this; the server forgets queues of that name.
const TEST_PREFIX: &str = "octroi-test-";

/// A queue of a test that nobody used for this long is removed. Longer than any one test, since a
/// queue that only delays messages has no consumer while its test runs.
const QUEUE_LIFE_MS: u64 = 300_000;

/// Erlang takes 6 s to start on two idle cores, and several times that beside a build.
const READY_MAX: Duration = Duration::from_secs(120);
const EPMD_READY_MAX: Duration = Duration::from_secs(10);

const USER: &str = "octroi";
const PASSWORD: &str = "octroi";

/// Where packages put the script. Debian's in `/usr/sbin` switches to another user, which needs root
/// and another user's directories, so the one behind it comes first.
const SCRIPTS: [&str; 5] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/sbin/rabbitmq-server",
];

/// The RabbitMQ of this test run.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    backend: Backend,
}

/// A corner of RabbitMQ that only one test uses.
#[derive(Clone, Debug)]
pub struct BusNamespace {
    /// Where the broker is.
    pub url: String,
    /// What the names of exchanges and queues begin with.
    pub namespace: String,
}

impl RabbitMq {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// A namespace for one test. Not a virtual host, because only the management plugin or half a
    /// second of `rabbitmqctl` can make one.
    #[must_use]
    pub fn namespace(&self) -> BusNamespace {
        BusNamespace {
            url: self.backend.url.clone(),
            namespace: unique(TEST_PREFIX),
        }
    }
}

/// A RabbitMQ of our own, with its own Erlang port mapper, for the keeper and for tests that break it.
#[derive(Debug)]
pub struct RabbitMqServer {
    // Before the port mapper, as fields are dropped in this order.
    process: Process,
    _epmd: Process,
    node: Node,
}

/// What makes a node a node of its own.
#[derive(Debug)]
struct Node {
    script: PathBuf,
    dir: PathBuf,
    port: Port,
    distribution_port: Port,
    epmd_port: Port,
}

impl RabbitMqServer {
    /// Starts a node with its files in `dir` and every port its own.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub async fn start(dir: &Path) -> Result<Self> {
        let script = SCRIPTS.iter().map(PathBuf::from).find(|path| path.is_file());
        let node = Node {
            script: script
                .with_context(|| format!("rabbitmq-server is in none of {}", SCRIPTS.join(", ")))?,
            dir: dir.to_owned(),
            port: Port::reserve()?,
            distribution_port: Port::reserve()?,
            epmd_port: Port::reserve()?,
        };
        node.write_files()?;
        let epmd = node.launch_epmd().await?;
        let process = node.launch().await?;
        Ok(Self {
            process,
            _epmd: epmd,
            node,
        })
    }

    /// Where it is, through restarts too.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", self.node.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.node.port.number()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, such as one that stops or kills it.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn ended(&mut self) -> Result<()> {
        self.process.ended().await.map(drop)
    }

    /// Kills it if it lives and starts it again on the same port with what it had on disk. A quorum
    /// queue that was declared less than a second before the kill does not come back to life (seen
    /// with 3.10.8): the broker writes down its members only then.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.signal(Signal::SIGKILL).is_ok() {
            self.process.ended().await?;
        }
        self.process = self.node.launch().await?;
        Ok(())
    }

    /// Runs `rabbitmqctl` against it and returns what it says.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.node.script.with_file_name("rabbitmqctl"));
        self.node.surround(&mut command);
        command.arg("--quiet").args(arguments);
        let output = tokio::process::Command::from(command).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "rabbitmqctl {}: {}",
            arguments.join(" "),
            errors.trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Node {
    fn write_files(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let definitions = self.dir.join("definitions.json");
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = false\nlog.file.level = warning\n\
             load_definitions = {}\nvm_memory_high_watermark.absolute = 1GB\n",
            self.port,
            definitions.display()
        );
        std::fs::write(self.dir.join("rabbitmq.conf"), configuration)?;
        std::fs::write(self.dir.join("enabled_plugins"), "[].\n")?;
        let content = serde_json::json!({
            "vhosts": [{ "name": "/" }],
            "users": [{ "name": USER, "password": PASSWORD, "tags": "administrator" }],
            "permissions": [{ "user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }],
            "policies": [{
                "vhost": "/",
                "name": "forget-queues-of-finished-tests",
                "pattern": format!("^{TEST_PREFIX}"),
                "apply-to": "queues",
                "priority": 0,
                "definition": { "expires": QUEUE_LIFE_MS },
            }],
        });
        std::fs::write(definitions, serde_json::to_vec_pretty(&content)?)?;
        Ok(())
    }

    /// The port mapper, in the foreground: one that Erlang starts by itself would outlive the node.
    async fn launch_epmd(&self) -> Result<Process> {
        let mut epmd = Process::start("epmd", |command| {
            command.args(["-port", &self.epmd_port.to_string(), "-address", "127.0.0.1"]);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            command.current_dir(&self.dir);
        })?;
        let address = self.epmd_port.address();
        epmd.becomes_ready(EPMD_READY_MAX, || accepts(address))
            .await
            .context("epmd")?;
        Ok(epmd)
    }

    async fn launch(&self) -> Result<Process> {
        let script = self.script.to_str().context("a path that is not text")?;
        let log = std::fs::File::create(self.dir.join("output.log"))?;
        let errors = log.try_clone()?;
        let mut process = Process::start(script, |command| {
            self.surround(command);
            command.stdout(log).stderr(errors);
        })?;
        let address = self.port.address();
        let ready = process.becomes_ready(READY_MAX, || greets(address)).await;
        ready.with_context(|| format!("{script} (its output is in {})", self.dir.display()))?;
        Ok(process)
    }

    /// Directory and environment, in which nothing of the machine's own RabbitMQ is left.
    fn surround(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", path)
            .env("LANG", "C.UTF-8")
            // Where the Erlang cookie is.
            .env("HOME", &self.dir)
            .env("RABBITMQ_NODENAME", format!("octroi-{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONFIG_FILE", self.dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.dir.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.dir.join("log"))
            // The machine's own file of settings would win over these.
            .env("RABBITMQ_CONF_ENV_FILE", self.dir.join("none"))
            // Makes the script become the server instead of its parent, so that signals reach it.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
            );
    }
}

async fn accepts(address: SocketAddr) -> Result<()> {
    connect(address).await.map(drop)
}

/// Whether something at `address` begins to speak AMQP: it listens only when it has loaded everything.
async fn greets(address: SocketAddr) -> Result<()> {
    const METHOD_FRAME: u8 = 1;
    let mut stream = connect(address).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let kind = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await??;
    ensure!(kind == METHOD_FRAME, "it does not speak AMQP");
    Ok(())
}

/// Whether a RabbitMQ lets us in there.
pub(super) async fn check(url: &str) -> Result<()> {
    let opening = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    let connection = tokio::time::timeout(Duration::from_secs(10), opening).await??;
    connection.close(200, "seen".into()).await?;
    Ok(())
}
