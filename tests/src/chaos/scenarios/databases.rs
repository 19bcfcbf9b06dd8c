//! PostgreSQL, the ledger and the bus that end and come back.

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::super::{proxy::Mode, run::Scene, site::is_back};

/// How often every session ends.
const CUTS: u32 = 5;

/// PostgreSQL is killed, and comes back with what it acknowledged.
pub(super) async fn postgres_killed(scene: &mut Scene<'_>) -> Result<()> {
    let process = scene.site.postgres.pid().context("PostgreSQL does not run")?;
    kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGKILL)?;
    is_back(&scene.site.postgres, process).await?;
    scene.pause(500..1_500).await;
    Ok(())
}

/// Every session ends at once, some times.
pub(super) async fn sessions_ended(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..CUTS {
        let mut session = scene.site.database().await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut session)
        .await?;
        scene.pause(100..1_000).await;
    }
    Ok(())
}

/// The ledger's service is killed and comes back, twice.
pub(super) async fn usage_killed(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..2 {
        scene.site.fleet.kill("usage").await?;
        scene.pause(0..1_000).await;
        scene.site.fleet.restart("usage").await?;
        scene.pause(200..800).await;
    }
    Ok(())
}

/// Nobody reaches the bus for a while.
pub(super) async fn bus_away(scene: &mut Scene<'_>) -> Result<()> {
    scene.site.doors.bus.set(Mode::Refuse);
    scene.pause(2_000..4_000).await;
    scene.site.doors.bus.heal();
    scene.pause(500..1_500).await;
    Ok(())
}
