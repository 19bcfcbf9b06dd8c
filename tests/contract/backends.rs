//! What the harness promises about its servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fred::interfaces::{ClientLike, KeysInterface};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use octroi_tests::harness::backends::{self, Kind, Place, RedisServer, Template, Tenant};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// How long anything here may take on two cores that others use too.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_ladder_yields_three_servers_that_answer() -> Result<()> {
    let (postgres, redis, rabbitmq) =
        tokio::join!(backends::postgres(), backends::redis(), backends::rabbitmq());

    let mut session = PgConnection::connect(postgres.url()).await?;
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut session).await?;
    assert_eq!(one, 1);

    let (mine, theirs) = (redis.namespace().await?, redis.namespace().await?);
    assert_ne!(mine.prefix, theirs.prefix);
    let redis = redis_client(&mine.url).await?;
    let key = format!("{}key", mine.prefix);
    let _: () = redis.set(&key, "mine", None, None, false).await?;
    let kept: String = redis.get(&key).await?;
    assert_eq!(kept, "mine");

    let bus = rabbitmq.namespace();
    assert_ne!(bus.namespace, rabbitmq.namespace().namespace);
    let connection = lapin::Connection::connect(&bus.url, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    // Without confirms a message may still be on its way into the queue when it is asked for.
    channel.confirm_select(Default::default()).await?;
    let queue = format!("{}.queue", bus.namespace);
    let options = lapin::options::QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        lapin::types::AMQPValue::LongString("quorum".into()),
    );
    channel
        .queue_declare(queue.as_str().into(), options, arguments)
        .await?;
    channel
        .basic_publish(
            "".into(),
            queue.as_str().into(),
            Default::default(),
            b"mine",
            Default::default(),
        )
        .await?
        .await?;
    let message = channel
        .basic_get(queue.as_str().into(), Default::default())
        .await?;
    assert_eq!(message.context("the message is not there")?.data, b"mine");
    channel
        .queue_delete(queue.as_str().into(), Default::default())
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_test_database_is_a_copy_that_nobody_else_sees() -> Result<()> {
    let server = backends::postgres().await;
    let template = Template::new(&["quota", "usage"], uuid::Uuid::new_v4().as_bytes());
    let migrations = std::sync::atomic::AtomicU32::new(0);
    let migrate = |urls: std::collections::HashMap<String, String>| {
        migrations.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let mut quota = PgConnection::connect(urls.get("quota").context("no URL for quota")?).await?;
            // Not closed: a template is copied even so.
            sqlx::query("CREATE TABLE kept (id INT)")
                .execute(&mut quota)
                .await?;
            std::mem::forget(quota);
            Ok(())
        }
    };
    let mine = server.create_database(&template, migrate).await?;
    let theirs = server.create_database(&template, migrate).await?;
    assert_eq!(migrations.into_inner(), 1);

    let mut quota = PgConnection::connect(mine.url("quota")).await?;
    sqlx::query("INSERT INTO kept VALUES (1)")
        .execute(&mut quota)
        .await?;
    let mut other = PgConnection::connect(theirs.url("quota")).await?;
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(&mut other)
        .await?;
    assert_eq!(seen, 0);

    let name = mine.name().to_owned();
    drop(mine);
    let mut session = PgConnection::connect(server.url()).await?;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&mut session)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

#[tokio::test]
async fn shared_servers_end_when_nobody_has_a_lease_any_more() -> Result<()> {
    let dir = open_dir()?;
    let place = Place::at(&dir.path().join("place"))?;
    let tenant = Tenant::move_in(place.clone(), Duration::from_secs(1))?;
    let redis = tenant.ask(Kind::Redis).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        redis_client(&redis.url).await.is_ok(),
        "it ended under its tenant"
    );
    drop(tenant);
    eventually("the shared Redis ends", async || {
        redis_client(&redis.url).await.is_err()
    })
    .await?;

    let next = Tenant::move_in(place, Duration::from_secs(1))?;
    assert_ne!(next.ask(Kind::Redis).await?.url, redis.url);
    Ok(())
}

