//! Recorded traffic, replayed: what comes of it follows from the file, however often and with whatever
//! interruption it is sent.

mod oracle;
mod reads;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use nix::sys::signal::Signal;
use octroi_fleet::replay::zipf::Zipf;
use octroi_tests::harness::fleet::{Fleet, OPERATOR, Topology, eventually, tell};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use self::oracle::{Line, Oracle, exactly_these_were_crossed, limits_of, totals};
use crate::story::both_topologies;

both_topologies!(
    a_replay_that_is_killed_and_repeated_counts_every_line_once,
    a_replay_that_asks_first_is_stopped_where_the_limits_are,
);

const LINES: u32 = 600;
const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";
/// Six hundred requests, `gap_s` apart, some hours of which are busy and some not.
fn lines(gap_s: i64) -> Result<Vec<Line>> {
    lines_of(LINES, gap_s)
}

fn lines_of(count: u32, gap_s: i64) -> Result<Vec<Line>> {
    let first: Timestamp = "2024-03-01T08:20:00Z".parse()?;
    let line = |index: u32| Line {
        number: u64::from(index) + 2,
        at: first + (i64::from(index) * gap_s).seconds(),
        tokens_in: u64::from(index) * 7_919 % 30_011,
        tokens_out: u64::from(index) * 104_729 % 4_001,
    };
    Ok((0..count).map(line).collect())
}

