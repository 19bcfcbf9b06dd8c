//! What recording costs where nobody gathers: a plain table with the event's identity as its key, on the PostgreSQL that
//! the ledger is on, with its settings.
//!
//! Three ways to write into it are measured: `pgbench` with many connections, each of which commits one row at a time; one
//! `COPY` of many rows; and one connection alone.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    cpu::Meter,
    histogram::Histogram,
    load::Round,
    proc,
    stores::{POSTGRES, Stores},
};

/// The meter of whoever writes into the table.
pub const CLIENT: &str = "client";

/// Connections of `pgbench`, each of which waits for its commit.
pub const CONNECTIONS: u32 = 64;
/// How long `pgbench` runs, in whole seconds.
const PGBENCH_S: u32 = 3;
/// Rows of one `COPY`.
const COPIED: u64 = 400_000;
/// How much of it is sent at a time.
const CHUNK: usize = 256 * 1024;
/// How long one connection writes alone.
const ALONE: Duration = Duration::from_millis(1_500);
/// As many accounts as the cases have.
const ACCOUNTS: u64 = 1_000;

const DATABASE: &str = "octroi_naive";
const TABLE: &str = "CREATE TABLE ledger (
    account_id text NOT NULL, source text NOT NULL, event_id text NOT NULL, metric text NOT NULL, amount bigint NOT NULL,
    event_at timestamptz NOT NULL, recorded_at timestamptz NOT NULL, PRIMARY KEY (account_id, source, event_id))";

/// What `pgbench` does again and again. A client's variables last, so no event has the id of another.
const SCRIPT: &str = "\\set account random(0, 999)
\\set event :event + 1
INSERT INTO ledger (account_id, source, event_id, metric, amount, event_at, recorded_at) VALUES (concat('bench-', :account::int), \
     'application', concat(:run::bigint, '-', :client_id::int, '-', :event::bigint), 'bench.calls', 1, now(), now());
";
const INSERT: &str =
    "INSERT INTO ledger (account_id, source, event_id, metric, amount, event_at, recorded_at)
     VALUES ($1, 'application', $2, 'bench.calls', 1, now(), now())";

/// A table of a database of its own.
#[derive(Debug)]
pub struct Naive {
    url: String,
    pgbench: PathBuf,
    postgres: Meter,
    /// What makes the ids of one round others than those of all rounds before.
    runs: u64,
    dir: TempDir,
}

impl Naive {
    /// Makes the table. What an earlier one had is gone.
    ///
    /// # Errors
    /// When PostgreSQL refuses, or came without `pgbench`.
    pub fn create(runtime: &Runtime, stores: &Stores) -> Result<Self> {
        let servers = stores.servers();
        let mut url = Url::parse(servers.postgres.url())?;
        // Programs of PostgreSQL's own read the address too, and know nothing of what a driver adds to it.
        url.set_path(DATABASE);
        let [postgres, _] = stores.meters()?;
        let naive = Self {
            url: url.into(),
            pgbench: stores.program("pgbench")?,
            postgres,
            runs: 0,
            dir: tempfile::tempdir()?,
        };
        fs::write(naive.dir.path().join("insert.sql"), SCRIPT)?;
        runtime.block_on(async {
            let mut session = PgConnection::connect(servers.postgres.url()).await?;
            for statement in [
                format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"),
                format!("CREATE DATABASE {DATABASE}"),
            ] {
                sqlx::raw_sql(AssertSqlSafe(statement))
                    .execute(&mut session)
                    .await?;
            }
            session.close().await?;
            let mut session = naive.session().await?;
            sqlx::raw_sql(TABLE).execute(&mut session).await?;
            anyhow::Ok(session.close().await?)
        })?;
        Ok(naive)
    }

