//! Limits that change under load.

use anyhow::Result;
use rand::Rng as _;

use super::{super::run::Scene, replicas};

/// How often the limit changes.
const CHANGES: u32 = 6;

/// Below what is used, above it, and back, some times.
pub(super) async fn lowered_and_raised(scene: &mut Scene<'_>) -> Result<()> {
    for change in 0..CHANGES {
        let now = scene.limits.last().map_or(1, |limit| limit.amount);
        let amount = if change % 2 == 0 {
            now * scene.random.random_range(30..90) / 100
        } else {
            now + scene.random.random_range(500..3_000)
        };
        scene.set_limit(amount).await?;
        scene.pause(200..900).await;
    }
    Ok(())
}

/// The same, while a replica is killed.
pub(super) async fn lowered_beside_a_kill(scene: &mut Scene<'_>) -> Result<()> {
    let now = scene.limits.last().map_or(1, |limit| limit.amount);
    let lowered = now * scene.random.random_range(30..90) / 100;
    scene.set_limit(lowered).await?;
    replicas::killed(scene).await?;
    scene.set_limit(now + 1_000).await?;
    scene.pause(200..900).await;
    Ok(())
}
