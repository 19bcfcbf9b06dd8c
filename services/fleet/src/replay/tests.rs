//! Whole replays against a fleet that is faked in this process.

mod fake;
mod notices;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Parser as _;

use super::*;
use fake::Fake;

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// A file of its own, removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("octroi-replay-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a writable directory");
        Self(path)
    }

    fn args(&self, options: &str) -> Args {
        let mut args = Command::try_parse_from(
            ["replay", "file"]
                .into_iter()
                .chain(options.split_ascii_whitespace()),
        )
        .expect("good options")
        .args;
        args.file.clone_from(&self.0);
        args
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Traffic of the known header: line `n` has `n % 50` tokens in and 2 out, a second after the one before.
fn traffic(lines: u32) -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for n in 0..lines {
        text += &format!(
            "2024-03-01 08:{:02}:{:02}.5000000,{},2\n",
            n / 60 % 60,
            n % 60,
            n % 50
        );
    }
    text
}

/// The fake works everything off before it answers.
const WAITS: Waits = Waits {
    at_most: Duration::from_secs(60),
    quiet: Duration::from_millis(100),
    quiet_after_away: Duration::from_millis(200),
};

async fn replay(fake: &Fake, args: Args) -> anyhow::Result<Report> {
    replay_waiting(fake, args, WAITS).await
}

async fn replay_waiting(fake: &Fake, args: Args, waits: Waits) -> anyhow::Result<Report> {
    run_with(args, Some(fake.link()), CancellationToken::new(), waits).await
}

fn amounts(totals: &Totals) -> BTreeMap<&str, (u64, u64)> {
    totals
        .0
        .iter()
        .map(|(metric, total)| (metric.as_str(), (total.amount, total.events)))
        .collect()
}

#[tokio::test]
async fn a_second_run_adds_nothing() {
    let file = TempFile::new("twice", &traffic(1_000));
    let fake = Fake::default();
    let first = replay(&fake, file.args("--accounts 7")).await.expect("a report");
    assert!(first.is_complete(), "{first:?}");
    assert_eq!((first.lines, first.accounts), (1_000, 7));
    // Each fiftieth line has no tokens in, so it makes no event of that metric.
    let expected = BTreeMap::from([
        ("llm.requests", (1_000, 1_000)),
        ("llm.tokens_in", (24_500, 980)),
        ("llm.tokens_out", (2_000, 1_000)),
    ]);
    assert_eq!(amounts(&first.file_totals), expected);
    assert_eq!(amounts(first.ledger_totals.as_ref().expect("totals")), expected);
    assert_eq!((first.sent, first.recorded, first.duplicates), (2_980, 2_980, 0));
    assert!(first.thresholds_crossed > 500, "{}", first.thresholds_crossed);
    assert!(fake.state().batch_max <= 1_000);
    assert!(fake.state().plans.values().all(|plan| plan == "replay"));

    let second = replay(&fake, file.args("--accounts 7 --speed 100000x"))
        .await
        .expect("a report");
    assert!(second.is_complete(), "{second:?}");
    assert_eq!(
        (second.sent, second.recorded, second.duplicates),
        (2_980, 0, 2_980)
    );
    assert_eq!(second.thresholds_crossed, 0);
    assert_eq!(second.ledger_totals, first.ledger_totals);
}

#[tokio::test]
async fn another_seed_is_another_run_with_accounts_of_its_own() {
    let file = TempFile::new("seeds", &traffic(40));
    let fake = Fake::default();
    for seed in [1, 2] {
        let report = replay(&fake, file.args(&format!("--accounts 3 --seed {seed}")))
            .await
            .expect("a report");
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.duplicates, 0);
    }
    assert_eq!(fake.accounts().len(), 6);
}

