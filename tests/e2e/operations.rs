//! What operators see: starting, stopping, configuring, and what breaks.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use octroi_tests::harness::{
    backends,
    fleet::{
        APPLICATION, Call, Clients, Ended, Fleet, OPERATOR, Program, Rest, eventually, is_ready, open_dir,
    },
    port::Port,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    asks::{consume, event, ledger_total, upsert_account},
    story::both_topologies,
};

both_topologies!(sigterm_ends_everything_in_order);

/// Work in flight has 20 s, and the rest of a process as long again at the very most.
const STOP_MAX: Duration = Duration::from_secs(25);

async fn sigterm_ends_everything_in_order(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    app.quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?;
    for service in ["gateway", "notification", "billing", "quota", "usage", "account"] {
        let since = Instant::now();
        let status = fleet.stop(service).await?;
        ensure!(status.code() == Some(0), "{service} ended with {status}");
        ensure!(since.elapsed() < STOP_MAX, "{service} took {:?}", since.elapsed());
        if fleet.topology() == octroi_tests::harness::fleet::Topology::OneProcess {
            break;
        }
    }
    // Whether the notice was written before the end does not matter here; that nothing is lost does.
    fleet.expect_leftovers();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_serves_only_while_all_that_it_needs_is_there() -> Result<()> {
    let dir = open_dir()?;
    let database = backends::postgres()
        .await
        .create_migrated(&[("account", &octroi_account::MIGRATOR)])
        .await?;
    let bus = backends::rabbitmq().await.namespace();
    let broker = address_of(&bus.url)?;
    let ports = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
    let (grpc, admin, road) = (ports.0.address(), ports.1.address(), ports.2.address());
    let tokens = dir.path().join("tokens");
    let minting = Call::new(dir.path(), "tokens", &["tokens", "mint", "--dir", text(&tokens)?]);
    minting.ends().await?.succeeded()?;
    let call = Call::new(dir.path(), "account", &["run", "account"])
        .set("grpc.listen", grpc.to_string())
        .set("admin.listen", admin.to_string())
        .set("auth.tokens_dir", text(&tokens)?)
        .set("account.database.url", database.url("account"))
        .set("bus.backend", "rabbitmq")
        .set("bus.url", bus.url.replace(&broker.to_string(), &road.to_string()))
        .set("bus.namespace", &bus.namespace);
    let _account = call.start()?;

    eventually("it says that the bus is away", async || {
        ensure!(
            health(grpc).await? == ServingStatus::NotServing,
            "it serves without a bus"
        );
        let refusal = is_ready(admin)
            .await
            .err()
            .context("it is ready without a bus")?
            .to_string();
        ensure!(
            refusal.starts_with("503") && refusal.contains("account/bus"),
            "{refusal}"
        );
        Ok(())
    })
    .await
    .with_context(|| call.log_tail())?;
    // It lives all the same, and nobody must restart it for that.
    ensure!(
        reqwest::get(format!("http://{admin}/livez"))
            .await?
            .status()
            .is_success(),
        "it is not alive"
    );

    let road = TcpListener::bind(road).await?;
    tokio::spawn(async move {
        while let Ok((mut from, _)) = road.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(broker).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    eventually("it serves", async || {
        is_ready(admin).await?;
        ensure!(
            health(grpc).await? == ServingStatus::Serving,
            "it does not serve yet"
        );
        Ok(())
    })
    .await
    .with_context(|| call.log_tail())
}

async fn health(grpc: SocketAddr) -> Result<ServingStatus> {
    let channel = Channel::from_shared(format!("http://{grpc}"))?.connect().await?;
    let request = HealthCheckRequest {
        service: "octroi.account.v1.AccountService".to_owned(),
    };
    Ok(HealthClient::new(channel)
        .check(request)
        .await?
        .into_inner()
        .status())
}

/// `amqp://user:password@host:port/vhost`.
fn address_of(url: &str) -> Result<SocketAddr> {
    let (_, rest) = url.split_once('@').context("a URL without a user")?;
    let address = rest
        .split('/')
        .next()
        .unwrap_or(rest)
        .replace("localhost", "127.0.0.1");
    address
        .parse()
        .with_context(|| format!("{address} is no address"))
}

#[tokio::test]
async fn a_bad_key_is_named_and_nothing_is_opened() -> Result<()> {
    let dir = open_dir()?;
    for (key, value, said) in [
        ("grpc.listen", "nonsense", "grpc.listen"),
        ("no_such", "1", "no_such:"),
        ("no.such", "1", "no:"),
        ("grpc.no_such", "1", "grpc.no_such"),
        ("quota.counters.backend", "memcached", "quota.counters.backend"),
        (
            "quota.database.connections_max",
            "1",
            "quota.database.connections_max",
        ),
        (
            "account.database.connections_max",
            "many",
            "account.database.connections_max",
        ),
        ("bus.backend", "kafka", "bus.backend"),
        ("gateway.public_url", "octroi.example.com", "gateway.public_url"),
        ("links.quota", "quota:8081", "links.quota"),
        ("telemetry.filter", "info,=", "telemetry.filter"),
    ] {
        for arguments in [&["all"][..], &["run", "quota"], &["config", "print"]] {
            let call = Call::new(dir.path(), "bad", arguments)
                .set("data_dir", "data")
                .set(key, value);
            let ended = call.ends().await?;
            ensure!(ended.code == Some(64), "{key}={value} {arguments:?}: {ended:?}");
            one_sentence(&ended, &format!("configuration: {said}"))?;
            let variable = format!("OCTROI_{}", key.replace('.', "__").to_uppercase());
            ensure!(
                key == "no.such" || ended.stderr.contains(&variable),
                "{variable} is not named: {ended:?}"
            );
        }
        ensure!(
            !dir.path().join("data").exists(),
            "{key}={value}: the data directory was opened"
        );
    }
    let ended = Call::new(dir.path(), "bad", &["run", "nothing"]).ends().await?;
    ensure!(
        ended.code == Some(2) && ended.stderr.contains("quota"),
        "a service that is none: {ended:?}"
    );
    Ok(())
}

/// The last thing that it says is one sentence with these words, and no backtrace of any kind.
fn one_sentence(ended: &Ended, words: &str) -> Result<()> {
    let last = ended.stderr.trim_end().lines().next_back().unwrap_or_default();
    ensure!(
        last.starts_with("octroi: ") && last.contains(words),
        "without {words:?}: {ended:?}"
    );
    ensure!(!ended.stderr.contains("panicked"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_said_in_one_sentence() -> Result<()> {
    let dir = open_dir()?;
    let database = backends::postgres().await;
    let database = database
        .create_migrated(&[("account", &octroi_account::MIGRATOR)])
        .await?;
    let tokens = dir.path().join("tokens");
    Call::new(dir.path(), "tokens", &["tokens", "mint", "--dir", text(&tokens)?])
        .ends()
        .await?
        .succeeded()?;
    let taken = TcpListener::bind(("127.0.0.1", 0)).await?;
    let taken = taken.local_addr().map(|address| (taken, address))?;
    for (services, key) in [
        (&["account"][..], "grpc.listen"),
        (&["account"], "admin.listen"),
        (&["gateway"], "gateway.listen"),
    ] {
        let mut call = Call::new(dir.path(), "taken", &[&["run"], services].concat())
            .set("auth.tokens_dir", text(&tokens)?)
            .set("account.database.url", database.url("account"));
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        for (other, port) in ["grpc.listen", "admin.listen", "gateway.listen"]
            .iter()
            .zip(&ports)
        {
            let address = if *other == key { taken.1 } else { port.address() };
            call = call.set(other, address.to_string());
        }
        for service in backends::SERVICES
            .into_iter()
            .filter(|service| !services.contains(service))
        {
            call = call.set(&format!("links.{service}"), "http://127.0.0.1:9");
        }
        let ended = call.ends().await?;
        ensure!(ended.code == Some(1), "{key}: {ended:?}");
        one_sentence(&ended, &format!("{key}: cannot listen on {}", taken.1))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_configuration_is_printed_without_secrets() -> Result<()> {
    let dir = open_dir()?;
    let ended = Call::new(dir.path(), "print", &["config", "print"])
        .set(
            "quota.database.url",
            "postgres://octroi_quota:hunter2-quota@db/octroi",
        )
        .set("database.url", "postgres://postgres:hunter2-super@db/postgres")
        .set("bus.url", "amqp://octroi:hunter2-bus@broker/%2f")
        .set("quota.counters.url", "redis://:hunter2-redis@redis:6379")
        .set("auth.principal_secret", "hunter2-hunter2-hunter2-hunter2-hunter2")
        .set("billing.payments.stripe_secret_key", "sk_test_hunter2")
        .set("notification.mail.url", "smtp://octroi:hunter2-mail@mail:587")
        .set("grpc.listen", "127.0.0.1:4711")
        .ends()
        .await?
        .succeeded()?;
    ensure!(!ended.stdout.contains("hunter2"), "a secret: {}", ended.stdout);
    ensure!(
        ended.stdout.contains("127.0.0.1:4711") && ended.stdout.contains("***"),
        "{}",
        ended.stdout
    );
    let printed: toml::Table = ended.stdout.parse().context("it is no TOML")?;
    for section in [
        "grpc",
        "bus",
        "account",
        "usage",
        "quota",
        "billing",
        "notification",
        "gateway",
    ] {
        ensure!(printed.contains_key(section), "without [{section}]");
    }
    Ok(())
}

/// `octroi all` as a newcomer runs it: nothing is given but where to listen.
struct Newcomer {
    program: Program,
    call: Call,
    grpc: Port,
    admin: Port,
    gateway: Port,
    data: PathBuf,
    _dir: TempDir,
}

impl Newcomer {
    async fn start() -> Result<Self> {
        let dir = open_dir()?;
        let data = dir.path().join("data");
        let (grpc, admin, gateway) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let addresses = dir.path().join("addresses.json");
        let call = Call::new(dir.path(), "all", &["all", "--addresses-file", text(&addresses)?])
            .set("data_dir", text(&data)?)
            .set("grpc.listen", grpc.address().to_string())
            .set("admin.listen", admin.address().to_string())
            .set("gateway.listen", gateway.address().to_string());
        let mut this = Self {
            program: call.start()?,
            call,
            grpc,
            admin,
            gateway,
            data,
            _dir: dir,
        };
        this.becomes_ready().await?;
        Ok(this)
    }

    async fn becomes_ready(&mut self) -> Result<()> {
        let file = self.call.addresses_file();
        let ready = self
            .program
            .becomes_ready(self.admin.address(), file.as_deref())
            .await;
        ready.with_context(|| format!("it is not ready; the end of its log:\n{}", self.call.log_tail()))
    }

    async fn kill_and_restart(&mut self) -> Result<()> {
        self.program.signal(Signal::SIGKILL)?;
        self.program.ended().await?;
        if let Some(file) = self.call.addresses_file() {
            std::fs::remove_file(file)?;
        }
        self.program = self.call.start()?;
        self.becomes_ready().await
    }

    fn clients(&self, caller: &str) -> Result<Clients> {
        let token = std::fs::read_to_string(self.data.join(format!("tokens/{caller}.token")))?;
        Clients::new(|_| format!("http://{}", self.grpc.address()), token.trim())
    }

    fn rest(&self) -> Rest {
        Rest::new(self.gateway.address())
    }

    /// The first process of its PostgreSQL.
    fn postgres(&self) -> Option<Pid> {
        let content = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        content.lines().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // A PostgreSQL whose octroi was killed runs on; both fail only where it has ended already.
        let _ = self.program.signal(Signal::SIGKILL);
        if let Some(postgres) = self.postgres() {
            let _ = kill(postgres, Signal::SIGQUIT);
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_finds_a_demo_that_survives_kills() -> Result<()> {
    let mut octroi = Newcomer::start().await?;
    let password = std::fs::read_to_string(octroi.data.join("password"))?;
    for email in ["demo@octroi.example", "operator@octroi.example"] {
        octroi.rest().sign_in(email, password.trim()).await?;
        ensure!(octroi.call.log().contains(email), "{email} is not told");
    }
    let mut demo = octroi.rest();
    demo.sign_in("demo@octroi.example", password.trim()).await?;
    let seeded = ledger_total(&octroi.clients(OPERATOR)?, "demo", "api.requests").await?;
    ensure!(seeded.direct_amount > 1_000, "two weeks of use: {seeded:?}");

    let app = octroi.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    app.quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?;

    octroi.kill_and_restart().await?;
    let quotas = demo.get("/api/account/quotas").await?.expect(200)?;
    ensure!(
        quotas["plan"] == "starter",
        "the session and the subscription are there: {quotas}"
    );
    let kept = ledger_total(&octroi.clients(OPERATOR)?, "demo", "api.requests").await?;
    ensure!(
        kept == seeded || kept.direct_amount == seeded.direct_amount,
        "seeded again: {kept:?} {seeded:?}"
    );
    let app = octroi.clients(APPLICATION)?;
    let repeated = app
        .quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?
        .into_inner();
    ensure!(
        !repeated.allowed || repeated.repeated_request,
        "counted twice: {repeated:?}"
    );
    let total = ledger_total(&octroi.clients(OPERATOR)?, "acme", "exports.run").await?;
    ensure!(total.decided_amount == 2, "{total:?}");

    its_postgres_comes_back(&octroi).await?;
    octroi.program.signal(Signal::SIGTERM)?;
    let status = octroi.program.ended().await?;
    ensure!(
        status.code() == Some(0),
        "it ended with {status}: {}",
        octroi.call.log_tail()
    );
    ensure!(octroi.postgres().is_none(), "its PostgreSQL outlived it");
    Ok(())
}

async fn its_postgres_comes_back(octroi: &Newcomer) -> Result<()> {
    let app = octroi.clients(APPLICATION)?;
    let first = octroi.postgres().context("no PostgreSQL")?;
    kill(first, Signal::SIGKILL)?;
    let sentence = eventually("it says so", async || {
        let log = octroi.call.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("PostgreSQL is started again"))
            .collect();
        let [only] = lines[..] else {
            anyhow::bail!("{lines:?}")
        };
        Ok(only.to_owned())
    })
    .await?;
    ensure!(sentence.contains("WARN"), "{sentence}");
    eventually("events are recorded again", async || {
        let request = octroi_proto::usage::v1::TrackUsageRequest {
            event: Some(event("acme", "after", "llm.requests", 1)),
            backfill: false,
        };
        app.usage.clone().track_usage(request).await?;
        let second = octroi.postgres().context("no PostgreSQL")?;
        ensure!(second != first, "it is the same process");
        is_ready(octroi.admin.address()).await
    })
    .await
    .with_context(|| octroi.call.log_tail())?;
    let body: Value = json!({ "email": "demo@octroi.example", "password": "wrong wrong wrong" });
    let answer = octroi.rest().post("/api/auth/sign-in", &body).await?;
    ensure!(answer.refusal(401)? == "CREDENTIALS_INVALID", "{answer:?}");
    Ok(())
}
