//! Waiting for what happens, never for a time.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::time::Instant;

/// How long anything may take on two cores that others use too.
pub const PATIENCE: Duration = Duration::from_secs(45);

const POLL: Duration = Duration::from_millis(25);

/// What has to be left of an hour for a story that counts within it.
const ROOM_S: i64 = 120;

/// Waits until `look` succeeds and answers what it saw. An error means "not yet"; the last one is shown
/// where it takes too long.
///
/// # Errors
/// The last error of `look`.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, what, look).await
}

/// The same with a deadline that is part of what is promised.
///
/// # Errors
/// The last error of `look`.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let since = Instant::now();
    loop {
        let error = match look().await {
            Ok(seen) => return Ok(seen),
            Err(error) => error,
        };
        if since.elapsed() > deadline {
            return Err(error)
                .with_context(|| format!("waited {} s in vain until {what}", deadline.as_secs_f32()));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The present of this machine, which is also that of its servers.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a test is the outermost layer: its calls say what time it is"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Waits, near the end of an hour, for the next, so that what a story counts falls into one window.
pub async fn roomy_hour() {
    let left_s = || 3_600 - now().as_second().rem_euclid(3_600);
    while left_s() < ROOM_S {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
