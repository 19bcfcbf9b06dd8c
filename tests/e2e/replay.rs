//! Recorded traffic, replayed: what comes of it follows from the file, however often and with whatever
//! interruption it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use nix::sys::signal::Signal;
use octroi_fleet::replay::zipf::Zipf;
use octroi_proto::{
    common::v1::{LimitMode, Period},
    notification::v1::ListNoticesRequest,
    quota::v1::GetEntitlementsRequest,
};
use octroi_tests::harness::fleet::{Clients, Fleet, OPERATOR, eventually};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::story::both_topologies;

both_topologies!(
    a_replay_that_is_killed_and_repeated_counts_every_line_once,
    a_replay_that_asks_first_is_stopped_where_the_limits_are,
);

const LINES: u32 = 600;
const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";
/// The thresholds of a limit that lists none.
const THRESHOLDS: [u32; 3] = [80, 95, 100];

/// What one line of the file says.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Its number, the header's being 1.
    number: u64,
    at: Timestamp,
    tokens_in: u64,
    tokens_out: u64,
}

impl Line {
    fn uses(self) -> [(&'static str, u64); 3] {
        [
            ("llm.requests", 1),
            ("llm.tokens_in", self.tokens_in),
            ("llm.tokens_out", self.tokens_out),
        ]
    }
}

/// Six hundred requests, `gap_s` apart, some hours of which are busy and some not.
fn lines(gap_s: i64) -> Result<Vec<Line>> {
    let first: Timestamp = "2024-03-01T08:20:00Z".parse()?;
    let line = |index: u32| Line {
        number: u64::from(index) + 2,
        at: first + (i64::from(index) * gap_s).seconds(),
        tokens_in: u64::from(index * 7_919 % 30_011),
        tokens_out: u64::from(index * 104_729 % 4_001),
    };
    Ok((0..LINES).map(line).collect())
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

/// What some lines add up to, as the report has it.
fn totals(lines: impl IntoIterator<Item = Line>) -> Value {
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (metric, amount) in lines.into_iter().flat_map(Line::uses) {
        let total = totals.entry(metric).or_default();
        total.0 += amount;
        // An amount of 0 is no use.
        total.1 += u64::from(amount > 0);
    }
    let shown = totals
        .into_iter()
        .map(|(metric, (amount, events))| (metric, json!({ "amount": amount, "events": events })));
    Value::Object(shown.map(|(metric, total)| (metric.to_owned(), total)).collect())
}

/// A limit of the accounts' plan.
struct Limit {
    metric: String,
    period: Period,
    amount: u64,
    hard: bool,
}

/// Metric, period and the window's first instant, of an account.
type Window = (String, String, &'static str, Timestamp);

fn window(account: &str, limit: &Limit, at: Timestamp) -> Result<Window> {
    let (name, start) = match limit.period {
        Period::Hour => ("hour", at.as_second() - at.as_second().rem_euclid(3_600)),
        Period::Day => ("day", at.as_second() - at.as_second().rem_euclid(86_400)),
        // All of the file is in March 2024, on whose first day the subscription is anchored.
        _ => ("month", "2024-03-01T00:00:00Z".parse::<Timestamp>()?.as_second()),
    };
    Ok((
        account.to_owned(),
        limit.metric.clone(),
        name,
        Timestamp::from_second(start)?,
    ))
}

/// What must come of the lines: which are allowed where the quota is asked, and what is crossed.
#[derive(Default)]
struct Oracle {
    used: BTreeMap<Window, u64>,
    crossed: BTreeSet<(Window, u32)>,
}

impl Oracle {
    /// Takes a line, unless `ask` and a hard limit stands in the way.
    fn take(&mut self, account: &str, line: Line, limits: &[Limit], ask: bool) -> Result<bool> {
        let mut asked = Vec::new();
        for (metric, amount) in line.uses() {
            for limit in limits.iter().filter(|limit| limit.metric == metric) {
                asked.push((window(account, limit, line.at)?, amount, limit));
            }
        }
        let used = |window: &Window| self.used.get(window).copied().unwrap_or_default();
        if ask
            && asked
                .iter()
                .any(|(window, amount, limit)| limit.hard && used(window) + amount > limit.amount)
        {
            return Ok(false);
        }
        for (window, amount, limit) in asked {
            let used = self.used.entry(window.clone()).or_default();
            *used += amount;
            let reached = THRESHOLDS
                .into_iter()
                .filter(|percent| *used * 100 >= u64::from(*percent) * limit.amount);
            self.crossed
                .extend(reached.map(|percent| (window.clone(), percent)));
        }
        Ok(true)
    }
}

async fn limits_of(operator: &Clients, account: &str) -> Result<Vec<Limit>> {
    let request = GetEntitlementsRequest {
        account_id: account.to_owned(),
    };
    let answer = operator
        .quota
        .clone()
        .get_entitlements(request)
        .await?
        .into_inner();
    let entitlements = answer.entitlements.context("no entitlements")?;
    ensure!(
        entitlements.plan == "replay",
        "{account} has plan {}",
        entitlements.plan
    );
    Ok(entitlements
        .limits
        .into_iter()
        .map(|limit| Limit {
            hard: limit.mode() == LimitMode::Hard,
            period: limit.period(),
            metric: limit.metric,
            amount: limit.amount,
        })
        .collect())
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
    let options = ["--accounts", "12", "--seed", "7"];
    let known = replay(fleet, &file, &[&options[..], &["--dry-run"]].concat()).await?;
    ensure!(
        known["lines"] == LINES && known["file_totals"] == totals(lines.clone()),
        "{known}"
    );
    let accounts = accounts(&known, 12, &lines)?;
    let everyone: BTreeSet<&String> = accounts.iter().collect();
    ensure!(known["accounts"] == everyone.len(), "{known}");

    kill_in_the_middle(fleet, &file, &options).await?;
    let sent: u64 = totals(lines.clone())
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, total)| total["events"].as_u64())
        .sum();
    for run in ["after a kill", "once more"] {
        let report = replay(fleet, &file, &options).await?;
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
async fn kill_in_the_middle(fleet: &mut Fleet, file: &Path, options: &[&str]) -> Result<()> {
    let file = file.to_str().context("a path that is not text")?;
    // An hour and a half within some six seconds.
    let arguments = [&["replay", file, "--speed", "900x"], options].concat();
    let call = fleet.operator_call("replay", &arguments)?;
    let mut program = call.start()?;
    eventually("some of it is in the ledger", async || {
        let events = count(
            fleet,
            "SELECT count(*) FROM usage.usage_event WHERE source LIKE 'replay:%'",
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

async fn count(fleet: &Fleet, statement: &'static str) -> Result<i64> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut session).await?;
    session.close().await?;
    Ok(count)
}

/// Quota has noted what the oracle says, and people were told of each limit's highest share, nothing twice.
async fn exactly_these_were_crossed(
    fleet: &Fleet,
    operator: &Clients,
    oracle: &Oracle,
    accounts: &BTreeSet<&String>,
) -> Result<()> {
    type Crossing = (String, String, String, i64, i32);
    let expected: BTreeSet<Crossing> = oracle
        .crossed
        .iter()
        .map(|((account, metric, period, start), percent)| {
            (
                account.clone(),
                metric.clone(),
                (*period).to_owned(),
                start.as_second(),
                i32::try_from(*percent).unwrap_or_default(),
            )
        })
        .collect();
    eventually("quota has noted every threshold", async || {
        let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
        let rows: Vec<Crossing> = sqlx::query_as(
            "SELECT account_id, metric, period, extract(epoch FROM start_at)::bigint, threshold_percent
             FROM quota.crossed_threshold WHERE account_id LIKE 'replay-%'",
        )
        .fetch_all(&mut session)
        .await?;
        session.close().await?;
        let noted: BTreeSet<Crossing> = rows.into_iter().collect();
        let difference: Vec<&Crossing> = noted.symmetric_difference(&expected).collect();
        ensure!(difference.is_empty(), "not the same: {difference:?}");
        Ok(())
    })
    .await?;
    eventually("everybody was told", async || {
        let mut told = BTreeSet::new();
        for account in accounts {
            told.extend(told_of(operator, account).await?);
        }
        let unknown: Vec<&Crossing> = told.difference(&expected).collect();
        ensure!(unknown.is_empty(), "told of what was not crossed: {unknown:?}");
        for (account, metric, period, start, percent) in &expected {
            let higher = (percent + 1)..=i32::MAX;
            let window = |percent| (account.clone(), metric.clone(), period.clone(), *start, percent);
            let is_highest = expected
                .range(window(*higher.start())..=window(*higher.end()))
                .next()
                .is_none();
            ensure!(
                !is_highest || told.contains(&window(*percent)),
                "nobody was told of {metric}/{period} {percent}% of {account}"
            );
        }
        Ok(())
    })
    .await
}

async fn told_of(operator: &Clients, account: &str) -> Result<Vec<(String, String, String, i64, i32)>> {
    let request = ListNoticesRequest {
        account_id: account.to_owned(),
        page_size: 100,
        ..ListNoticesRequest::default()
    };
    let page = operator
        .notification
        .clone()
        .list_notices(request)
        .await?
        .into_inner();
    ensure!(page.next_page_token.is_empty(), "more than a page");
    let mut told = Vec::new();
    for notice in page.notices {
        let fact = |name: &str| {
            notice
                .facts
                .get(name)
                .cloned()
                .with_context(|| format!("no {name}"))
        };
        let start: Timestamp = fact("window_start_time")?.parse()?;
        let crossing = (
            account.to_owned(),
            fact("metric")?,
            fact("period")?,
            start.as_second(),
            fact("percent")?.parse()?,
        );
        ensure!(!told.contains(&crossing), "told twice: {crossing:?}");
        told.push(crossing);
    }
    Ok(told)
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
    exactly_these_were_crossed(fleet, &operator, &oracle, &accounts.iter().collect()).await
}
