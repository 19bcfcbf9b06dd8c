//! What a group of cases runs on: a fleet on stores of the bench's own, the floor and the route beside it, and the
//! log of what was answered.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use octroi_proto::quota::v1::CheckMode;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Runtime;

use super::catalog;
pub(super) use crate::bench::accounts::names;
use crate::{
    bench::{
        accounts,
        cpu::Meter,
        floor::{Floor, Shape},
        load::{self, Case, Round},
        page,
        pin::{self, Cores},
        quota::Checks,
        route::Route,
        stores::Stores,
        traffic::Traffic,
    },
    harness::fleet::{APPLICATION, Builder, Fleet, Topology},
};

/// The meter of whoever decides: the floor, the route, or the replica of quota.
pub(super) const SERVER: &str = "server";
/// The meter of the ledger's process.
pub(super) const LEDGER: &str = "usage";
/// Limits of each metric of the bench: an hour, a day, a month.
pub(super) const LIMITS: usize = 3;

/// How long accounts may take to become known.
const WARM_MAX: Duration = Duration::from_secs(120);

/// What does not decide: it stays away from the core that is measured.
const BESIDE: [&str; 4] = ["account", "billing", "notification", "gateway"];

/// Where the ledger's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ledger {
    /// With the stores: decisions do not wait for it.
    Beside,
    /// With quota: both are what is measured.
    Measured,
}

/// A fleet, what it is compared with, and the log of what was allowed.
pub(super) struct Rig<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) cores: &'a Cores,
    pub(super) fleet: Fleet,
    pub(super) quota_pid: u32,
    pub(super) admin: SocketAddr,
    floor: Floor,
    route: Route,
    token: String,
    usage_pid: u32,
    stores: [Meter; 2],
    /// Units that were allowed, by accounts and metric.
    allowed: RefCell<BTreeMap<(String, &'static str), u64>>,
    /// Requests of which nobody knows what became.
    pub(super) unanswered: Cell<u64>,
    runs: Cell<u64>,
}