#[tokio::test]
async fn a_killed_keeper_is_replaced() -> Result<()> {
    let dir = open_dir()?;
    let place = Place::at(&dir.path().join("place"))?;
    let tenant = Tenant::move_in(place.clone(), Duration::from_secs(1))?;
    tenant.ask(Kind::Redis).await?;
    let keeper = place.keeper().context("nobody keeps this place")?;
    kill(pid(keeper)?, Signal::SIGKILL)?;
    // The killed process goes away on its own time; until then it still counts as the keeper.
    eventually("another keeper answers", async || {
        tenant.ask(Kind::Redis).await.is_ok() && place.keeper() != Some(keeper)
    })
    .await
}

#[tokio::test]
async fn a_machine_without_a_server_is_told_what_to_install() -> Result<()> {
    let dir = open_dir()?;
    let place = dir.path().join("place");
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_octroi-test-backends"))
        .arg(&place)
        .arg("1")
        .env("PATH", "/nonexistent")
        .env("DOCKER_HOST", "unix:///nonexistent")
        .spawn()?;
    let place = Place::at(&place)?;
    eventually("the keeper is up", async || place.keeper() == Some(keeper.id())).await?;
    let tenant = Tenant::move_in(place, Duration::from_secs(1))?;
    let Err(error) = tenant.ask(Kind::Redis).await else {
        bail!("a Redis was found where there is none");
    };
    let sentence = format!("{error:#}");
    assert!(
        sentence.contains("set TEST_REDIS_URL, or start Docker, or install it"),
        "{sentence}"
    );
    drop(tenant);
    keeper.wait()?;
    Ok(())
}

#[tokio::test]
async fn a_private_redis_comes_back_on_its_port_after_a_kill() -> Result<()> {
    let dir = TempDir::new()?;
    let mut server = RedisServer::start(dir.path()).await?;
    let url = server.url();
    server.signal(Signal::SIGKILL)?;
    server.ended().await?;
    assert!(redis_client(&url).await.is_err());
    server.restart().await?;
    assert!(redis_client(&url).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_service_sees_its_own_schema_alone() -> Result<()> {
    let server = backends::postgres().await;
    let template = Template::new(&["quota", "usage"], b"schemas");
    let database = server.create_database(&template, |_| async { Ok(()) }).await?;
    let mut quota = PgConnection::connect(database.url("quota")).await?;
    let mut usage = PgConnection::connect(database.url("usage")).await?;
    sqlx::query("CREATE TABLE secrets (id INT)")
        .execute(&mut usage)
        .await?;
    let schema: String = sqlx::query_scalar("SELECT current_schema()::TEXT")
        .fetch_one(&mut quota)
        .await?;
    assert_eq!(schema, "quota");
    for forbidden in [
        "SELECT * FROM usage.secrets",
        "CREATE TABLE usage.mine (id INT)",
        "CREATE TABLE public.mine (id INT)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut quota).await;
        ensure!(refused.is_err(), "allowed: {forbidden}");
    }
    let above: bool =
        sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&mut quota)
            .await?;
    assert!(!above, "the role stands above row-level security");
    Ok(())
}

/// A directory that the user whom PostgreSQL runs as can pass through.
pub(crate) fn open_dir() -> Result<TempDir> {
    Ok(tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir()?)
}

pub(crate) async fn eventually(what: &str, mut happens: impl AsyncFnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !happens().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .with_context(|| format!("waited in vain until {what}"))
}

pub(crate) fn pid(process: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(process)?))
}

async fn redis_client(url: &str) -> Result<fred::clients::Client> {
    let config = fred::types::config::Config::from_url(url)?;
    let client = fred::clients::Client::new(config, None, None, None);
    client.init().await?;
    Ok(client)
}
