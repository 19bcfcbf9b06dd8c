//! What the private PostgreSQL promises the fleet.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{User, geteuid};
use octroi_fleet::postgres::{self, Options, PrivatePostgres, State};
use octroi_tests::harness::backends;
use sqlx::{Connection, PgConnection};

use crate::backends::{eventually, open_dir, pid};

#[tokio::test]
async fn a_private_postgres_comes_back_with_its_data_after_a_kill() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    let (port, killed) = (server.port(), server.pid().context("no process")?);
    write_a_row(server.url()).await?;
    let mut state = server.state();
    kill(pid(killed)?, Signal::SIGKILL)?;
    state
        .wait_for(|state| matches!(state, State::Restarting { attempt: 1, .. }))
        .await?;
    state
        .wait_for(|state| matches!(state, State::Running { pid } if *pid != killed))
        .await?;
    assert_eq!(server.port(), port);
    assert_eq!(rows(server.url()).await?, 1);
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_private_postgres_survives_a_stop_and_a_start() -> Result<()> {
    let dir = open_dir()?;
    // What a crash in the middle of the first start would leave.
    fs::create_dir_all(dir.path().join("postgres.new/base"))?;
    let server = start(dir.path()).await?;
    let secret = server.secret().to_owned();
    write_a_row(server.url()).await?;
    let process = server.pid().context("no process")?;
    server.stop().await;
    assert!(kill(pid(process)?, None).is_err(), "it still runs after its stop");

    let server = start(dir.path()).await?;
    assert_eq!(server.secret(), secret);
    // What a command beside it finds.
    let found = postgres::running_in(dir.path());
    assert_eq!(found, Some((server.url().to_owned(), secret)));
    assert_eq!(rows(server.url()).await?, 1);
    assert!(!dir.path().join("postgres.new").exists());
    let mode = fs::metadata(dir.path().join("postgres.password"))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_postgres_left_behind_is_taken_over() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    write_a_row(server.url()).await?;
    let mut orphan = postgres_by_hand(&server, dir.path());
    server.stop().await;
    let mut orphan = orphan.spawn()?;
    let pid_file = dir.path().join("postgres/postmaster.pid");
    let named = format!("{}\n", orphan.id());
    eventually("the orphan is up", async || {
        fs::read_to_string(&pid_file)
            .is_ok_and(|content| content.starts_with(&named) && content.contains("ready"))
    })
    .await?;

    let server = start(dir.path()).await?;
    let ended = orphan.wait()?;
    assert!(ended.success(), "it was not stopped in an orderly way: {ended}");
    assert_eq!(rows(server.url()).await?, 1);
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_process_id_used_again_by_somebody_else_is_left_alone() -> Result<()> {
    let dir = open_dir()?;
    start(dir.path()).await?.stop().await;
    let cluster = fs::metadata(dir.path().join("postgres"))?;
    let mut other = Sleeper::start(cluster.uid())?;
    let pid_file = dir.path().join("postgres/postmaster.pid");
    fs::write(
        &pid_file,
        format!(
            "{}\n{}\n0\n0\n",
            other.0.id(),
            dir.path().join("postgres").display()
        ),
    )?;
    std::os::unix::fs::chown(&pid_file, Some(cluster.uid()), Some(cluster.gid()))?;
    let server = start(dir.path()).await?;
    assert!(
        other.0.try_wait()?.is_none(),
        "a process that has nothing to do with it was ended"
    );
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_by_both_names() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    let binaries = server.binaries().to_owned();
    server.stop().await;
    fs::write(dir.path().join("postgres/PG_VERSION"), "9\n")?;
    let sentence = refusal(dir.path()).await?;
    assert!(
        sentence.contains("was made by PostgreSQL 9, but the binaries in"),
        "{sentence}"
    );
    assert!(sentence.contains(&binaries.display().to_string()), "{sentence}");
    Ok(())
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_in_one_sentence() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    let sentence = refusal(dir.path()).await?;
    let us = format!(
        "another octroi (process {}) already uses the data directory",
        std::process::id()
    );
    assert!(sentence.contains(&us), "{sentence}");
    assert!(
        PgConnection::connect(server.url()).await.is_ok(),
        "the first one suffered"
    );
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn postgres_never_runs_as_root() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    let owner = fs::metadata(dir.path().join("postgres"))?.uid();
    if geteuid().is_root() {
        let lesser = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok()?);
        assert_eq!(owner, lesser.context("no lesser user")?.uid.as_raw());
    } else {
        assert_eq!(owner, geteuid().as_raw());
    }
    let process = PathBuf::from(format!("/proc/{}", server.pid().context("no process")?));
    if process.exists() {
        assert_eq!(fs::metadata(process)?.uid(), owner);
    }
    server.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_closed_directory_on_the_way_is_named_to_root() -> Result<()> {
    let dir = open_dir()?;
    let closed = dir.path().join("closed");
    fs::DirBuilder::new().mode(0o700).create(&closed)?;
    let started = postgres::start(Options::new(closed.join("data"))).await;
    if geteuid().is_root() {
        let sentence = started.err().context("it started all the same")?.to_string();
        assert!(
            sentence.contains(&format!("may not pass through {}", closed.display())),
            "{sentence}"
        );
    } else {
        started?.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn binaries_that_were_given_wrongly_are_named() -> Result<()> {
    let dir = open_dir()?;
    let mut options = Options::new(dir.path().join("data"));
    options.binaries = Some(dir.path().to_owned());
    let sentence = postgres::start(options)
        .await
        .err()
        .context("it started all the same")?
        .to_string();
    assert!(
        sentence.contains("cannot be used: there is no initdb in it"),
        "{sentence}"
    );
    Ok(())
}

#[tokio::test]
async fn preparing_again_keeps_addresses_and_data() -> Result<()> {
    let dir = open_dir()?;
    let server = start(dir.path()).await?;
    let prepare =
        async || postgres::prepare(server.url(), "octroi", &backends::SERVICES, server.secret()).await;
    let (first, again) = tokio::join!(prepare(), prepare());
    let (first, again) = (first?, again?);
    assert_eq!(first, again);
    let quota = first.get("quota").context("no URL for quota")?;
    write_a_row(quota).await?;
    assert_eq!(prepare().await?, first);
    assert_eq!(rows(quota).await?, 1);
    server.stop().await;
    Ok(())
}

async fn start(data_dir: &Path) -> Result<PrivatePostgres> {
    Ok(postgres::start(Options::new(data_dir)).await?)
}

async fn refusal(data_dir: &Path) -> Result<String> {
    Ok(start(data_dir)
        .await
        .err()
        .context("it started all the same")?
        .to_string())
}

/// The same server on the same files, but nobody's: as after a kill of the octroi that started it.
fn postgres_by_hand(server: &PrivatePostgres, data_dir: &Path) -> Command {
    let owner = fs::metadata(data_dir.join("postgres")).map(|metadata| (metadata.uid(), metadata.gid()));
    let mut command = Command::new(server.binaries().join("postgres"));
    command
        .arg("-D")
        .arg(data_dir.join("postgres"))
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ])
        .arg("-p")
        .arg(server.port().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    if let (true, Ok((uid, gid))) = (geteuid().is_root(), owner) {
        command.uid(uid).gid(gid);
    }
    command
}

async fn write_a_row(url: &str) -> Result<()> {
    let mut session = PgConnection::connect(url).await?;
    sqlx::raw_sql("CREATE TABLE kept (id INT); INSERT INTO kept VALUES (1)")
        .execute(&mut session)
        .await?;
    Ok(session.close().await?)
}

async fn rows(url: &str) -> Result<i64> {
    let mut session = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(&mut session)
        .await?)
}

/// Somebody else's process.
struct Sleeper(Child);

impl Sleeper {
    fn start(uid: u32) -> Result<Self> {
        let mut command = Command::new("sleep");
        command.arg("60");
        if geteuid().is_root() {
            command.uid(uid);
        }
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