impl<'a> Rig<'a> {
    /// Starts a fleet with what `builder` adds.
    pub(super) fn start(
        runtime: &'a Runtime,
        cores: &'a Cores,
        stores: &Stores,
        ledger: Ledger,
        builder: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self> {
        let fleet = Fleet::builder(Topology::Split)
            .servers(stores.servers())
            .catalog(catalog::document()?)
            .set("quota.database.connections_max", "16")
            .set("usage.database.connections_max", "16")
            .set("account.database.connections_max", "16");
        let mut fleet = runtime.block_on(builder(fleet).start())?;
        // It is measured, not told a story: what waits at the end is thrown away with its database.
        fleet.expect_leftovers();
        for service in BESIDE {
            pin::process(fleet.pid(service)?, &[cores.generator])?;
        }
        let usage_pid = fleet.pid("usage")?;
        if ledger == Ledger::Beside {
            pin::process(usage_pid, &[cores.generator])?;
        }
        let program = std::env::current_exe()?;
        Ok(Self {
            runtime,
            cores,
            quota_pid: fleet.pid("quota")?,
            admin: fleet.admin("quota")?,
            token: fleet.token(APPLICATION)?,
            fleet,
            floor: Floor::start(Shape::PerCore, &cores.server)?,
            route: Route::start(&program, &cores.server)?,
            usage_pid,
            stores: stores.meters()?,
            allowed: RefCell::default(),
            unanswered: Cell::new(0),
            runs: Cell::new(1),
        })
    }

    /// The floor, asked as quota is.
    pub(super) fn floor_case(&self) -> Case {
        Case {
            cores: Some(self.cores.clone()),
            meters: vec![Meter::process(SERVER, self.floor.pid())],
            warm_up: Duration::from_millis(500),
            ..Case::new(self.floor.address)
        }
    }

    /// The route, asked as quota is.
    pub(super) fn route_case(&self) -> Case {
        Case {
            address: self.route.address,
            token: Some(self.route.token.clone()),
            meters: vec![Meter::process(SERVER, self.route.pid())],
            ..self.floor_case()
        }
    }

    /// Quota, with the meters of all that takes part.
    pub(super) fn quota_case(&self) -> Case {
        let [postgres, redis] = self.stores.clone();
        Case {
            address: self.fleet.address("quota"),
            token: Some(self.token.clone()),
            meters: vec![
                Meter::process(SERVER, self.quota_pid),
                Meter::process(LEDGER, self.usage_pid),
                postgres,
                redis,
            ],
            ..self.floor_case()
        }
    }

    /// A number that no run of this fleet had before.
    pub(super) fn next_run(&self) -> u64 {
        self.runs.replace(self.runs.get() + 1)
    }

    /// Checks of `count` accounts, in turn.
    pub(super) fn checks(&self, accounts: &str, count: u32, metric: &str, mode: CheckMode) -> Checks {
        Checks::new(self.next_run(), metric, &names(accounts, count), mode, LIMITS)
    }

    /// Runs a case that takes, and writes down what was allowed.
    pub(super) fn take<T: Traffic + Send>(
        &self,
        accounts: &str,
        metric: &'static str,
        case: &Case,
        traffic: &mut T,
    ) -> Result<Round> {
        let round = load::run(case, traffic)?;
        self.note(accounts, metric, round.total.allowed);
        self.unanswered.set(self.unanswered.get() + round.total.failed());
        Ok(round)
    }

    /// Writes down what was allowed.
    pub(super) fn note(&self, accounts: &str, metric: &'static str, allowed: u64) {
        *self
            .allowed
            .borrow_mut()
            .entry((accounts.to_owned(), metric))
            .or_default() += allowed;
    }

    /// What was allowed to these accounts so far.
    pub(super) fn allowed(&self, accounts: &str, metric: &'static str) -> u64 {
        let allowed = self.allowed.borrow();
        allowed
            .get(&(accounts.to_owned(), metric))
            .copied()
            .unwrap_or_default()
    }

    /// Makes accounts that exist and have done nothing yet.
    pub(super) fn create_accounts(&self, accounts: &str, count: u32) -> Result<()> {
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            accounts::create(&mut session, accounts, count).await?;
            Ok(session.close().await?)
        })
    }

    /// What the ledger has of these accounts: the sum, and what any of them has beyond `limit`.
    pub(super) fn ledger(&self, accounts: &str, metric: &str, limit: u64) -> Result<(u64, u64)> {
        const SUMS: &str =
            "SELECT coalesce(sum(amount), 0)::bigint, coalesce(sum(greatest(amount - $3, 0)), 0)::bigint
             FROM (SELECT sum(amount) AS amount FROM usage.ledger
                   WHERE metric = $2 AND account_id LIKE $1 || '-%' GROUP BY account_id) AS sums";
        self.runtime.block_on(async {
            let mut session = self.session().await?;
            let sums: (i64, i64) = sqlx::query_as(SUMS)
                .bind(accounts)
                .bind(metric)
                .bind(i64::try_from(limit)?)
                .fetch_one(&mut session)
                .await?;
            session.close().await?;
            Ok((u64::try_from(sums.0)?, u64::try_from(sums.1)?))
        })
    }

    async fn session(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(self.fleet.database().superuser_url()).await?)
    }

    /// A figure of the replica's metrics page; 0 where it has none yet.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        self.runtime.block_on(page::metric(self.admin, name))
    }

    /// Has each of the accounts decided, so that the replica knows it. Not too many at once: the first decision of an
    /// account takes its time, and is measured elsewhere.
    pub(super) fn warm<T: Traffic + Send>(
        &self,
        accounts: (&str, &'static str),
        count: u32,
        traffic: &mut T,
    ) -> Result<()> {
        let case = Case {
            connections: 4,
            in_flight: 8,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
            ..self.quota_case()
        };
        let (since, mut decided) = (Instant::now(), 0);
        while decided < u64::from(count) + 1_000 {
            decided += self.take(accounts.0, accounts.1, &case, traffic)?.total.decided();
            ensure!(
                since.elapsed() < WARM_MAX,
                "{decided} decisions in {} s are not enough to warm {count} accounts",
                WARM_MAX.as_secs()
            );
        }
        Ok(())
    }
}
