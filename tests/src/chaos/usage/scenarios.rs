//! What breaks while events are recorded, and how it is healed. All that a fault chooses, it chooses by its seed.

mod bus;
mod databases;
mod replicas;

use std::{ops::Range, time::Duration};

use anyhow::Result;
use futures::future::LocalBoxFuture;
use rand::{Rng as _, rngs::StdRng};

use super::run::Scene;
use crate::chaos::site::Site;

type Fault = for<'a, 's> fn(&'a mut Scene<'s>) -> LocalBoxFuture<'a, Result<()>>;

/// One way to break things.
#[derive(Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// How many events are recorded meanwhile.
    pub events: usize,
    /// Over how long they are spread, where nothing holds them up.
    pub lasts: Duration,
    /// Of the calls, in percent: cancelled by whoever made them.
    pub cancelled: u32,
    /// What happens. When it ends, all processes run, and the network is healed by whoever called it.
    pub fault: Fault,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Those that `make test` runs, with fewer events.
pub const SHORT: [&str; 3] = ["usage_killed", "ledger_refuses", "poisoned"];
/// How many events they have there.
pub const SHORT_EVENTS: usize = 4_000;

fn scenario(name: &'static str, fault: Fault) -> Scenario {
    Scenario {
        name,
        events: 20_000,
        lasts: Duration::from_secs(8),
        cancelled: 2,
        fault,
    }
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            cancelled: 0,
            ..scenario("nothing", |scene| Box::pin(nothing(scene)))
        },
        scenario("usage_killed", |scene| Box::pin(replicas::killed(scene))),
        Scenario {
            cancelled: 40,
            ..scenario("calls_cancelled", |scene| Box::pin(nothing(scene)))
        },
        scenario("replies_lost", |scene| Box::pin(replicas::replies_lost(scene))),
        scenario("postgres_killed", |scene| Box::pin(databases::killed(scene))),
        scenario("ledger_refuses", |scene| {
            Box::pin(databases::ledger_refuses(scene))
        }),
        scenario("bus_connections_closed", |scene| {
            Box::pin(bus::connections_closed(scene))
        }),
        scenario("bus_killed", |scene| Box::pin(bus::killed(scene))),
        scenario("queues_unbound", |scene| Box::pin(bus::all_unbound(scene))),
        scenario("queue_unbound", |scene| Box::pin(bus::one_unbound(scene))),
        scenario("feed_deleted", |scene| Box::pin(bus::feed_deleted(scene))),
        scenario("poisoned", |scene| Box::pin(bus::poisoned(scene))),
        Scenario {
            events: 200_000,
            lasts: Duration::from_secs(30),
            cancelled: 5,
            ..scenario("everything", |scene| Box::pin(everything(scene)))
        },
    ]
}

async fn nothing(scene: &mut Scene<'_>) -> Result<()> {
    scene.load.reaches(100).await;
    Ok(())
}

/// All of it, until every event was answered: the processes, the database and the bus, each on its own.
async fn everything(scene: &mut Scene<'_>) -> Result<()> {
    let (kills, mut of_bus) = (scene.fork(), scene.fork());
    let Scene {
        site, place, load, ..
    } = scene;
    let Site {
        fleet,
        postgres,
        rabbitmq,
        doors,
        ..
    } = &mut **site;
    let of_the_database = async {
        load.reaches(20).await;
        databases::kill(postgres).await?;
        load.reaches(50).await;
        databases::refuse(place, Duration::from_millis(700)).await
    };
    // A message that nobody can handle is on its way to the dead letters while the broker dies.
    let of_the_bus = async {
        load.reaches(10).await;
        bus::close_connections(rabbitmq).await?;
        load.reaches(35).await;
        bus::poison(place, load, bus::Poison::Unreadable, &mut of_bus).await?;
        bus::kill(rabbitmq, &mut of_bus).await?;
        bus::poison(place, load, bus::Poison::Foreign, &mut of_bus).await?;
        load.reaches(65).await;
        bus::unbind(place, &doors.bus, &bus::QUEUES, Duration::from_secs(1)).await?;
        bus::poison(place, load, bus::Poison::Impossible, &mut of_bus).await
    };
    tokio::try_join!(
        replicas::kill_in_turn(fleet, load, kills),
        of_the_database,
        of_the_bus,
    )?;
    Ok(())
}

/// Waits for a time of the range, in milliseconds.
async fn pause(random: &mut StdRng, ms: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}
