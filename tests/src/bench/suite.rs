//! `make bench-quota`: what the decisions of quota cost, beside a floor and a route in the same run.
//!
//! Two things stand beside every case. The *floor* ([`floor`](super::floor)) is tonic with nothing behind it. The
//! *route* ([`route`](super::route)) is the same handler behind our own layers, on our own chassis. A request is one
//! metric with a limit an hour, a day and a month, and carries a request id that was never used before. The generator
//! reads every answer: its status, whether it is allowed, and that it tells of three limits.
//!
//! Groups of cases ([`Group`]) each have a fleet of their own, in many processes. Quota has the server's core to
//! itself; the generator has the other one, together with the stores and whatever does not decide. Where the ledger
//! is what is waited for, its process is on the server's core as well.
//!
//! Whatever a case allowed is written down by the generator. At the end of its group, the ledger must have all of it,
//! and no account more than its limit.

mod allocations;
mod bulk;
mod cache;
mod catalog;
mod cold;
mod durable;
mod edge;
mod holds;
mod lasting;
mod layer;
mod memory;
mod point;
mod replicas;
mod rig;
mod rows;
mod shape;
mod targets;

use std::{fs::File, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use super::{
    pin::{self, Cores},
    report::{Report, Unit},
    rounds::Figure,
    stores::{POSTGRES_SETTINGS, Stores},
};
use crate::harness::fleet::now;
use rig::Rig;

/// What is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// Only these groups of cases; all of them where none is named.
    groups: Vec<Group>,
    /// Holds this file locked while a group is measured, so that whoever locks it too is not on the machine meanwhile.
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Cases that share a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// What the runtimes of a server cost.
    Shape,
    /// One check a call, answered from memory, of one account.
    Point,
    /// The same of 10,000 accounts.
    Keys,
    /// Many checks a call, and streams.
    Bulk,
    /// Near a limit, and beyond it.
    Edge,
    /// Answered once the ledger has it.
    Durable,
    /// Accounts that the replica has never seen.
    Cold,
    /// Reserve and commit.
    Holds,
    /// Several replicas and one account.
    Replicas,
    /// How often memory is asked for.
    Allocations,
    /// What accounts take in memory.
    Memory,
    /// Copies in Redis.
    Cache,
    /// Routes of another program behind a layer.
    Layer,
}

/// A run of the bench.
struct Bench {
    report: Report,
    runtime: Runtime,
    cores: Cores,
    stores: Stores,
    /// Units that were allowed or recorded beyond a limit.
    over_admitted: u64,
}

/// Runs the groups that are asked for, prints the table and writes `target/bench/quota.json`.
///
/// # Errors
/// When something cannot be measured, an answer is wrong, or more was allowed than a limit has. A target that is not
/// reached is no error.
pub fn run(options: &Options) -> Result<()> {
    let groups = match options.groups.as_slice() {
        [] => Group::value_variants(),
        some => some,
    };
    let cores = Cores::share_out(1)?;
    // All that starts from here on stays on the server's core unless it is moved.
    pin::this_thread(&cores.server)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stores = pin::on(&[cores.generator], || runtime.block_on(Stores::start()))??;
    let mut bench = Bench {
        report: Report::new("quota", &Report::dir(), &targets::of(groups))?,
        runtime,
        cores,
        stores,
        over_admitted: 0,
    };
    let settings = POSTGRES_SETTINGS.join(", ");
    bench.report.note(format!(
        "PostgreSQL syncs each commit; {settings}. The server has core {:?}; generator, stores and all else core {}.",
        bench.cores.server, bench.cores.generator
    ));
    for group in groups {
        let _lock = options.lock.as_deref().map(lock).transpose()?;
        let measured = bench.measure(*group);
        // What was found before is not lost with what was not.
        let measured = measured.inspect_err(|_| eprint!("{}", bench.report.table()));
        measured.with_context(|| format!("the group {group:?} cannot be measured"))?;
    }
    bench.finish()
}

/// Waits for a file that others lock too.
pub(super) fn lock(path: &std::path::Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()?;
    Ok(file)
}

impl Bench {
    fn measure(&mut self, group: Group) -> Result<()> {
        match group {
            Group::Shape => shape::run(self),
            Group::Point => point::run_one_key(self),
            Group::Keys => point::run_many_keys(self),
            Group::Bulk => bulk::run(self),
            Group::Edge => edge::run(self),
            Group::Durable => durable::run(self),
            Group::Cold => cold::run(self),
            Group::Holds => holds::run(self),
            Group::Replicas => replicas::run(self),
            Group::Allocations => allocations::run(self),
            Group::Memory => memory::run(self),
            Group::Cache => cache::run(self),
            Group::Layer => layer::run(self),
        }
    }

    fn finish(mut self) -> Result<()> {
        let over = Figure::of(self.over_admitted as f64);
        self.report.add(targets::OVER_ADMISSION, Unit::Units, &over)?;
        self.report.finish(now())?;
        self.runtime.block_on(self.stores.stop());
        ensure!(
            self.over_admitted == 0,
            "{} units were allowed beyond a limit",
            self.over_admitted
        );
        Ok(())
    }
}

/// What was allowed to accounts, and what the ledger has of it.
struct Accounts<'n> {
    name: &'n str,
    count: u32,
    metric: &'static str,
    limit: u64,
}

impl Accounts<'_> {
    /// The units beyond a limit, by the log of answers or in the ledger, whichever are more.
    ///
    /// # Errors
    /// When the ledger has units that nobody was allowed.
    fn over_admitted(&self, rig: &Rig<'_>) -> Result<u64> {
        let allowed = rig.allowed(self.name, self.metric);
        let (recorded, beyond) = rig.ledger(self.name, self.metric, self.limit)?;
        // What was not answered in time may be recorded all the same.
        ensure!(
            recorded <= allowed + rig.unanswered.get(),
            "the ledger has {recorded} units of {} for {}, of which {allowed} were allowed",
            self.metric,
            self.name
        );
        let room = self.limit * u64::from(self.count);
        Ok(allowed.saturating_sub(room).max(beyond))
    }
}
