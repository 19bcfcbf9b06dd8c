//! Figures and lists of one account, out of a ledger of one million events and then of ten.

use std::time::Duration;

use anyhow::Result;
use jiff::{ToSpan as _, tz::TimeZone};

use super::{
    Bench,
    catalog::CALLS,
    fill::{self, Events, Month},
    rig::Rig,
    rows,
};
use crate::{
    bench::{
        accounts,
        load::{self, Case, Round},
        report::Unit,
        rounds::{self, Figure, ROUNDS_MIN, Series, Side},
        usage::{Asked, FirstPage, Stats},
    },
    harness::fleet::now,
};

/// Events of an account when the ledger has a million, and when it has ten.
const MILLION: u64 = 1_000_000 / fill::ACCOUNTS as u64;
const TEN_MILLION: u64 = 10 * MILLION;
/// How many events a page has.
const PAGE: u8 = 50;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let rig = Rig::start(&bench.runtime, &bench.cores, &bench.stores)?;
    rig.create_accounts(fill::NAME, fill::ACCOUNTS)?;
    let month = month()?;
    let [utc_of_1, paris_of_1, page_of_1] = read(&rig, month, "1 million", 0, MILLION)?;
    let all = read(&rig, month, "10 million", MILLION, TEN_MILLION)?;
    let [utc, paris, page] = &all;
    let median = |round: &Round| round.latency_us(500);
    for (series, of_1) in [(utc, &utc_of_1), (paris, &paris_of_1), (page, &page_of_1)] {
        rows::add_latencies(report, of_1)?;
        rows::add_latencies(report, series)?;
        let grown = series.figure_against(of_1, median);
        let case = format!("{}: of 1 million", series.name);
        report.add(&case, Unit::Micros, &grown)?;
    }
    report.note_rounds(&all);
    let lag = rig.runtime.block_on(rig.books.lag())?;
    report.add(
        "a filled ledger: what the rollups lack",
        Unit::Units,
        &Figure::of(lag as f64),
    )?;
    bench.amiss += rig.amiss()?;
    Ok(())
}

/// The third month before this one: over everywhere, and one that no service has made.
fn month() -> Result<Month> {
    let first = now().to_zoned(TimeZone::UTC).first_of_month()?.start_of_day()?;
    let start = first.checked_sub(3.months())?;
    let end = start.checked_add(1.month())?;
    Ok(Month {
        start: start.timestamp().as_second(),
        end: end.timestamp().as_second(),
    })
}

/// Fills the ledger until each account has `events`, of which it `has` some, and asks.
fn read(rig: &Rig<'_>, month: Month, size: &str, has: u64, events: u64) -> Result<[Series; 3]> {
    let further = Events {
        first: has,
        count: events - has,
    };
    rig.runtime.block_on(fill::fill(&rig.books, month, further))?;
    let all = further.count * u64::from(fill::ACCOUNTS);
    rig.note(fill::NAME, all, all);
    let names = accounts::names(fill::NAME, fill::ACCOUNTS);
    let days = usize::try_from((month.end - month.start) / 86_400)?;
    let stats = |zone, buckets| {
        let asked = Asked {
            metric: CALLS,
            month: (month.start, month.end),
            zone,
            events,
            buckets,
        };
        Stats::new(&names, &asked)
    };
    let mut utc = stats("UTC", days);
    // Its days begin elsewhere than those of the rollups, so one more is begun, and quarters of an hour are summed.
    let mut paris = stats("Europe/Paris", days + 1);
    let mut page = FirstPage::new(&names, PAGE);
    let case = Case {
        connections: 1,
        in_flight: 1,
        measured: Duration::from_millis(1_000),
        ..rig.case()
    };
    let name = |what: &str| format!("{what}, out of {size}");
    let sides = [
        name("a month by day of UTC"),
        name("a month by day of Paris"),
        name("first page of events"),
    ];
    rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new(&sides[0], || load::run(&case, &mut utc)),
            Side::new(&sides[1], || load::run(&case, &mut paris)),
            Side::new(&sides[2], || load::run(&case, &mut page)),
        ],
    )
}