    async fn session(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// A round of `pgbench`.
    ///
    /// # Errors
    /// When it fails, or says nothing of what it did.
    pub fn pgbench(&mut self) -> Result<Round> {
        self.runs += 1;
        let threads = std::thread::available_parallelism()?.to_string();
        let mut command = Command::new(&self.pgbench);
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs", &threads]);
        command.args(["--client", &CONNECTIONS.to_string()]);
        command.args(["--time", &PGBENCH_S.to_string()]);
        command.args(["--define", "event=0", "--define", &format!("run={}", self.runs)]);
        command
            .arg("--file")
            .arg(self.dir.path().join("insert.sql"))
            .arg(&self.url);
        let (postgres, ended) = (self.postgres.read()?, ended_children()?);
        let output = command.output().context("pgbench cannot be started")?;
        let cpu = vec![
            (
                POSTGRES.to_owned(),
                self.postgres.read()?.saturating_sub(postgres),
            ),
            (CLIENT.to_owned(), ended_children()?.saturating_sub(ended)),
        ];
        ensure!(
            output.status.success(),
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said = read_said(&String::from_utf8_lossy(&output.stdout))?;
        Ok(Round::of_others(
            said.measured,
            said.done,
            Histogram::default(),
            cpu,
        ))
    }

    /// One `COPY` of many rows, from the first byte to its commit.
    ///
    /// # Errors
    /// When it fails.
    pub fn copy(&mut self, runtime: &Runtime) -> Result<Round> {
        self.runs += 1;
        let rows = rows(self.runs);
        runtime.block_on(async {
            let mut session = self.session().await?;
            let (postgres, client, since) =
                (self.postgres.read()?, proc::own_time()?.running, Instant::now());
            let mut copy = session
                .copy_in_raw(
                    "COPY ledger (account_id, source, event_id, metric, amount, event_at, recorded_at) FROM STDIN",
                )
                .await?;
            for chunk in rows.as_bytes().chunks(CHUNK) {
                copy.send(chunk).await?;
            }
            let copied = copy.finish().await?;
            let measured = since.elapsed();
            ensure!(copied == COPIED, "{copied} rows of {COPIED} were copied");
            let client = proc::own_time()?.running.saturating_sub(client);
            let cpu = vec![
                (POSTGRES.to_owned(), self.postgres.read()?.saturating_sub(postgres)),
                (CLIENT.to_owned(), client),
            ];
            session.close().await?;
            Ok(Round::of_others(measured, copied, Histogram::default(), cpu))
        })
    }

    /// Rows of one connection, each committed before the next.
    ///
    /// # Errors
    /// When one fails.
    pub fn insert_alone(&mut self, runtime: &Runtime) -> Result<Round> {
        self.runs += 1;
        runtime.block_on(async {
            let mut session = self.session().await?;
            let (mut latencies, mut done) = (Histogram::default(), 0);
            let begun = Instant::now();
            while begun.elapsed() < ALONE {
                let insert = sqlx::query(INSERT)
                    .bind(format!("bench-{}", done % ACCOUNTS))
                    .bind(format!("{}-alone-{done}", self.runs));
                let since = Instant::now();
                insert.execute(&mut session).await?;
                latencies.record(since.elapsed());
                done += 1;
            }
            let measured = begun.elapsed();
            session.close().await?;
            Ok(Round::of_others(measured, done, latencies, Vec::new()))
        })
    }
}

/// The CPU time of programs that were started and have ended.
fn ended_children() -> Result<Duration> {
    Ok(proc::process(std::process::id())?.cpu_of_ended_children)
}

/// The rows of one `COPY`, of one account after the other, in its text form.
fn rows(run: u64) -> String {
    let mut rows = String::new();
    for number in 0..COPIED {
        // Writing into a text does not fail.
        let _ = writeln!(
            rows,
            "bench-{}\tapplication\t{run}-copied-{number}\tbench.calls\t1\tnow\tnow",
            number % ACCOUNTS
        );
    }
    rows
}

/// What `pgbench` says that it did.
#[derive(Debug, PartialEq)]
struct Said {
    done: u64,
    /// From when all were connected.
    measured: Duration,
}

#[expect(clippy::float_arithmetic, reason = "a time is a quotient")]
fn read_said(output: &str) -> Result<Said> {
    let after = |head: &str| {
        let rest = output.lines().find_map(|line| line.strip_prefix(head))?;
        rest.split_whitespace().next()
    };
    let done = after("number of transactions actually processed: ").and_then(|text| text.parse().ok());
    let failed = after("number of failed transactions: ").and_then(|text| text.parse::<u64>().ok());
    let rate = after("tps = ").and_then(|text| text.parse::<f64>().ok());
    let (done, rate): (u64, f64) = done
        .zip(rate)
        .with_context(|| format!("pgbench said {output:?}"))?;
    ensure!(failed.unwrap_or(0) == 0 && done > 0, "pgbench failed: {output}");
    Ok(Said {
        done,
        measured: Duration::from_secs_f64(done as f64 / rate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let said = "pgbench (15.18)\nnumber of transactions actually processed: 45715\n\
                    number of failed transactions: 0 (0.000%)\nlatency average = 5.357 ms\n\
                    initial connection time = 262.722 ms\n\
                    tps = 11428.75 (without initial connection time)\n";
        let expected = Said {
            done: 45_715,
            measured: Duration::from_secs(4),
        };
        assert_eq!(read_said(said).expect("it says enough"), expected);
        assert!(read_said(&said.replace(": 0 (", ": 3 (")).is_err());
        assert!(read_said("pgbench (15.18)\n").is_err());
    }

    #[test]
    fn rows_have_each_column_and_no_id_twice() {
        let rows = rows(7);
        let mut ids: Vec<&str> = rows.lines().filter_map(|row| row.split('\t').nth(2)).collect();
        assert!(rows.lines().all(|row| row.split('\t').count() == 7));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len() as u64, COPIED);
    }
}
