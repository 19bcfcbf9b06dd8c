//! Hours that end under load.

use std::time::Duration;

use anyhow::Result;

use super::super::run::Scene;
use crate::harness::backends::SERVICES;

/// How many hours end.
const HOURS: u32 = 2;

/// Within how long every process reads that it was moved, generously.
const SEEN_WITHIN: Duration = Duration::from_millis(1_500);

/// The clock of the whole fleet is moved by an hour: for a while some replicas are in the hour before.
pub(super) async fn hours_end(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..HOURS {
        let fleet = &scene.site.fleet;
        let call = fleet.operator_call("clock", &["clock", "move", "1h"])?;
        let call = SERVICES
            .into_iter()
            .fold(call.set("sandbox", "true"), |call, service| {
                call.set(&format!("{service}.database.url"), fleet.database().url(service))
            });
        let from = scene.load.now();
        call.ends().await?.succeeded()?;
        scene.clock_moved.push((from, scene.load.now() + SEEN_WITHIN));
        scene.pause(1_500..2_500).await;
    }
    Ok(())
}
