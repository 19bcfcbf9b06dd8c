//! What a group of cases over gRPC runs on: a fleet on stores of the bench's own, and what callers were told.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use tokio::runtime::Runtime;

use super::{
    books::{Acknowledged, Books, Followers},
    catalog,
};
use crate::{
    bench::{
        accounts,
        cpu::Meter,
        load::{self, Case, Round},
        page,
        pin::Cores,
        stores::Stores,
        traffic::Traffic,
        usage::Events,
    },
    harness::fleet::{APPLICATION, Fleet, Topology},
};

/// The meter of usage.
pub(super) const USAGE: &str = "usage";
/// The meter of quota, whose windows follow the ledger.
pub(super) const QUOTA: &str = "quota";

/// Accounts of a case: so many that their rows lie apart, and few enough that a commit has several events of one.
pub(super) const ACCOUNTS: u32 = 1_000;

/// A fleet, and the log of what was acknowledged.
pub(super) struct Rig<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) fleet: Fleet,
    pub(super) books: Books<'a>,
    cores: &'a Cores,
    token: String,
    usage_pid: u32,
    quota_pid: u32,
    admin: SocketAddr,
    stores: Vec<Meter>,
    acknowledged: RefCell<BTreeMap<String, Acknowledged>>,
    /// How long the rollups needed after each round, by accounts.
    summed_after: RefCell<BTreeMap<String, Vec<Duration>>>,
    runs: Cell<u64>,
}

impl<'a> Rig<'a> {
    /// Starts a fleet on all cores.
    pub(super) fn start(runtime: &'a Runtime, cores: &'a Cores, stores: &Stores) -> Result<Self> {
        let builder = Fleet::builder(Topology::Split)
            .servers(stores.servers())
            .catalog(catalog::document()?)
            .set("quota.database.connections_max", "16")
            .set("usage.database.connections_max", "16");
        let mut fleet = runtime.block_on(builder.start())?;
        // It is measured, not told a story: what waits at the end is thrown away with its database.
        fleet.expect_leftovers();
        let [postgres, _] = stores.meters()?;
        let rig = Self {
            runtime,
            books: Books::new(runtime, fleet.database().superuser_url(), Followers::Quota),
            cores,
            token: fleet.token(APPLICATION)?,
            usage_pid: fleet.pid("usage")?,
            quota_pid: fleet.pid("quota")?,
            admin: fleet.admin("usage")?,
            fleet,
            stores: vec![postgres, stores.broker()],
            acknowledged: RefCell::default(),
            summed_after: RefCell::default(),
            runs: Cell::new(1),
        };
        rig.warm()?;
        Ok(rig)
    }

    /// Has one caller record for a moment, after which usage knows the catalog and the month: it is those who call again and
    /// again that are measured, not that all of them find a process that has just started.
    fn warm(&self) -> Result<()> {
        const WARMED: &str = "warmed";
        let case = Case {
            connections: 1,
            in_flight: 1,
            measured: Duration::from_millis(500),
            ..self.case()
        };
        let mut events = self.events(WARMED, 1)?;
        self.record(WARMED, &case, &mut events).map(drop)
    }

    /// Usage, asked by a caller with a token, with the meters of all that takes part.
    pub(super) fn case(&self) -> Case {
        let mut meters = vec![
            Meter::process(USAGE, self.usage_pid),
            Meter::process(QUOTA, self.quota_pid),
        ];
        meters.extend(self.stores.iter().cloned());
        Case {
            token: Some(self.token.clone()),
            cores: Some(self.cores.clone()),
            meters,
            warm_up: Duration::from_millis(500),
            ..Case::new(self.fleet.address("usage"))
        }
    }

    /// The process of usage.
    pub(super) fn usage_pid(&self) -> u32 {
        self.usage_pid
    }

    /// A number that no run of this fleet had before.
    pub(super) fn next_run(&self) -> u64 {
        self.runs.replace(self.runs.get() + 1)
    }

    /// Makes accounts, and events of theirs in turn.
    pub(super) fn events(&self, accounts: &str, count: u32) -> Result<Events> {
        self.create_accounts(accounts, count)?;
        let names = accounts::names(accounts, count);
        Ok(Events::new(self.next_run(), catalog::CALLS, &names))
    }

    /// Makes accounts that exist and have done nothing yet.
    pub(super) fn create_accounts(&self, accounts: &str, count: u32) -> Result<()> {
        self.runtime.block_on(async {
            let mut session = self.books.session().await?;
            accounts::create(&mut session, accounts, count).await?;
            Ok(session.close().await?)
        })
    }

    /// Runs a case that records, writes down what was acknowledged, and waits until all that follows from it is done, so
    /// that whoever has the next turn does not pay for it.
    pub(super) fn record<T: Traffic + Send>(
        &self,
        accounts: &str,
        case: &Case,
        traffic: &mut T,
    ) -> Result<Round> {
        let round = load::run(case, traffic)?;
        let round = round.good().with_context(|| self.fleet.log())?;
        self.note(accounts, round.total.allowed, round.total.allowed);
        let summed_after = self.books.settle()?;
        let mut all = self.summed_after.borrow_mut();
        all.entry(accounts.to_owned()).or_default().push(summed_after);
        Ok(round)
    }

    /// Writes down what was acknowledged.
    pub(super) fn note(&self, accounts: &str, events: u64, units: u64) {
        let mut all = self.acknowledged.borrow_mut();
        let of_accounts = all.entry(accounts.to_owned()).or_default();
        of_accounts.events += events;
        of_accounts.units += units;
    }

    /// How long the rollups needed after each round of these accounts.
    pub(super) fn summed_after(&self, accounts: &str) -> Vec<Duration> {
        let all = self.summed_after.borrow();
        all.get(accounts).cloned().unwrap_or_default()
    }

    /// How many events are amiss, once all has settled.
    pub(super) fn amiss(&self) -> Result<u64> {
        self.books.settle()?;
        self.books.amiss(&self.acknowledged.borrow())
    }

    /// A figure of usage's metrics page; 0 where it has none yet.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        self.runtime.block_on(page::metric(self.admin, name))
    }
}
