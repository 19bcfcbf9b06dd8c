//! Traffic that is replayed many times faster than it was recorded, while its figures and events are read all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::{Timestamp, ToSpan as _};
use octroi_kit::convert::to_proto_time;
use octroi_proto::usage::v1::{
    GetUsageStatsRequest, Granularity, ListUsageEventsRequest, MetricStats, RecordedEvent,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, Topology, eventually, tell};

use super::{accounts, lines, lines_of, oracle::Line, read_file, replay, write_file};
use crate::story::both_topologies;

both_topologies!(figures_and_events_are_read_while_traffic_is_replayed);

/// How many times faster than it was recorded.
const SPEED: &str = "600x";
const METRICS: [&str; 3] = ["llm.requests", "llm.tokens_in", "llm.tokens_out"];
/// How many accounts are watched, each by a reader of its own.
const WATCHED: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);
/// The least that a reader must have read meanwhile, so that it has seen the figures grow.
const READS_MIN: usize = 10;
const PAGE: i32 = 100;
const HOUR_S: i64 = 3_600;

/// Units and number of events.
type Figures = (u64, u64);

/// What the lines come to by account, metric and the first second of the hour.
type Sums = BTreeMap<(String, &'static str, i64), Figures>;

async fn figures_and_events_are_read_while_traffic_is_replayed(fleet: &mut Fleet) -> Result<()> {
    let lines = lines(9)?;
    let file = write_file(fleet.dir(), &lines)?;
    read_while_it_is_replayed(fleet, &file, &lines, 12).await
}

/// The same with the file that `TEST_REPLAY_FILE` names, or else 20,000 lines of our own.
async fn recorded_traffic_is_read_while_it_is_replayed(fleet: &mut Fleet) -> Result<()> {
    let file = match std::env::var_os("TEST_REPLAY_FILE") {
        Some(file) => PathBuf::from(file),
        None => write_file(fleet.dir(), &lines_of(20_000, 1)?)?,
    };
    let lines = read_file(&file)?;
    read_while_it_is_replayed(fleet, &file, &lines, 300).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn recorded_traffic_is_read_while_it_is_replayed_in_one_process() -> Result<()> {
    tell(
        Fleet::builder(Topology::OneProcess),
        recorded_traffic_is_read_while_it_is_replayed,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn recorded_traffic_is_read_while_it_is_replayed_in_many_processes() -> Result<()> {
    tell(
        Fleet::builder(Topology::Split),
        recorded_traffic_is_read_while_it_is_replayed,
    )
    .await
}

/// Who reads what of whom.
struct Reader {
    clients: Clients,
    account: String,
    start: Timestamp,
    end: Timestamp,
}

async fn read_while_it_is_replayed(
    fleet: &mut Fleet,
    file: &Path,
    lines: &[Line],
    accounts_max: u32,
) -> Result<()> {
    let accounts_option = accounts_max.to_string();
    let options = ["--accounts", &accounts_option, "--seed", "7"];
    let known = replay(fleet, file, &[&options[..], &["--dry-run"]].concat()).await?;
    let accounts = accounts(&known, accounts_max, lines)?;
    let expected = sums(lines, &accounts);
    let readers = readers(fleet, lines, &accounts)?;

    let is_over = AtomicBool::new(false);
    let replaying = async {
        let report = replay(fleet, file, &[&options[..], &["--speed", SPEED]].concat()).await;
        is_over.store(true, Ordering::Relaxed);
        report
    };
    let reading = try_join_all(readers.iter().map(|reader| reader.watch(&is_over)));
    let (report, reads) = tokio::join!(replaying, reading);
    let (report, reads) = (report?, reads?);
    ensure!(
        report["complete"] == true && report["match"] == true && report["refused"] == 0,
        "{report}"
    );
    ensure!(reads.iter().all(|reads| *reads >= READS_MIN), "{reads:?} reads");

    for reader in &readers {
        reader.has_exactly(&expected).await?;
    }
    let by_account = events_by_account(lines, &accounts);
    for reader in &readers {
        let events = reader.all_events().await?;
        let of_file = by_account.get(reader.account.as_str()).copied();
        ensure!(
            Some(events.len()) == of_file,
            "{} of {of_file:?} events of {}",
            events.len(),
            reader.account
        );
    }
    Ok(())
}

/// The hour of an instant.
fn hour_of(at: Timestamp) -> i64 {
    at.as_second() - at.as_second().rem_euclid(HOUR_S)
}

fn sums(lines: &[Line], accounts: &[String]) -> Sums {
    let mut sums = Sums::new();
    for (line, account) in lines.iter().zip(accounts) {
        for (metric, amount) in line.uses().into_iter().filter(|(_, amount)| *amount > 0) {
            let sum = sums
                .entry((account.clone(), metric, hour_of(line.at)))
                .or_default();
            *sum = (sum.0 + amount, sum.1 + 1);
        }
    }
    sums
}

fn events_by_account<'a>(lines: &[Line], accounts: &'a [String]) -> BTreeMap<&'a str, usize> {
    let mut events: BTreeMap<&str, usize> = BTreeMap::new();
    for (line, account) in lines.iter().zip(accounts) {
        let used = line.uses().into_iter().filter(|(_, amount)| *amount > 0);
        *events.entry(account).or_default() += used.count();
    }
    events
}

/// Readers of the accounts that come first, who are those that the most lines are about, and of the last.
fn readers(fleet: &Fleet, lines: &[Line], accounts: &[String]) -> Result<Vec<Reader>> {
    let first = lines.iter().map(|line| line.at).min().context("no lines")?;
    let last = lines.iter().map(|line| line.at).max().context("no lines")?;
    let start = Timestamp::from_second(hour_of(first))?;
    let end = Timestamp::from_second(hour_of(last))? + HOUR_S.seconds();
    let named: BTreeSet<&String> = accounts.iter().collect();
    let watched = named.iter().take(WATCHED - 1).chain(named.last());
    let reader = |account: &&String| {
        Ok(Reader {
            clients: fleet.clients(APPLICATION)?,
            account: (*account).clone(),
            start,
            end,
        })
    };
    watched.map(reader).collect()
}

impl Reader {
    async fn stats(&self) -> Result<Vec<MetricStats>> {
        let request = GetUsageStatsRequest {
            account_id: self.account.clone(),
            metrics: METRICS.map(str::to_owned).to_vec(),
            start_time: Some(to_proto_time(self.start)),
            end_time: Some(to_proto_time(self.end)),
            granularity: Granularity::Hour.into(),
            zone: "UTC".to_owned(),
            ..GetUsageStatsRequest::default()
        };
        let mut usage = self.clients.usage.clone();
        Ok(usage.get_usage_stats(request).await?.into_inner().stats)
    }

    async fn page(&self, page_token: String) -> Result<(Vec<RecordedEvent>, String)> {
        let request = ListUsageEventsRequest {
            account_id: self.account.clone(),
            page_size: PAGE,
            page_token,
            ..ListUsageEventsRequest::default()
        };
        let mut usage = self.clients.usage.clone();
        let page = usage.list_usage_events(request).await?.into_inner();
        Ok((page.events, page.next_page_token))
    }

    /// Reads until the replay is over, and answers how often. Every read is answered; no figure becomes less, the list is
    /// in its order, and its newest event never an older one.
    async fn watch(&self, is_over: &AtomicBool) -> Result<usize> {
        eventually("the account is there", async || self.stats().await).await?;
        let (mut before, mut newest, mut reads) = (Vec::new(), None, 0);
        loop {
            let was_over = is_over.load(Ordering::Relaxed);
            let now = figures(&self.stats().await.context("figures are not answered")?)?;
            let grows = before
                .iter()
                .zip(&now)
                .all(|(before, now)| at_most(*before, *now));
            ensure!(
                before.is_empty() || (before.len() == now.len() && grows),
                "{}: {before:?} became {now:?}",
                self.account
            );
            before = now;
            let (events, _) = self
                .page(String::new())
                .await
                .context("events are not answered")?;
            let times = times(&events)?;
            ensure!(
                times.is_sorted_by(|one, next| one >= next),
                "not the newest first: {times:?}"
            );
            ensure!(times.first().copied() >= newest, "{newest:?} is gone: {times:?}");
            newest = times.first().copied().or(newest);
            reads += 1;
            if was_over {
                return Ok(reads);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The figures are those of the lines, hour by hour.
    async fn has_exactly(&self, expected: &Sums) -> Result<()> {
        eventually("the figures have every line", async || {
            for metric in self.stats().await? {
                let (mut amount, mut events) = (0, 0);
                for bucket in &metric.buckets {
                    let start = bucket.start_time.context("a bucket without start")?.seconds;
                    let name = METRICS.into_iter().find(|one| *one == metric.metric);
                    let key = (self.account.clone(), name.context("another metric")?, start);
                    let sum = expected.get(&key).copied().unwrap_or_default();
                    ensure!(
                        (bucket.amount, bucket.events) == sum,
                        "{key:?} is {sum:?}, not {bucket:?}"
                    );
                    (amount, events) = (amount + bucket.amount, events + bucket.events);
                }
                ensure!(
                    (metric.total_amount, metric.total_events) == (amount, events),
                    "{} of {}: the whole is not the sum of its hours",
                    metric.metric,
                    self.account
                );
            }
            Ok(())
        })
        .await
    }

    /// Every event of the account, page by page, each once.
    async fn all_events(&self) -> Result<BTreeSet<(String, String)>> {
        let (mut all, mut token) = (BTreeSet::new(), String::new());
        loop {
            let (events, next) = self.page(token).await?;
            for event in events {
                let event = event.event.context("no event")?;
                let key = (event.source, event.event_id);
                ensure!(all.insert(key.clone()), "{key:?} is listed twice");
            }
            if next.is_empty() {
                return Ok(all);
            }
            token = next;
        }
    }
}

/// Of each metric and hour, in their order.
fn figures(stats: &[MetricStats]) -> Result<Vec<Figures>> {
    ensure!(stats.len() == METRICS.len(), "{} metrics", stats.len());
    let whole = stats.iter().map(|one| (one.total_amount, one.total_events));
    let hours = stats.iter().flat_map(|one| &one.buckets);
    Ok(whole.chain(hours.map(|one| (one.amount, one.events))).collect())
}

fn at_most(one: Figures, other: Figures) -> bool {
    one.0 <= other.0 && one.1 <= other.1
}

/// When events count, in seconds and nanoseconds.
fn times(events: &[RecordedEvent]) -> Result<Vec<(i64, i32)>> {
    let time = |event: &RecordedEvent| {
        let time = event.event.as_ref().and_then(|event| event.event_time);
        time.map(|time| (time.seconds, time.nanos))
            .context("an event without a time")
    };
    events.iter().map(time).collect()
}
