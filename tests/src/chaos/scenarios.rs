//! What breaks, and how it is healed. All that a fault chooses, it chooses by its seed.

mod clock;
mod databases;
mod limits;
mod redis;
mod replicas;
mod replies;

use std::ops::Range;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use super::{
    load::Mix,
    run::Scene,
    site::{BUFFERED, DURABLE},
};

type Fault = for<'a, 's> fn(&'a mut Scene<'s>) -> LocalBoxFuture<'a, Result<()>>;

/// One way to break things.
#[derive(Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is asked for meanwhile.
    pub mix: Mix,
    /// Of what.
    pub metric: &'static str,
    /// The limit of an hour, which callers reach in the middle of the run.
    pub limit: Range<u64>,
    /// How long holds live, in seconds.
    pub hold_s: u64,
    /// What happens. When it ends, all processes run, and the network is healed by whoever called it.
    pub fault: Fault,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Consumes, and some holds.
const USUAL: Mix = Mix {
    reserve: 15,
    record: 0,
    track: 0,
    expire: 10,
    commit_late: 0,
};
/// Everything that a metric can be used by.
const MIXED: Mix = Mix {
    reserve: 10,
    record: 5,
    track: 5,
    ..USUAL
};
/// Holds that end in every way.
const HOLDS: Mix = Mix {
    reserve: 60,
    expire: 20,
    commit_late: 15,
    ..USUAL
};
/// What a buffered metric knows.
const CONSUMED: Mix = Mix { reserve: 0, ..USUAL };

/// Those that `make test` runs.
pub const SHORT: [&str; 3] = ["replica_killed", "replies_of_usage_lost", "redis_killed"];

fn scenario(name: &'static str, fault: Fault) -> Scenario {
    Scenario {
        name,
        mix: USUAL,
        metric: DURABLE,
        limit: 3_000..9_000,
        hold_s: 5,
        fault,
    }
}

fn buffered(name: &'static str, fault: Fault) -> Scenario {
    Scenario {
        mix: CONSUMED,
        metric: BUFFERED,
        ..scenario(name, fault)
    }
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let with = |mix, scenario: Scenario| Scenario { mix, ..scenario };
    let mut all = vec![
        scenario("nothing", |scene| Box::pin(nothing(scene))),
        scenario("replica_killed", |scene| Box::pin(replicas::killed(scene))),
        scenario("replicas_killed_in_turn", |scene| {
            Box::pin(replicas::killed_in_turn(scene))
        }),
        scenario("two_replicas_killed", |scene| {
            Box::pin(replicas::two_killed(scene))
        }),
        scenario("killed_before_the_answer", |scene| {
            Box::pin(replicas::killed_before_the_answer(scene))
        }),
        scenario("redis_killed", |scene| Box::pin(redis::killed(scene))),
        scenario("redis_flushed", |scene| Box::pin(redis::flushed(scene))),
        scenario("redis_evicts", |scene| Box::pin(redis::evicts(scene))),
        scenario("redis_stopped", |scene| Box::pin(redis::stopped(scene))),
        scenario("redis_rolled_back", |scene| Box::pin(redis::rolled_back(scene))),
        scenario("replies_of_usage_lost", |scene| {
            Box::pin(replies::of_usage(scene))
        }),
        scenario("replies_of_redis_lost", |scene| {
            Box::pin(replies::of_redis(scene))
        }),
        scenario("replies_of_quotas_database_lost", |scene| {
            Box::pin(replies::of_quota_database(scene))
        }),
        scenario("replies_of_usages_database_lost", |scene| {
            Box::pin(replies::of_usage_database(scene))
        }),
        scenario("replies_to_callers_lost", |scene| {
            Box::pin(replies::to_callers(scene))
        }),
        scenario("late_and_silent", |scene| {
            Box::pin(replies::late_and_silent(scene))
        }),
        scenario("postgres_killed", |scene| {
            Box::pin(databases::postgres_killed(scene))
        }),
        scenario("sessions_ended", |scene| {
            Box::pin(databases::sessions_ended(scene))
        }),
        scenario("usage_killed", |scene| Box::pin(databases::usage_killed(scene))),
        scenario("bus_away", |scene| Box::pin(databases::bus_away(scene))),
        scenario("limit_lowered_and_raised", |scene| {
            Box::pin(limits::lowered_and_raised(scene))
        }),
        scenario("limit_lowered_beside_a_kill", |scene| {
            Box::pin(limits::lowered_beside_a_kill(scene))
        }),
        scenario("hours_end", |scene| Box::pin(clock::hours_end(scene))),
    ];
    all.extend([
        with(
            MIXED,
            scenario("mixed_use", |scene| Box::pin(replicas::killed(scene))),
        ),
        Scenario {
            mix: HOLDS,
            hold_s: 1,
            ..scenario("holds", |scene| Box::pin(replicas::killed_in_turn(scene)))
        },
        buffered("buffered", |scene| Box::pin(nothing(scene))),
        buffered("buffered_replica_killed", |scene| {
            Box::pin(replicas::killed(scene))
        }),
    ]);
    all
}

async fn nothing(scene: &mut Scene<'_>) -> Result<()> {
    scene.pause(3_000..3_001).await;
    Ok(())
}
