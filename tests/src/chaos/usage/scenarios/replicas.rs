//! Replicas of usage that die, and answers that nobody gets.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::{Rng as _, rngs::StdRng};

use super::{
    super::{load::Load, run::Scene},
    pause,
};
use crate::harness::fleet::Fleet;

/// How often one of the replicas is killed.
const KILLED_EVERY: Duration = Duration::from_secs(2);
/// How often a process is started that ends because its database is away.
const STARTS: u32 = 10;
const STARTED_AGAIN_AFTER: Duration = Duration::from_millis(500);
const NAMES: [&str; 2] = ["usage", "usage-2"];

/// One replica after the other is killed and comes back, until every event was answered.
pub(super) async fn killed(scene: &mut Scene<'_>) -> Result<()> {
    let random = scene.fork();
    kill_in_turn(&mut scene.site.fleet, &scene.load, random).await
}

pub(super) async fn kill_in_turn(fleet: &mut Fleet, load: &Load, mut random: StdRng) -> Result<()> {
    let mut turn = random.random_range(0..NAMES.len());
    while !load.is_done() {
        let since = Instant::now();
        let name = NAMES.get(turn % NAMES.len()).copied().unwrap_or("usage");
        fleet.kill(name).await?;
        pause(&mut random, 0..400).await;
        start(fleet, name).await?;
        tokio::time::sleep(KILLED_EVERY.saturating_sub(since.elapsed())).await;
        turn += 1;
    }
    Ok(())
}

/// Starts it as often as it takes, as whoever runs processes does.
async fn start(fleet: &mut Fleet, name: &str) -> Result<()> {
    for _ in 1..STARTS {
        if fleet.restart(name).await.is_ok() {
            return Ok(());
        }
        // It has ended already, or it ends now.
        let _ = fleet.kill(name).await;
        tokio::time::sleep(STARTED_AGAIN_AFTER).await;
    }
    fleet.restart(name).await
}

/// Replies of both replicas are lost, one after the other, with their connections.
pub(super) async fn replies_lost(scene: &mut Scene<'_>) -> Result<()> {
    while !scene.load.is_done() {
        let doors = &scene.site.doors;
        for door in std::iter::once(&doors.usage).chain(&doors.further_usage) {
            let replies = scene.random.random_range(0..40);
            door.lose_reply_after(replies);
        }
        pause(&mut scene.random, 50..400).await;
    }
    Ok(())
}
