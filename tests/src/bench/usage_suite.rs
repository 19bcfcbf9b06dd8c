//! `make bench-usage`: what recording and summing usage cost, beside a plain table on the same PostgreSQL.
//!
//! Two things stand beside every case of recording, in the same run and on the same server: `pgbench` with 64 connections
//! that commit one row each into a [table](super::naive) with the event's identity as its key, and one `COPY` into that table.
//! They and usage have all cores, because `pgbench` would be a low floor on one; only the generator keeps to one of them,
//! which it shares.
//!
//! Everything that recording causes is in the figures: the keys that make an event count once, the outbox, the bus, the rollups,
//! quota's windows, as far as it is done within a round. Before another side has its turn, the rest is. Figures of recording over
//! gRPC count only where the rollups keep up (`lasting`).
//!
//! Whatever was acknowledged is counted by whoever was told so. At the end of a group the ledger, its keys and its rollups must
//! have that and nothing else (`books`).

mod alone;
mod books;
mod bus;
mod callers;
mod catalog;
mod fill;
mod fresh;
mod in_process;
mod lasting;
mod reads;
mod rig;
mod rows;
mod targets;
mod wire;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use super::{
    pin::{self, Cores},
    report::{Report, Unit},
    rounds::Figure,
    stores::{POSTGRES_SETTINGS, Stores},
    suite,
};
use crate::harness::fleet::now;

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
    /// Usage in the process of those who call it.
    InProcess,
    /// Streams, batches and single events over gRPC.
    Wire,
    /// One caller alone.
    Alone,
    /// How soon what was acknowledged is seen in the figures, and told.
    Fresh,
    /// Figures and lists out of a ledger of ten million events.
    Reads,
    /// Events in one message of the bus.
    Bus,
}

/// A run of the bench.
struct Bench {
    report: Report,
    runtime: Runtime,
    cores: Cores,
    stores: Stores,
    /// Events that the ledger has more or fewer than were acknowledged, or its rollups than the ledger, or that nobody was told of.
    amiss: u64,
}

/// Runs the groups that are asked for, prints the table and writes `target/bench/usage.json`.
///
/// # Errors
/// When something cannot be measured, an answer is wrong, or the ledger is not what was acknowledged. A target that is not
/// reached is no error.
pub fn run(options: &Options) -> Result<()> {
    let groups = match options.groups.as_slice() {
        [] => Group::value_variants(),
        some => some,
    };
    let all = pin::allowed()?;
    let generator = Cores::share_out(1)?.generator;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stores = runtime.block_on(Stores::start())?;
    let mut bench = Bench {
        report: Report::new("usage", &Report::dir(), &targets::of(groups))?,
        runtime,
        cores: Cores {
            server: all,
            generator,
        },
        stores,
        amiss: 0,
    };
    let settings = POSTGRES_SETTINGS.join(", ");
    bench.report.note(format!(
        "PostgreSQL syncs each commit; {settings}. All share the cores {:?}; the generator keeps to core {}.",
        bench.cores.server, bench.cores.generator
    ));
    for group in groups {
        let _lock = options.lock.as_deref().map(suite::lock).transpose()?;
        let measured = bench.measure(*group);
        // What was found before is not lost with what was not.
        let measured = measured.inspect_err(|_| eprint!("{}", bench.report.table()));
        measured.with_context(|| format!("the group {group:?} cannot be measured"))?;
    }
    bench.finish()
}

impl Bench {
    fn measure(&mut self, group: Group) -> Result<()> {
        match group {
            Group::InProcess => in_process::run(self),
            Group::Wire => wire::run(self),
            Group::Alone => alone::run(self),
            Group::Fresh => fresh::run(self),
            Group::Reads => reads::run(self),
            Group::Bus => bus::run(self),
        }
    }

    fn finish(mut self) -> Result<()> {
        let amiss = Figure::of(self.amiss as f64);
        self.report.add(targets::AMISS, Unit::Units, &amiss)?;
        self.report.finish(now())?;
        self.runtime.block_on(self.stores.stop());
        ensure!(
            self.amiss == 0,
            "the ledger is not what was acknowledged: {} events are amiss",
            self.amiss
        );
        Ok(())
    }
}