#[tokio::test]
async fn what_the_quota_allows_is_what_the_ledger_has() {
    let file = TempFile::new("check", &traffic(600));
    let fake = Fake::with_limit(100);
    let first = replay(&fake, file.args("--check --accounts 5"))
        .await
        .expect("a report");
    assert!(first.is_complete(), "{first:?}");
    let denied: u64 = first.denied.values().sum();
    assert_eq!(first.allowed + denied, 600);
    assert!(
        denied > 100
            && first
                .denied
                .keys()
                .all(|metric| metric.as_str() == "llm.requests"),
        "{:?}",
        first.denied
    );
    assert_eq!(first.ledger_totals, first.allowed_totals);
    assert_eq!(
        first.recorded,
        first.allowed_totals.as_ref().expect("totals").events()
    );
    assert!(
        fake.state().at_once_max > 1,
        "accounts are asked about at the same time"
    );

    let mut lines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let layout = Layout::of(
        &scan::first_line(&file.0).expect("a line"),
        &file.args("--accounts 5"),
    )
    .expect("a layout");
    let scan = scan::scan(&file.0, &layout, true).expect("a scan");
    let names = feed(
        &file.args("--check"),
        layout,
        scan,
        &PlanSlug::parse("replay").expect("a slug"),
    )
    .expect("a feed")
    .names;
    let number: BTreeMap<String, usize> = (2..=601)
        .map(|line| (names.request_id(line as u64), line))
        .collect();
    for (account, request) in &fake.state().asked {
        lines.entry(account.clone()).or_default().push(number[request]);
    }
    assert!(
        lines.values().all(|lines| lines.is_sorted()),
        "an account's lines are asked about in their order"
    );

    let second = replay(&fake, file.args("--check --accounts 5"))
        .await
        .expect("a report");
    assert!(second.is_complete(), "{second:?}");
    assert_eq!((second.recorded, second.duplicates), (0, first.recorded));
    assert_eq!((second.allowed, &second.denied), (first.allowed, &first.denied));
}

#[tokio::test]
async fn a_fleet_that_comes_back_misses_nothing() {
    let file = TempFile::new("back", &traffic(600));
    for options in ["--accounts 4", "--accounts 4 --check"] {
        let fake = Fake::with_limit(1_000_000);
        // After the check of the metrics and the four accounts, within the sending.
        (fake.state().answers_left, fake.state().refusals_left) = (Some(10), 5);
        let report = replay(&fake, file.args(options)).await.expect("a report");
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(fake.state().refusals_left, 0, "it was away for a while");
        assert_eq!((report.recorded, report.duplicates), (report.sent, 0));
    }
}

#[tokio::test]
async fn a_fleet_that_stays_away_ends_the_run_at_a_line() {
    let file = TempFile::new("away", &traffic(3_000));
    for check in [false, true] {
        let fake = Fake::with_limit(1_000_000);
        let layout =
            Layout::of(&scan::first_line(&file.0).expect("a line"), &file.args("")).expect("a layout");
        let scan = scan::scan(&file.0, &layout, true).expect("a scan");
        let args = file.args(if check { "--check" } else { "" });
        let feed = feed(&args, layout, scan, &PlanSlug::parse("replay").expect("a slug")).expect("a feed");
        (fake.state().answers_left, fake.state().refusals_left) = (Some(2), u32::MAX);
        let fleet = Fleet::new(fake.link(), Duration::from_millis(300), CancellationToken::new());
        let mut progress = progress::Progress::start("sent", 1);
        let pace = feed::Pace {
            start: tokio::time::Instant::now(),
            first_at: feed.scan.first_at().expect("a line"),
            speed: Speed::Max,
        };
        let (entries, reading) = feed.clone().start();
        let tally = if check {
            check::ask(&fleet, &feed.names, entries, pace, &mut progress).await
        } else {
            send::send(&fleet, &feed.names, entries, pace, &mut progress).await
        };
        reading
            .await
            .expect("a reader that ends")
            .expect("a readable file");
        let stopped = tally.stopped.expect("a stop");
        assert!(
            stopped.why.contains("the fleet has not answered for"),
            "{stopped}"
        );
        // All lines before the one that is named are done.
        let recorded = fake.state().ledger.len();
        assert_eq!(tally.recorded, recorded as u64);
        let metric = octroi_core::MetricSlug::parse("llm.tokens_out").expect("a slug");
        let ids: BTreeSet<String> = fake.state().ledger.keys().map(|(_, _, id)| id.clone()).collect();
        for line in 2..stopped.line {
            let id = if check {
                format!("{}/{metric}", feed.names.request_id(line))
            } else {
                feed.names.event_id(line, &metric)
            };
            assert!(ids.contains(&id), "line {line} before {}", stopped.line);
        }
        assert!(recorded < 3_000 && stopped.line < 1_500, "{stopped}");
    }
}

