//! The second rung: one container a server, where Docker answers.
//!
//! Containers are removed when the keeper stops them. A keeper that is killed leaves them behind, as
//! nothing outside of Docker could remove them then; they carry the label `octroi.tests`.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::time::{Instant, sleep};

use super::{Backend, Kind, Rung, check, given};

/// Includes loading an image for the first time.
const START_MAX: Duration = Duration::from_secs(240);

/// From the message that a server is ready until it lets us in.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A server in a container.
pub(super) struct Container {
    container: ContainerAsync<GenericImage>,
    backend: Backend,
}

impl Container {
    /// Starts the container for `kind`; nothing when Docker does not answer.
    pub(super) async fn start(kind: Kind) -> Option<Result<Self>> {
        if !answers() {
            return None;
        }
        Some(
            Self::launch(kind)
                .await
                .with_context(|| format!("Docker answers, but {kind} does not start in it")),
        )
    }

    async fn launch(kind: Kind) -> Result<Self> {
        let (request, port) = request(kind);
        let container = request
            .with_label("octroi.tests", kind.name())
            .with_startup_timeout(START_MAX)
            .start()
            .await?;
        let host = container.get_host().await?;
        let port = container.get_host_port_ipv4(port).await?;
        let url = match kind {
            Kind::Postgres => format!("postgres://postgres:octroi@{host}:{port}/postgres"),
            Kind::Redis => format!("redis://{host}:{port}"),
            Kind::RabbitMq => format!("amqp://guest:guest@{host}:{port}/%2f"),
        };
        let since = Instant::now();
        while let Err(error) = check(kind, &url).await {
            if since.elapsed() > ANSWER_MAX {
                return Err(error);
            }
            sleep(POLL).await;
        }
        let about = format!("container {} on port {port}", container.id());
        Ok(Self {
            container,
            backend: Backend {
                url,
                rung: Rung::Docker,
                about,
            },
        })
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        // When Docker itself is gone, so is the container for us.
        while self.container.is_running().await.unwrap_or(false) {
            sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.container.rm().await.context("a container cannot be removed")
    }
}

fn request(kind: Kind) -> (ContainerRequest<GenericImage>, u16) {
    match kind {
        Kind::Postgres => {
            let image = GenericImage::new("postgres", "17-alpine")
                .with_exposed_port(5432.tcp())
                .with_wait_for(WaitFor::message_on_stderr("ready to accept connections"));
            let request = image.with_env_var("POSTGRES_PASSWORD", "octroi");
            let settings = super::keeper::POSTGRES_SETTINGS
                .iter()
                .flat_map(|setting| ["-c", setting]);
            (
                request.with_cmd(std::iter::once("postgres").chain(settings)),
                5432,
            )
        }
        Kind::Redis => {
            let image = GenericImage::new("redis", "7-alpine")
                .with_exposed_port(6379.tcp())
                .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"));
            let command = [
                "redis-server",
                "--save",
                "",
                "--appendonly",
                "no",
                "--databases",
                "1024",
            ];
            (image.with_cmd(command), 6379)
        }
        Kind::RabbitMq => {
            let image = GenericImage::new("rabbitmq", "3.13-alpine")
                .with_exposed_port(5672.tcp())
                .with_wait_for(WaitFor::message_on_stdout("Server startup complete"));
            (image.into(), 5672)
        }
    }
}

/// Whether Docker's socket accepts a connection: that it is there says nothing, since it stays when
/// Docker is stopped. An address in `DOCKER_HOST` that is no socket is taken at its word.
fn answers() -> bool {
    let sockets = match given("DOCKER_HOST") {
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => vec![PathBuf::from(path)],
            None => return true,
        },
        None => usual_sockets(),
    };
    sockets.iter().any(|path| UnixStream::connect(path).is_ok())
}

fn usual_sockets() -> Vec<PathBuf> {
    let below =
        |variable: &str, path: &str| std::env::var_os(variable).map(|dir| PathBuf::from(dir).join(path));
    [
        Some(PathBuf::from("/var/run/docker.sock")),
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
