//! PostgreSQL that ends and comes back, and a ledger that takes nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};
use octroi_fleet::postgres::PrivatePostgres;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::{
    super::run::{Place, Scene},
    pause,
};
use crate::{chaos::site::is_back, harness::fleet::eventually};

/// How often the ledger refuses.
const REFUSALS: usize = 3;

/// PostgreSQL is killed, twice, and comes back with what it acknowledged.
pub(super) async fn killed(scene: &mut Scene<'_>) -> Result<()> {
    for percent in [20, 60] {
        scene.load.reaches(percent).await;
        pause(&mut scene.random, 0..300).await;
        kill(&scene.site.postgres).await?;
    }
    scene.load.reaches(100).await;
    Ok(())
}

pub(super) async fn kill(postgres: &PrivatePostgres) -> Result<()> {
    let process = postgres.pid().context("PostgreSQL does not run")?;
    send(Pid::from_raw(i32::try_from(process)?), Signal::SIGKILL)?;
    is_back(postgres, process).await
}

/// The ledger takes no event for a while, after their keys were written: neither may stay without the other.
pub(super) async fn ledger_refuses(scene: &mut Scene<'_>) -> Result<()> {
    for turn in 1..=REFUSALS {
        scene.load.reaches(turn * 25).await;
        let lasts = Duration::from_millis(rand::Rng::random_range(&mut scene.random, 200..1_000));
        refuse(&scene.place, lasts).await?;
    }
    scene.load.reaches(100).await;
    Ok(())
}

pub(super) async fn refuse(place: &Place, lasts: Duration) -> Result<()> {
    execute(
        place,
        "CREATE OR REPLACE FUNCTION usage.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON usage.ledger FOR EACH ROW EXECUTE FUNCTION usage.refuse()",
    )
    .await?;
    tokio::time::sleep(lasts).await;
    execute(place, "DROP TRIGGER IF EXISTS refuse ON usage.ledger").await
}

/// What waits for commits that run must not hold up those that come after, so it is tried for a moment at a time.
async fn execute(place: &Place, statements: &'static str) -> Result<()> {
    eventually("the ledger is changed", async || {
        let mut session = place.database().await?;
        let limited = format!("BEGIN; SET LOCAL lock_timeout = '200ms'; {statements}; COMMIT");
        session.execute(AssertSqlSafe(limited)).await?;
        Ok(session.close().await?)
    })
    .await
}
