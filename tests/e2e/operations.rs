//! What operators see: starting, stopping, configuring, and what breaks.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use octroi_proto::{common::v1::Period, notification::v1::ListNoticesRequest};
use octroi_tests::harness::{
    backends::{self, TestDatabase},
    fleet::{
        APPLICATION, Call, Ended, Fleet, OPERATOR, Topology, eventually, is_ready, open_dir, roomy_hour,
    },
    port::Port,
};
use sqlx::{Connection as _, PgConnection};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    asks::{consume, ledger_total, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(sigterm_ends_everything_in_order);

/// Work in flight has 20 s, and the rest of a process as long again at the very most.
const STOP_MAX: Duration = Duration::from_secs(25);

async fn sigterm_ends_everything_in_order(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, "acme").await?;
    // All that the hour allows, so that people have to be told.
    let decided = app
        .quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?
        .into_inner();
    ensure!(decided.allowed, "{decided:?}");
    let order: &[&str] = match fleet.topology() {
        Topology::OneProcess => &["all"],
        Topology::Split => &["gateway", "notification", "billing", "quota", "usage", "account"],
    };
    for service in order {
        let since = Instant::now();
        let status = fleet.stop(service).await?;
        ensure!(status.code() == Some(0), "{service} ended with {status}");
        ensure!(since.elapsed() < STOP_MAX, "{service} took {:?}", since.elapsed());
    }
    let ledger = "SELECT count(*) FROM usage.ledger WHERE account_id = 'acme' AND amount = 2";
    ensure!(
        count(fleet, ledger).await? == 1,
        "what was answered is not in the ledger"
    );

    // What was still to be done at the end is done after the next start, and the harness sees that nothing
    // is left.
    for service in order.iter().rev() {
        fleet.restart(service).await?;
    }
    eventually("everybody knows of it", async || {
        let total = ledger_total(&operator, "acme", "exports.run").await?;
        ensure!(
            (total.events, total.decided_amount, total.rollup_amount) == (1, 2, 2),
            "{total:?}"
        );
        let hour = standing(&app, "acme", "exports.run", Period::Hour).await?;
        ensure!(hour.used == 2, "{hour:?}");
        let request = ListNoticesRequest {
            account_id: "acme".to_owned(),
            ..ListNoticesRequest::default()
        };
        let notices = operator.notification.clone().list_notices(request).await?;
        ensure!(notices.into_inner().total_count > 0, "nobody was told");
        Ok(())
    })
    .await
}

