//! What accounts take in the memory of a replica, and what it keeps of those that nobody asks for.

use std::time::{Duration, Instant};

use anyhow::Result;
use octroi_proto::quota::v1::CheckMode;

use super::{
    Bench,
    catalog::CLICKS,
    rig::{LIMITS, Ledger, Rig},
};
use crate::bench::{
    load::{self, Case},
    proc,
    quota::Batches,
    report::Unit,
    rounds::Figure,
};

/// What is asked for.
const ACCOUNTS: u32 = 1_000_000;
/// How long a replica is given to see them.
const LOAD_MAX: Duration = Duration::from_secs(75);
/// How long slices that nobody touches are kept here.
const IDLE_MS: &str = "2000";
/// After that an account that nobody asks for should be gone: the replica believes what it knows of it for 30 s.
const IDLE: Duration = Duration::from_secs(40);
/// Accounts in each of the two halves of what is seen and forgotten.
const SEEN: &str = "seen";
const BATCH: u32 = 100;
/// What `quota.decisions.bytes_max` is where nobody sets it. It fills while accounts are looked at for the first time and
/// then stays, so it is switched off here, and added.
const DECISIONS: u64 = 67_108_864;

#[expect(clippy::float_arithmetic, reason = "a figure for people")]
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let rig = Rig::start(
        &bench.runtime,
        &bench.cores,
        &bench.stores,
        Ledger::Beside,
        |fleet| {
            let fleet = fleet.set("quota.slices.idle_ms", IDLE_MS);
            fleet.set("quota.decisions.bytes_max", "0")
        },
    )?;
    rig.create_accounts(SEEN, ACCOUNTS)?;
    let resident = || proc::resident_bytes(rig.quota_pid);
    let empty = resident()?;
    // In the second half of the time others are looked at, and then what the first left must be free for them.
    let mut looks = Batches::new(rig.checks(SEEN, ACCOUNTS, CLICKS, CheckMode::Peek), BATCH);
    let first = look(&rig, &mut looks, u64::from(ACCOUNTS), LOAD_MAX)?;
    let full = resident()?;
    let per_account = (full.saturating_sub(empty)) / first.max(1);
    let of_all = empty + per_account * u64::from(ACCOUNTS) + DECISIONS;
    let report = &mut bench.report;
    let figure = Figure::of(of_all as f64 / 1e6);
    report.add("1,000,000 accounts: resident memory", Unit::Megabytes, &figure)?;
    report.add(
        "1,000,000 accounts: of which were looked at",
        Unit::Units,
        &Figure::of(first as f64),
    )?;
    report.add(
        "a replica without accounts: resident memory",
        Unit::Megabytes,
        &Figure::of(empty as f64 / 1e6),
    )?;

    std::thread::sleep(IDLE);
    let others = first.min(u64::from(ACCOUNTS) - first);
    let second = look(&rig, &mut looks, others, LOAD_MAX)?;
    let (grown, had) = (resident()?.saturating_sub(empty), full.saturating_sub(empty));
    // As much as the first took is what is there to be used again.
    let expected = had * second / first.max(1);
    let times = grown as f64 / had.max(expected).max(1) as f64;
    report.add(
        "idle accounts: resident memory after as many others",
        Unit::Times,
        &Figure::of(times),
    )?;
    report.note(format!(
        "memory: {first} accounts were looked at, in batches of {BATCH} PEEKs of {LIMITS} limits each; after {} s \
         without a call, {second} others were",
        IDLE.as_secs()
    ));
    Ok(())
}

/// Looks at about so many further accounts, or as many as there is time for.
fn look(rig: &Rig<'_>, looks: &mut Batches, accounts: u64, time: Duration) -> Result<u64> {
    let case = Case {
        connections: 2,
        in_flight: 1,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(1),
        ..rig.quota_case()
    };
    let (since, mut seen) = (Instant::now(), 0);
    while seen + 2 * u64::from(BATCH) < accounts && since.elapsed() < time {
        seen += load::run(&case, looks)?.good()?.total.decided();
    }
    Ok(seen)
}
