//! Usage in the process of those who call it: the service over its store, the relay, the bus in process and the rollups, as
//! they are where a process has them all; the account service beside it answers which accounts exist.

use std::{cell::RefCell, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use octroi_kit::{
    auth,
    bus::{self, Bus, Topology},
    component::{Component, Context},
    config::Loader,
    dead_letter::DeadLetterTables,
    lifecycle::Lifecycle,
    link::Links,
    run::{self, Running, Settings},
    telemetry,
};
use octroi_usage::Service;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    Bench,
    books::{Acknowledged, Books, Followers},
    callers,
    catalog::CALLS,
    rig::{ACCOUNTS, USAGE},
    rows::{self, Floors},
};
use crate::{
    bench::{
        accounts,
        naive::Naive,
        rounds::{self, ROUNDS_MIN, Side},
        stores::{POSTGRES, Stores},
    },
    harness::backends::TestDatabase,
};

const NAME: &str = "4,096 callers in process";
/// What the rollups listen to.
const ROLLUP: &[&str] = &["usage.recorded"];
const CORRECTIONS: &[&str] = &["usage.corrected"];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let Bench { report, .. } = bench;
    let naive = RefCell::new(Naive::create(&bench.runtime, &bench.stores)?);
    let process = Process::start(&bench.stores)?;
    let books = Books::new(&bench.runtime, process.database.superuser_url(), Followers::None);
    books.execute(&format!(
        "INSERT INTO usage.metric (slug, kind, aggregation) VALUES ('{CALLS}', 'flow', 'sum'); CHECKPOINT"
    ))?;
    bench.runtime.block_on(async {
        let mut session = books.session().await?;
        accounts::create(&mut session, callers::NAME, ACCOUNTS).await?;
        anyhow::Ok(session.close().await?)
    })?;
    let [postgres, _] = bench.stores.meters()?;
    process.runtime.block_on(callers::call_once(&process.service))?;
    let (mut all_events, mut rounds, mut summed_after) = (1, 0, Vec::<Duration>::new());
    let all = rounds::interleaved(
        ROUNDS_MIN,
        [
            Side::new("pgbench, beside callers in process", || {
                naive.borrow_mut().pgbench()
            }),
            Side::new("COPY, beside callers in process", || {
                naive.borrow_mut().copy(&bench.runtime)
            }),
            Side::new(NAME, || {
                rounds += 1;
                let called = callers::round(&process.service, rounds, &postgres);
                let (round, events) = process.runtime.block_on(called)?;
                all_events += events;
                summed_after.push(books.settle()?);
                Ok(round)
            }),
        ],
    )?;
    let [pgbench, copy, called] = &all;
    let floors = Floors { pgbench, copy };
    floors.add(report)?;
    floors.add_case(report, called, true)?;
    for meter in [USAGE, POSTGRES] {
        rows::add_cpu(report, called, meter)?;
    }
    rows::add_latencies(report, called)?;
    rows::add_summed_after(report, NAME, &summed_after)?;
    let acknowledged = Acknowledged {
        events: all_events,
        units: all_events,
    };
    bench.amiss += books.amiss(&BTreeMap::from([(callers::NAME.to_owned(), acknowledged)]))?;
    process.stop();
    Ok(())
}

/// The services that run in this process.
struct Process {
    service: Service,
    running: Running,
    lifecycle: Lifecycle,
    runtime: Runtime,
    database: TestDatabase,
    _dir: TempDir,
}

impl Process {
    fn start(stores: &Stores) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("in-process")
            .enable_all()
            .build()?;
        let dir = tempfile::tempdir()?;
        let lifecycle = Lifecycle::new();
        let started = runtime.block_on(async {
            let postgres = stores.servers().postgres;
            let migrators = [
                (octroi_account::NAME, &octroi_account::MIGRATOR),
                (octroi_usage::NAME, &octroi_usage::MIGRATOR),
            ];
            let database = postgres.create_migrated(&migrators).await?;
            let loader = configured(dir.path(), &database)?;
            let telemetry = telemetry::init(&loader.section("telemetry")?, "bench")?;
            let context = context(&loader, dir.path())?;
            let account = octroi_account::component(&context).await?;
            let (usage, service) = octroi_usage::with_service(&context).await?;
            let components: Vec<Component> = vec![account, usage];
            let settings = Settings {
                grpc: loader.section("grpc")?,
                admin: loader.section("admin")?,
                migrate: false,
            };
            let running = run::start(components, &context, &settings, &telemetry, lifecycle.clone()).await?;
            anyhow::Ok((service, running, database))
        });
        let (service, running, database) = started?;
        Ok(Self {
            service,
            running,
            lifecycle,
            runtime,
            database,
            _dir: dir,
        })
    }

    fn stop(self) {
        self.lifecycle.soft.cancel();
        self.runtime.block_on(self.running.stopped());
    }
}

/// Two services on one database, which listen where nobody else does.
fn configured(dir: &Path, database: &TestDatabase) -> Result<Loader> {
    let path = dir.join("octroi.toml");
    let file = format!(
        "data_dir = {:?}
[grpc]
listen = \"127.0.0.1:0\"
[admin]
listen = \"127.0.0.1:0\"
[telemetry]
filter = \"warn\"
[account.database]
url = {:?}
[usage.database]
url = {:?}
",
        dir,
        database.url(octroi_account::NAME),
        database.url(octroi_usage::NAME)
    );
    std::fs::write(&path, file)?;
    auth::mint(&dir.join("tokens"))?;
    Ok(octroi_fleet::config::load(Some(&path))?)
}

/// What the two are built from: links within the process, and a bus whose only queues are those of the rollups.
fn context(loader: &Loader, dir: &Path) -> Result<Context> {
    let auth = octroi_fleet::config::auth(loader, dir)?;
    let links = Links::new(
        &[octroi_account::NAME, octroi_usage::NAME],
        &loader.section("links")?,
        auth.clone(),
    )?;
    let dead_letters = Arc::new(DeadLetterTables::default());
    let topology = Topology::new([
        ("usage.rollup", ROLLUP),
        ("usage.rollup_corrections", CORRECTIONS),
    ])?;
    Ok(Context {
        config: loader.clone(),
        sandbox: false,
        links,
        auth,
        bus: Bus::new(&bus::Config::default(), topology, dead_letters.clone())?,
        dead_letters,
    })
}
