//! Replicas of quota that die.

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;

use super::super::{
    run::Scene,
    site::{REPLICAS, replica},
};

/// How long a caller's lost answer is waited for.
const LOSS_MAX: Duration = Duration::from_secs(2);
const LOSS_POLL: Duration = Duration::from_millis(1);

/// Kills a replica and starts it again later.
async fn kill_for(scene: &mut Scene<'_>, number: usize, ms: std::ops::Range<u64>) -> Result<()> {
    scene.site.fleet.kill(&replica(number)).await?;
    scene.killed += 1;
    scene.pause(ms).await;
    scene.site.fleet.restart(&replica(number)).await
}

/// One replica is killed and comes back.
pub(super) async fn killed(scene: &mut Scene<'_>) -> Result<()> {
    let number = scene.random.random_range(1..=REPLICAS);
    kill_for(scene, number, 100..2_500).await?;
    scene.pause(200..1_000).await;
    Ok(())
}

/// Each replica is killed and comes back, one after the other.
pub(super) async fn killed_in_turn(scene: &mut Scene<'_>) -> Result<()> {
    for number in 1..=REPLICAS {
        kill_for(scene, number, 0..400).await?;
        scene.pause(0..300).await;
    }
    Ok(())
}

/// Two replicas are killed at once, the second while the first is away.
pub(super) async fn two_killed(scene: &mut Scene<'_>) -> Result<()> {
    let first = scene.random.random_range(1..=REPLICAS);
    let second = 1 + (first + scene.random.random_range(0..REPLICAS - 1)) % REPLICAS;
    scene.site.fleet.kill(&replica(first)).await?;
    scene.pause(0..500).await;
    scene.killed += 1;
    kill_for(scene, second, 200..1_500).await?;
    scene.site.fleet.restart(&replica(first)).await
}

/// A replica loses the answer to a caller and is killed at once: decided, charged, and nobody was told.
pub(super) async fn killed_before_the_answer(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..2 {
        let number = scene.random.random_range(1..=REPLICAS);
        let replies = scene.random.random_range(20..200);
        let door = &scene.site.doors.replicas[number - 1];
        let before = door.lost();
        door.lose_reply_after(replies);
        let since = std::time::Instant::now();
        while door.lost() == before && since.elapsed() < LOSS_MAX {
            tokio::time::sleep(LOSS_POLL).await;
        }
        kill_for(scene, number, 0..1_000).await?;
        scene.pause(0..500).await;
    }
    Ok(())
}