async fn count(fleet: &Fleet, statement: &'static str) -> Result<i64> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut session).await?;
    session.close().await?;
    Ok(count)
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
        ("quota.answers.backend", "memcached", "quota.answers.backend"),
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
        ("bus.namespace", "Octroi!", "bus.namespace"),
        ("database.url", "localhost", "database.url"),
        (
            "quota.database.url",
            "localhost:5432/octroi",
            "quota.database.url",
        ),
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
    let missing = Call::new(dir.path(), "bad", &["run", "gateway", "quota"]).set("data_dir", "data");
    let ended = missing.ends().await?;
    ensure!(ended.code == Some(64), "without a database: {ended:?}");
    one_sentence(&ended, "configuration: quota.database.url: must be given")?;
    ensure!(!dir.path().join("data").exists(), "the data directory was opened");
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
    // Nobody says where the tokens are: they lie in the data directory that is named.
    let data = dir.path().join("elsewhere");
    let tokens = data.join("tokens");
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
            .set("data_dir", text(&data)?)
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
        .set("quota.redis.url", "redis://:hunter2-redis@redis:6379")
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

async fn create_database() -> Result<TestDatabase> {
    let migrators = [
        ("account", &octroi_account::MIGRATOR),
        ("usage", &octroi_usage::MIGRATOR),
        ("quota", &octroi_quota::MIGRATOR),
        ("billing", &octroi_billing::MIGRATOR),
        ("notification", &octroi_notification::MIGRATOR),
    ];
    backends::postgres().await.create_migrated(&migrators).await
}

#[tokio::test]
async fn the_doctor_tells_everything_that_is_wrong() -> Result<()> {
    let (dir, database) = (open_dir()?, create_database().await?);
    let doctor = backends::SERVICES
        .into_iter()
        .fold(Call::new(dir.path(), "doctor", &["doctor"]), |call, service| {
            call.set(&format!("{service}.database.url"), database.url(service))
        });
    let well = doctor.ends().await?.succeeded()?;
    ensure!(well.stdout.contains("nothing is wrong"), "{well:?}");

    let mut session = PgConnection::connect(database.superuser_url()).await?;
    for statement in [
        "INSERT INTO account.account (account_id, display_name, state, created_at)
         VALUES ('known', 'Known', 'active', now())",
        "INSERT INTO quota.quota_window (account_id, metric, period, start_at)
         VALUES ('known', 'm', 'hour', now()), ('ghost', 'm', 'hour', now()), ('spirit', 'm', 'hour', now())",
        "INSERT INTO quota.crossed_threshold (account_id, metric, period, start_at, limit_amount,
             threshold_percent, used, notified, crossed_at)
         SELECT account_id, metric, period, start_at, 1, 100, 1, true, now() FROM quota.quota_window
         WHERE account_id = 'ghost'",
        "INSERT INTO billing.payment_customer (id, account_id, provider, created_at)
         VALUES (gen_random_uuid(), 'ghost', 'manual', now())",
        "INSERT INTO notification.notice (notice_id, account_id, kind, dedupe_key, severity, facts, created_at)
         VALUES (gen_random_uuid(), 'ghost', 'quota.threshold_crossed', 'k', 'info', '{}', now())",
        "INSERT INTO notification.mailing (notice_id, account_id, due_at, created_at)
         SELECT notice_id, account_id, now(), now() FROM notification.notice",
        "INSERT INTO notification.email (account_id, notice_id, member_id, recipient, language, subject, html,
             text, due_at, created_at)
         SELECT account_id, notice_id, 'm', 'a@b', 'en', 's', 'h', 't', now(), now() FROM notification.mailing",
        "INSERT INTO usage.dead_letter (queue, message_id, routing_key, payload, occurred_at, reason, attempts,
             error)
         VALUES ('q', gen_random_uuid(), 'k', '', now(), 'failed', 1, 'e')",
    ] {
        sqlx::query(statement)
            .execute(&mut session)
            .await
            .context(statement)?;
    }
    session.close().await?;
    let ill = doctor.ends().await?;
    ensure!(ill.code == Some(1), "{ill:?}");
    let said: Vec<&str> = ill.stdout.lines().collect();
    let unknown = |service: &str, count: u32, table: &str| {
        format!("{service}: {count} accounts of {table} are not known to the account service, such as ghost")
    };
    let expected = [
        unknown("quota", 1, "crossed_threshold"),
        unknown("quota", 2, "quota_window"),
        unknown("billing", 1, "payment_customer"),
        unknown("notification", 1, "email"),
        unknown("notification", 1, "mailing"),
        unknown("notification", 1, "notice"),
    ];
    let (dead, named) = said.split_first().context("it says nothing")?;
    ensure!(
        dead.starts_with("usage: 1 dead letters") && named == expected,
        "{said:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn schemas_are_migrated_where_an_address_is_configured() -> Result<()> {
    let (dir, database) = (open_dir()?, create_database().await?);
    let migrate = |arguments: &[&str]| Call::new(dir.path(), "migrate", &[&["migrate"], arguments].concat());
    let ended = migrate(&["up"]).ends().await?;
    ensure!(ended.code == Some(64), "nothing is configured: {ended:?}");
    let some = |arguments: &[&str]| {
        ["quota", "usage"]
            .into_iter()
            .fold(migrate(arguments), |call, service| {
                call.set(&format!("{service}.database.url"), database.url(service))
            })
    };
    let ended = some(&["up"]).ends().await?.succeeded()?;
    let said: Vec<&str> = ended.stdout.lines().collect();
    ensure!(
        said == [
            "account: no address is configured, left out",
            "billing: no address is configured, left out",
            "notification: no address is configured, left out",
            "usage: 0 applied",
            "quota: 0 applied",
        ],
        "{said:#?}"
    );
    let ended = some(&["up", "quota", "billing"]).ends().await?;
    ensure!(
        ended.code == Some(64) && ended.stdout.is_empty(),
        "one that is named needs an address: {ended:?}"
    );
    one_sentence(&ended, "billing.database.url")
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}