fn write_file(dir: &Path, lines: &[Line]) -> Result<PathBuf> {
    let mut text = format!("{HEADER}\n");
    for line in lines {
        let at = line.at.strftime("%Y-%m-%d %H:%M:%S.0000000");
        writeln!(text, "{at},{},{}", line.tokens_in, line.tokens_out)?;
    }
    let path = dir.join("traffic.csv");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The lines of a file with the columns of [`HEADER`].
fn read_file(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = |(number, line): (u64, &str)| {
        let mut fields = line.trim().split(',');
        let mut field = || fields.next().with_context(|| format!("line {number} is short"));
        anyhow::Ok(Line {
            number,
            at: format!("{}Z", field()?.replace(' ', "T")).parse()?,
            tokens_in: field()?.parse()?,
            tokens_out: field()?.parse()?,
        })
    };
    (2..).zip(text.lines().skip(1)).map(line).collect()
}

/// Runs `octroi replay` to its end and answers its report.
async fn replay(fleet: &Fleet, file: &Path, options: &[&str]) -> Result<Value> {
    let file = file.to_str().context("a path that is not text")?;
    let arguments = [&["replay", file, "--json"], options].concat();
    let ended = fleet.operator_call("replay", &arguments)?.ends().await?;
    serde_json::from_str(&ended.stdout).with_context(|| format!("no report: {ended:?}"))
}

/// The account of each line, as the file and the options decide.
fn accounts(report: &Value, count: u32, lines: &[Line]) -> Result<Vec<String>> {
    let prefix = report["account_prefix"]
        .as_str()
        .context("no prefix of accounts")?;
    let zipf = Zipf::new(count, 7);
    Ok(lines
        .iter()
        .map(|line| format!("{prefix}{:03}", zipf.choose(line.number)))
        .collect())
}

async fn a_replay_that_is_killed_and_repeated_counts_every_line_once(fleet: &mut Fleet) -> Result<()> {
    let lines = lines(9)?;
    let file = write_file(fleet.dir(), &lines)?;
    // An hour and a half within some six seconds.
    every_line_counts_once(fleet, &file, &lines, 12, "900x").await
}

/// The story of every change, with traffic as it was recorded: the file that `TEST_REPLAY_FILE` names, which
/// has the columns of [`HEADER`] and lies within one month, or else 20,000 lines of our own.
async fn recorded_traffic_counts_once(fleet: &mut Fleet) -> Result<()> {
    let file = match std::env::var_os("TEST_REPLAY_FILE") {
        Some(file) => PathBuf::from(file),
        None => write_file(fleet.dir(), &lines_of(20_000, 1)?)?,
    };
    let lines = read_file(&file)?;
    every_line_counts_once(fleet, &file, &lines, 300, "600x").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn recorded_traffic_counts_once_in_one_process() -> Result<()> {
    tell(Fleet::builder(Topology::OneProcess), recorded_traffic_counts_once).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn recorded_traffic_counts_once_in_many_processes() -> Result<()> {
    tell(Fleet::builder(Topology::Split), recorded_traffic_counts_once).await
}

/// Sends the file while a kill interrupts it, then to its end, then once more. Everything must be as the
/// file and the limits say.
async fn every_line_counts_once(
    fleet: &mut Fleet,
    file: &Path,
    lines: &[Line],
    accounts_max: u32,
    speed: &str,
) -> Result<()> {
    let accounts_option = accounts_max.to_string();
    let options = ["--accounts", &accounts_option, "--seed", "7"];
    let known = replay(fleet, file, &[&options[..], &["--dry-run"]].concat()).await?;
    ensure!(
        known["lines"] == lines.len() && known["file_totals"] == totals(lines.to_vec()),
        "{known}"
    );
    let accounts = accounts(&known, accounts_max, lines)?;
    let everyone: BTreeSet<&String> = accounts.iter().collect();
    ensure!(known["accounts"] == everyone.len(), "{known}");

    kill_in_the_middle(fleet, file, &options, speed).await?;
    let sent: u64 = totals(lines.to_vec())
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, total)| total["events"].as_u64())
        .sum();
    for run in ["after a kill", "once more"] {
        let report = replay(fleet, file, &options).await?;
        ensure!(
            report["complete"] == true && report["match"] == true,
            "{run}: {report}"
        );
        ensure!(report["ledger_totals"] == known["file_totals"], "{run}: {report}");
        ensure!(
            report["sent"] == sent && report["refused"] == 0 && report["rollup_lag_events"] == 0,
            "{run}: {report}"
        );
        let duplicates = report["duplicates"].as_u64().unwrap_or_default();
        ensure!(
            if run == "once more" {
                duplicates == sent
            } else {
                0 < duplicates && duplicates < sent
            },
            "{run}: {report}"
        );
    }

    ensure!(
        count(fleet, ROLLUPS_APART).await? == 0,
        "the rollups are not the ledger"
    );

    let operator = fleet.clients(OPERATOR)?;
    let limits = limits_of(&operator, accounts.first().context("no account")?).await?;
    let mut oracle = Oracle::default();
    for (line, account) in lines.iter().zip(&accounts) {
        oracle.take(account, *line, &limits, false)?;
    }
    ensure!(
        oracle.crossed.len() > 5,
        "the file crosses hardly anything: {:?}",
        oracle.crossed
    );
    exactly_these_were_crossed(fleet, &operator, &oracle, &everyone).await
}

/// The program that sends dies, and then a service that it sends to.
async fn kill_in_the_middle(fleet: &mut Fleet, file: &Path, options: &[&str], speed: &str) -> Result<()> {
    let file = file.to_str().context("a path that is not text")?;
    let arguments = [&["replay", file, "--speed", speed], options].concat();
    let call = fleet.operator_call("replay", &arguments)?;
    let mut program = call.start()?;
    eventually("some of it is in the ledger", async || {
        let events = count(
            fleet,
            "SELECT count(*) FROM usage.ledger WHERE source LIKE 'replay:%'",
        )
        .await?;
        ensure!(events > 100, "{events} events; {}", call.log_tail());
        Ok(())
    })
    .await?;
    program.signal(Signal::SIGKILL)?;
    program.ended().await?;
    fleet.kill("usage").await?;
    fleet.restart("usage").await
}

/// How many accounts and metrics have other sums in a rollup than in the ledger.
const ROLLUPS_APART: &str = "
    WITH ledger AS (
        SELECT account_id, metric, count(*) AS events, sum(amount) AS amount FROM usage.ledger GROUP BY 1, 2),
    rolled AS (
        SELECT 'day' AS size, account_id, metric, sum(events) AS events, sum(amount) AS amount
        FROM usage.rollup_day GROUP BY 2, 3
        UNION ALL
        SELECT 'quarter', account_id, metric, sum(events), sum(amount) FROM usage.rollup_quarter GROUP BY 2, 3)
    SELECT count(*) FROM (SELECT * FROM ledger, (VALUES ('day'), ('quarter')) AS sizes (size)) AS expected
    FULL JOIN rolled USING (size, account_id, metric)
    WHERE (expected.events, expected.amount) IS DISTINCT FROM (rolled.events, rolled.amount)";

async fn count(fleet: &Fleet, statement: &'static str) -> Result<i64> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut session).await?;
    session.close().await?;
    Ok(count)
}

async fn a_replay_that_asks_first_is_stopped_where_the_limits_are(fleet: &mut Fleet) -> Result<()> {
    // All within one hour and of one account, which may do 500 requests then.
    let lines = lines(3)?;
    let file = write_file(fleet.dir(), &lines)?;
    let options = ["--accounts", "1", "--seed", "7", "--check"];
    let known = replay(fleet, &file, &[&options[..], &["--dry-run"]].concat()).await?;
    let accounts = accounts(&known, 1, &lines)?;
    let report = replay(fleet, &file, &options).await?;

    let operator = fleet.clients(OPERATOR)?;
    let limits = limits_of(&operator, accounts.first().context("no account")?).await?;
    let (mut oracle, mut allowed) = (Oracle::default(), Vec::new());
    for (line, account) in lines.iter().zip(&accounts) {
        if oracle.take(account, *line, &limits, true)? {
            allowed.push(*line);
        }
    }
    let denied = lines.len() - allowed.len();
    ensure!(
        denied > 10 && report["denied"] == json!({ "llm.requests": denied }),
        "{denied} denied: {report}"
    );
    ensure!(
        report["allowed"] == allowed.len() && report["complete"] == true,
        "{report}"
    );
    ensure!(report["allowed_totals"] == totals(allowed.clone()), "{report}");
    ensure!(report["ledger_totals"] == totals(allowed), "{report}");
    let again = replay(fleet, &file, &options).await?;
    ensure!(
        again["recorded"] == 0 && again["ledger_totals"] == report["ledger_totals"],
        "{again}"
    );
    exactly_these_were_crossed(fleet, &operator, &oracle, &accounts.iter().collect()).await?;
    two_files_of_one_account_are_told_apart(fleet).await?;
    a_log_of_long_ago_is_replayed_where_it_is_moved(fleet).await
}

/// What one file recorded for an account is not missed, and not counted, by the run of another.
async fn two_files_of_one_account_are_told_apart(fleet: &Fleet) -> Result<()> {
    for (name, amounts, recorded) in [
        ("one", [1, 2], json!({ "amount": 3, "events": 2 })),
        ("other", [10, 20], json!({ "amount": 30, "events": 2 })),
        ("other", [10, 20], Value::Null),
    ] {
        let mut text = "time,who,n\n".to_owned();
        for (second, amount) in amounts.into_iter().enumerate() {
            writeln!(text, "2025-03-01T08:00:0{second}Z,shared,{amount}")?;
        }
        let file = fleet.dir().join(format!("{name}.csv"));
        std::fs::write(&file, text)?;
        let options = ["--check", "--account-column", "who", "--metric", "api.requests=n"];
        let report = replay(fleet, &file, &options).await?;
        ensure!(report["complete"] == true, "{name}: {report}");
        ensure!(
            report["recorded_totals"]["api.requests"] == recorded,
            "{name}: {report}"
        );
    }
    Ok(())
}

async fn a_log_of_long_ago_is_replayed_where_it_is_moved(fleet: &Fleet) -> Result<()> {
    let file = fleet.dir().join("access.log");
    let line = "192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 23 \"-\" \"-\"\n";
    std::fs::write(&file, line)?;
    let path = file.to_str().context("a path that is not text")?;
    let ended = fleet.operator_call("old", &["replay", path])?.ends().await?;
    ensure!(
        ended.code == Some(1)
            && ended
                .stderr
                .contains("10 years back: move all lines with --shift-to"),
        "{ended:?}"
    );
    let report = replay(fleet, &file, &["--shift-to", "2025-06-01T00:00:00Z"]).await?;
    ensure!(report["complete"] == true && report["recorded"] == 2, "{report}");
    Ok(())
}