#[tokio::test]
async fn an_operator_can_stop_a_slow_replay() {
    let file = TempFile::new("stop", &traffic(100));
    for options in ["--speed recorded", "--speed recorded --check"] {
        let fake = Fake::with_limit(1_000);
        let stop = CancellationToken::new();
        let later = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            later.cancel();
        });
        let report = run(file.args(options), Some(fake.link()), stop)
            .await
            .expect("a report");
        let stopped = report.stopped.clone().expect("a stop");
        assert!(!report.is_complete());
        assert_eq!(stopped.why, "the run was stopped");
        assert!((3..6).contains(&stopped.line), "{stopped}");
        assert!(report.recorded >= 1 && report.recorded < 12, "{report:?}");
    }
}

#[tokio::test]
async fn refused_events_make_a_replay_incomplete() {
    let file = TempFile::new(
        "refused",
        "time,who,n\n2024-03-01,a,1\n2024-03-01T00:00:00Z,a,1\n2024-03-01T00:00:00Z,b,1\n",
    );
    let fake = Fake::default();
    fake.state().refused_account = Some("b".to_owned());
    let report = replay(&fake, file.args("--account-column who --metric m=n"))
        .await
        .expect("a report");
    assert!(!report.is_complete(), "{report:?}");
    assert_eq!((report.malformed, report.recorded, report.refused), (0, 2, 1));
    assert_eq!(report.refused_lines[0].line, 4);
    assert_eq!(report.matches, Some(false));
}

#[tokio::test]
async fn malformed_lines_are_left_out_unless_the_run_is_strict() {
    let file = TempFile::new(
        "malformed",
        &format!("{}oops\n2024-03-01 09:00:00,-1,1\n", traffic(3)),
    );
    let fake = Fake::default();
    let report = replay(&fake, file.args("")).await.expect("a report");
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.lines, report.malformed), (5, 2));
    assert_eq!(
        report
            .malformed_lines
            .iter()
            .map(|one| one.line)
            .collect::<Vec<_>>(),
        [5, 6]
    );

    let fake = Fake::default();
    let error = replay(&fake, file.args("--strict"))
        .await
        .expect_err("a malformed line")
        .to_string();
    assert_eq!(error, "line 5 has 1 columns, the header has 3; nothing was sent");
    assert!(fake.state().plans.is_empty(), "nothing was sent");
}

#[tokio::test]
async fn files_that_cannot_be_replayed_are_refused_before_anything_is_sent() {
    let fake = Fake::default();
    let check = async |name: &str, text: &str, options: &str, expected: &str| {
        let file = TempFile::new(name, text);
        let error = replay(&fake, file.args(options)).await.expect_err(name);
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    };
    check("empty", "", "", "is empty").await;
    check("blank", "\n\n", "", "is empty").await;
    check("unknown", "a,b\n", "", "no header that is known").await;
    check("useless", "time,n\nsoon,1\n", "--metric m=n", "no line of").await;
    check(
        "metric",
        "time,n\n2024-03-01T00:00:00Z,1\n",
        "--metric unknown=n",
        "add it to the fleet's catalog",
    )
    .await;
    check(
        "far",
        &traffic(9),
        "--shift-to 9999-12-30T21:59:58Z",
        "out of the calendar",
    )
    .await;
    check(
        "old",
        "192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 23 \"-\" \"-\"\n",
        "",
        "its subscription would begin on 2000-10-01T00:00:00Z, the first of the month of the first line, and that \
         must be at most 5 minutes ahead and 10 years back: move all lines with --shift-to",
    )
    .await;
    let file = TempFile::new("plan", "time,who,n\n2024-03-01T00:00:00Z,a,1\n");
    fake.state().plans.insert("a".to_owned(), "pro".to_owned());
    let options = "--account-column who --metric m=n";
    let error = replay(&fake, file.args(&format!("{options} --plan free")))
        .await
        .expect_err("another plan");
    assert!(
        format!("{error:#}").contains("subscribed to plan pro, not free"),
        "{error:#}"
    );
    assert!(fake.state().ledger.is_empty());
    let kept = replay(&fake, file.args(options)).await.expect("a report");
    assert!(
        kept.is_complete(),
        "an account that the file names keeps its plan: {kept:?}"
    );
}

