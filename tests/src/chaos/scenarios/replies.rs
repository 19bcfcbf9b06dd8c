//! What was asked is done, and whoever asked is not told; or is told late, or never.

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;

use super::super::{
    proxy::{Mode, Proxy},
    run::Scene,
    site::Doors,
};

/// How many replies are lost, one after the other.
const LOSSES: u32 = 12;

type Door = fn(&Doors) -> &Proxy;

async fn lost(scene: &mut Scene<'_>, door: Door) -> Result<()> {
    for _ in 0..LOSSES {
        let replies = scene.random.random_range(0..60);
        door(&scene.site.doors).lose_reply_after(replies);
        scene.pause(100..500).await;
    }
    let connections = scene.random.random_range(0..3);
    let door = door(&scene.site.doors);
    door.cut_connection_after(connections);
    door.cut();
    scene.pause(200..600).await;
    Ok(())
}

/// Between quota and usage.
pub(super) async fn of_usage(scene: &mut Scene<'_>) -> Result<()> {
    lost(scene, |doors| &doors.usage).await
}

/// Between quota and Redis.
pub(super) async fn of_redis(scene: &mut Scene<'_>) -> Result<()> {
    lost(scene, |doors| &doors.redis).await
}

/// Between quota and its database.
pub(super) async fn of_quota_database(scene: &mut Scene<'_>) -> Result<()> {
    lost(scene, |doors| &doors.quota_database).await
}

/// Between usage and its database.
pub(super) async fn of_usage_database(scene: &mut Scene<'_>) -> Result<()> {
    lost(scene, |doors| &doors.usage_database).await
}

/// Between callers and the replicas.
pub(super) async fn to_callers(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..2 * LOSSES {
        let all = scene.site.doors.replicas.len();
        let number = scene.random.random_range(0..all);
        let replies = scene.random.random_range(0..60);
        scene.site.doors.replicas[number].lose_reply_after(replies);
        scene.pause(50..250).await;
    }
    Ok(())
}

/// One hop after the other is slow, and then a black hole.
pub(super) async fn late_and_silent(scene: &mut Scene<'_>) -> Result<()> {
    let doors: [Door; 5] = [
        |doors| &doors.usage,
        |doors| &doors.redis,
        |doors| &doors.quota_database,
        |doors| &doors.usage_database,
        |doors| &doors.bus,
    ];
    for door in doors {
        let late = Duration::from_millis(scene.random.random_range(5..60));
        door(&scene.site.doors).set(Mode::Late(late));
        scene.pause(200..700).await;
        door(&scene.site.doors).set(Mode::Silent);
        scene.pause(200..1_000).await;
        door(&scene.site.doors).heal();
        scene.pause(100..300).await;
    }
    Ok(())
}
