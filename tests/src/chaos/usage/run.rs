//! One run: events, a fault, and the judgement.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use octroi_proto::account::v1::UpsertAccountRequest;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;

use super::{
    books::{Reader, forget_dead_letters},
    load::{Load, Target},
    oracle::{Found, Log},
    plan::{self, Order},
    report::Outcome,
    rules::{IN_TIME, judge},
    scenarios::Scenario,
    site::UsageSite,
};
use crate::{
    chaos::{rules::SETTLES_WITHIN, site::Site},
    harness::fleet::{Clients, eventually, now, roomy_hour},
};

/// How many accounts of its own a run has, beside those with a key.
const OWN_ACCOUNTS: usize = 2;
/// How often everything is looked at while it settles.
const POLL: Duration = Duration::from_millis(250);

/// How a site is looked at, past all that may be broken.
#[derive(Clone, Debug)]
pub struct Place {
    /// A superuser's address of the database.
    pub database: String,
    /// The broker.
    pub broker: String,
    /// What its names begin with.
    pub namespace: String,
    /// Clients of whoever runs the fleet.
    pub clients: Clients,
}

impl Place {
    fn new(site: &Site) -> Result<Self> {
        Ok(Self {
            database: site.fleet.database().superuser_url().to_owned(),
            broker: site.rabbitmq.url(),
            namespace: site.fleet.bus().context("no bus")?.namespace.clone(),
            clients: site.operator().clone(),
        })
    }

    /// A session that sees every schema.
    ///
    /// # Errors
    /// When there is none.
    pub async fn database(&self) -> Result<PgConnection> {
        eventually("PostgreSQL answers", async || {
            Ok(PgConnection::connect(&self.database).await?)
        })
        .await
    }
}

/// What a fault may break.
#[derive(Debug)]
pub struct Scene<'s> {
    /// Where.
    pub site: &'s mut Site,
    /// How it is looked at.
    pub place: Place,
    /// What the seed says.
    pub random: StdRng,
    /// The senders.
    pub load: Arc<Load>,
}

impl Scene<'_> {
    /// Another part of what the seed says, for what happens beside something else.
    pub fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.random.random())
    }
}

/// Runs a scenario with so many events, where they are given, instead of its own.
///
/// # Errors
/// When it does not come to its end: events are not answered although everything was healed, or something cannot be
/// started.
pub async fn run(
    usage: &mut UsageSite,
    scenario: &Scenario,
    seed: u64,
    events: Option<usize>,
) -> Result<Outcome> {
    roomy_hour().await;
    let mut random = StdRng::seed_from_u64(seed ^ crate::chaos::run::number_of(scenario.name));
    let place = Place::new(&usage.site)?;
    forget_dead_letters(&place).await?;
    let source = format!("{}-{seed}-{:08x}", scenario.name, rand::random::<u32>());
    let accounts = accounts(usage, &source).await?;
    let plan = plan::plan(Order {
        seed: random.random(),
        events: events.unwrap_or(scenario.events),
        lasts: scenario.lasts,
        accounts: accounts.len(),
        with_key: usage.programs.len(),
        now_ms: now().as_millisecond(),
    });
    let target = Target {
        recorders: usage.recorders.clone(),
        programs: usage.programs.clone(),
        source: source.clone(),
    };
    let load = Load::new(
        target,
        accounts.clone(),
        plan,
        random.random(),
        scenario.cancelled,
    );
    let mut scene = Scene {
        site: &mut usage.site,
        place: place.clone(),
        random,
        load: Arc::clone(&load),
    };
    let begun = Instant::now();
    let senders = load.begin();
    let broke = (scenario.fault)(&mut scene).await.context("the fault");
    scene.site.doors.heal();
    let healed = Instant::now();
    let answered = tokio::time::timeout(SETTLES_WITHIN, all_end(senders)).await;
    broke?;
    answered.with_context(|| format!("events are not answered after the fault: {:?}", load.failures()))??;
    let (lasted, log) = (begun.elapsed(), load.log());
    let reader = Reader {
        place,
        accounts,
        source,
    };
    let found = end(&reader, &log, healed).await?;
    let (failed, failures) = load.failures();
    Ok(Outcome {
        scenario: scenario.name,
        seed,
        lasted,
        failed,
        failures,
        verdicts: judge(&log, &found),
        log,
        found,
    })
}

async fn all_end(senders: Vec<JoinHandle<()>>) -> Result<()> {
    for sender in senders {
        sender.await?;
    }
    Ok(())
}

/// The accounts that events are about: those with a key, and some that nobody has recorded anything for.
async fn accounts(usage: &UsageSite, prefix: &str) -> Result<Vec<String>> {
    let mut accounts: Vec<String> = (usage.programs.iter())
        .map(|program| program.account.clone())
        .collect();
    for number in 0..OWN_ACCOUNTS {
        let account = format!("{prefix}-{number}");
        let request = UpsertAccountRequest {
            account_id: account.clone(),
            ..UpsertAccountRequest::default()
        };
        let mut service = usage.site.operator().account.clone();
        service.upsert_account(request).await?;
        accounts.push(account);
    }
    Ok(accounts)
}

/// Waits until all is as it should, and answers what was found.
async fn end(reader: &Reader, log: &Log, healed: Instant) -> Result<Found> {
    let mut waited_for = None;
    loop {
        let backlog = reader.backlog().await?;
        let is_over = healed.elapsed() > SETTLES_WITHIN;
        if is_over || backlog.is_empty() {
            let mut found = reader.read().await?;
            found.settled = Some(healed.elapsed());
            let waits_for = unsettled(log, &found);
            if is_over && waits_for.is_some() {
                found.settled = None;
            }
            if is_over || waits_for.is_none() {
                found.waited_for = waits_for.or(waited_for);
                return Ok(found);
            }
            waited_for = waits_for;
        } else {
            waited_for = Some(format!("{backlog:?}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What may take a while and is not done.
fn unsettled(log: &Log, found: &Found) -> Option<String> {
    let verdicts = judge(log, found).into_iter();
    let mut in_time = verdicts.filter(|verdict| IN_TIME.contains(&verdict.invariant));
    in_time.find_map(|verdict| {
        let violation = verdict.violations.first()?;
        Some(format!("{}: {violation}", verdict.invariant))
    })
}
