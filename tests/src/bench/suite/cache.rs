//! Where accounts stand, from copies in Redis and from PostgreSQL alone; and how soon a change is seen elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{GetCurrentUsageRequest, LimitOverride, SetLimitOverrideRequest},
};

use super::{
    Bench,
    catalog::CLICKS,
    rig::{LIMITS, Ledger, Rig, names},
    rows,
};
use crate::{
    bench::{
        load::{self, Case, Round},
        quota::Standings,
        report::Unit,
        rounds::{self, Figure, ROUNDS_MIN, Side},
    },
    harness::fleet::{APPLICATION, Builder, OPERATOR},
};

/// Accounts that are asked for again and again.
const KNOWN: &str = "known";
const KNOWN_COUNT: u32 = 1_000;
/// Accounts of which each is asked for once.
const NEW: &str = "new";
const NEW_COUNT: u32 = 200_000;
/// How many changes are waited for.
const CHANGES: u64 = 50;
/// How long a change is waited for.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// The account whose limit is changed.
const CHANGED: &str = "known-0";

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let start = |with: fn(Builder) -> Builder| {
        Rig::start(
            &bench.runtime,
            &bench.cores,
            &bench.stores,
            Ledger::Beside,
            |fleet| with(fleet.replicas("quota", 2)),
        )
    };
    let copies = start(|fleet| fleet)?;
    let alone = start(|fleet| fleet.set("quota.cache.backend", "off"))?;
    for rig in [&copies, &alone] {
        rig.create_accounts(KNOWN, KNOWN_COUNT)?;
        rig.create_accounts(NEW, NEW_COUNT)?;
    }
    let standings = |accounts, count| Standings::new(CLICKS, &names(accounts, count), LIMITS);
    let (mut known, mut known_alone) = (standings(KNOWN, KNOWN_COUNT), standings(KNOWN, KNOWN_COUNT));
    let (mut new, mut new_alone) = (standings(NEW, NEW_COUNT), standings(NEW, NEW_COUNT));
    let case = |rig: &Rig<'_>| Case {
        in_flight: 16,
        ..rig.quota_case()
    };
    for (rig, traffic) in [(&copies, &mut known), (&alone, &mut known_alone)] {
        let warm = Case {
            measured: Duration::from_secs(2),
            ..case(rig)
        };
        load::run(&warm, traffic)?.good()?;
    }
    let (of_copies, of_alone) = (case(&copies), case(&alone));
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("usage, PostgreSQL alone", || {
                load::run(&of_alone, &mut known_alone)
            }),
            Side::new("usage, a copy", || load::run(&of_copies, &mut known)),
            Side::new("usage of a new account, PostgreSQL alone", || {
                load::run(&of_alone, &mut new_alone)
            }),
            Side::new("usage of a new account, no copy yet", || {
                load::run(&of_copies, &mut new)
            }),
        ],
    )?;
    let [database, copy, new_database, miss] = &all;
    let report = &mut bench.report;
    for (series, base) in [(copy, database), (miss, new_database)] {
        for one in [base, series] {
            let rate = one.figure(Round::requests_per_s);
            report.add(&one.name, Unit::RequestsPerSecond, &rate)?;
            rows::add_latencies(report, one)?;
            rows::add_others(report, one)?;
        }
        let gain = series.figure_against(base, Round::requests_per_s);
        let case = format!("{}: of PostgreSQL alone", series.name);
        report.add(&case, Unit::RequestsPerSecond, &gain)?;
    }
    report.note_rounds(&all);
    for (name, rig) in [("copies", &copies), ("PostgreSQL alone", &alone)] {
        let seen = changes_seen(rig)?;
        let figure = Figure::all(seen.iter().map(|time| time.as_micros() as f64));
        bench.report.add(
            &format!("{name}: a limit that was changed, until another replica says so"),
            Unit::Micros,
            &figure,
        )?;
    }
    Ok(())
}

/// How long it takes, after a limit was changed at one replica, until the other one says so.
fn changes_seen(rig: &Rig<'_>) -> Result<Vec<Duration>> {
    rig.runtime.block_on(async {
        let mut operator = rig.fleet.clients(OPERATOR)?.quota;
        let mut other = rig.fleet.clients_at(APPLICATION, "quota-2")?.quota;
        let mut seen = Vec::new();
        for number in 1..=CHANGES {
            let amount = 1_000 + number;
            let change = SetLimitOverrideRequest {
                account_id: CHANGED.to_owned(),
                metric: CLICKS.to_owned(),
                period: Period::Month.into(),
                r#override: Some(LimitOverride {
                    amount,
                    ..LimitOverride::default()
                }),
            };
            operator.set_limit_override(change).await?;
            let since = Instant::now();
            loop {
                let asked = GetCurrentUsageRequest {
                    account_id: CHANGED.to_owned(),
                    metrics: vec![CLICKS.to_owned()],
                };
                let answer = other.get_current_usage(asked).await?.into_inner();
                let month = answer.limits.iter().find(|limit| limit.period() == Period::Month);
                if month.context("a limit a month")?.limit == amount {
                    break;
                }
                ensure!(since.elapsed() < SEEN_WITHIN, "the change {number} is not seen");
            }
            seen.push(since.elapsed());
        }
        Ok(seen)
    })
}