#[tokio::test]
async fn a_dry_run_and_a_header_alone_need_no_fleet() {
    let file = TempFile::new("dry", &traffic(10));
    let report = run(file.args("--dry-run"), None, CancellationToken::new())
        .await
        .expect("a report");
    assert!(report.is_complete() && report.dry_run && report.sent == 0);
    assert_eq!(report.file_totals.events(), 29);
    let file = TempFile::new("header", &traffic(0));
    let report = run(file.args(""), None, CancellationToken::new())
        .await
        .expect("a report");
    assert!(report.is_complete() && report.lines == 0);
}

#[tokio::test]
async fn times_are_moved_as_one() {
    let file = TempFile::new("shift", &traffic(2));
    let fake = Fake::default();
    let report = replay(&fake, file.args("--shift-to 2025-06-01T00:00:00Z"))
        .await
        .expect("a report");
    assert!(report.is_complete(), "{report:?}");
    let seconds: BTreeSet<i64> = fake
        .state()
        .ledger
        .values()
        .map(|(_, _, seconds, _)| *seconds)
        .collect();
    let first = 1_748_736_000;
    assert_eq!(seconds.into_iter().collect::<Vec<_>>(), [first, first + 1]);
}

#[tokio::test]
async fn what_other_runs_recorded_for_the_same_accounts_is_told_apart() {
    let lines = |amounts: [u32; 3]| {
        let mut text = "time,who,n\n".to_owned();
        for (second, amount) in amounts.into_iter().enumerate() {
            text += &format!("2024-03-01T08:00:0{second}Z,a,{amount}\n");
        }
        text
    };
    let options = "--check --account-column who --metric llm.requests=n";
    let fake = Fake::with_limit(1_000);
    let mut before = 0;
    for (name, text, recorded) in [
        ("one", lines([1, 2, 3]), 6),
        ("other", lines([10, 20, 30]), 60),
        ("other again", lines([10, 20, 30]), 0),
    ] {
        let file = TempFile::new(name, &text);
        let report = replay(&fake, file.args(options)).await.expect("a report");
        assert!(report.is_complete(), "{name}: {report:?}");
        let amount = |totals: &Option<Totals>| {
            let totals = amounts(totals.as_ref().expect("totals"));
            totals.get("llm.requests").map_or(0, |(amount, _)| *amount)
        };
        assert_eq!(amount(&report.ledger_totals_before), before, "{name}");
        assert_eq!(amount(&report.recorded_totals), recorded, "{name}");
        before += recorded;
        assert_eq!(amount(&report.ledger_totals), before, "{name}");
    }
}

#[tokio::test]
async fn an_old_access_log_is_replayed_where_it_is_moved() {
    let file = TempFile::new(
        "moved",
        "192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 23 \"-\" \"-\"\n",
    );
    let fake = Fake::default();
    let report = replay(&fake, file.args("--shift-to 2025-06-01T00:00:00Z"))
        .await
        .expect("a report");
    assert!(report.is_complete() && report.recorded == 2, "{report:?}");
}

#[test]
fn lines_that_count_as_nothing_are_not_waited_for() {
    let file = TempFile::new("nothing", &traffic(100));
    let args = file.args("--metric llm.tokens_in=ContextTokens --time-column TIMESTAMP");
    let layout = Layout::of(&scan::first_line(&file.0).expect("a line"), &args).expect("a layout");
    let scan = scan::scan(&file.0, &layout, true).expect("a scan");
    // Each fiftieth has no tokens in.
    assert_eq!((scan.lines, scan.counting_lines), (100, 98));
}
