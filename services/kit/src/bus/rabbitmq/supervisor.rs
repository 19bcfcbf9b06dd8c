//! Keeps a connection up for as long as the bus runs.

use super::{super::handling, link::LinkError};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest that a connection may take to open, everything declared.
const OPEN_MAX: Duration = Duration::from_secs(20);
/// First and longest wait before another try.
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 5_000;
/// A connection that held this long did not fail for what it declares.
const STABLE: Duration = Duration::from_secs(1);
/// One that opened and broke soon is tried again within a second: the broker is there.
const FAILURES_MAX_IF_OPENED: u32 = 2;
/// How long the broker may be away before the process is not ready.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// What a connection is for.
pub(super) trait Role: Sync {
    /// An open connection with everything that it needs.
    type Session: Send;

    /// Opens the connection and declares what it needs.
    fn open(&self) -> impl Future<Output = Result<Self::Session, LinkError>> + Send;

    /// Uses the connection until it breaks, or until `stop` is cancelled and it is closed.
    fn serve(
        &self,
        session: Self::Session,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Opens and serves, over and over, until `stop` is cancelled.
pub(super) async fn supervise(health: &Health, stop: &CancellationToken, role: &impl Role) {
    let mut failures = 0;
    while !stop.is_cancelled() {
        let opened = tokio::select! {
            () = stop.cancelled() => break,
            opened = tokio::time::timeout(OPEN_MAX, role.open()) => {
                opened.unwrap_or(Err(LinkError::Timeout("opening the connection")))
            }
        };
        let ended = match opened {
            Ok(session) => {
                health.up();
                let since = Instant::now();
                let ended = role.serve(session, stop).await;
                failures = if since.elapsed() >= STABLE {
                    0
                } else {
                    failures.min(FAILURES_MAX_IF_OPENED)
                };
                ended
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            health.down(&error, Instant::now());
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(backoff(failures)) => failures += 1,
        }
    }
    health.stopped();
}

/// Doubles from [`BACKOFF_MS_MIN`] to [`BACKOFF_MS_MAX`]; half of it is random, so that a fleet does not come
/// back all at once.
fn backoff(failures: u32) -> Duration {
    let ms = BACKOFF_MS_MIN
        .saturating_mul(2_u64.saturating_pow(failures))
        .min(BACKOFF_MS_MAX);
    Duration::from_millis(rand::random_range(ms.div_ceil(2)..=ms))
}

/// Whether a connection is up, for readiness, metrics and the log.
pub(super) struct Health {
    link: &'static str,
    state: Mutex<State>,
}

enum State {
    /// It has never been up, or the bus is stopped.
    Off {
        error: String,
    },
    Up,
    Down {
        since: Instant,
        error: String,
    },
}

impl Health {
    pub(super) fn new(link: &'static str) -> Self {
        Self {
            link,
            state: Mutex::new(State::Off { error: String::new() }),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready_at(Instant::now())
    }

    fn is_ready_at(&self, now: Instant) -> bool {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Off { .. } => false,
            State::Up => true,
            State::Down { since, .. } => now.duration_since(*since) <= AWAY_MAX,
        }
    }

    fn up(&self) {
        self.gauge(1.0);
        let before = self.replace(State::Up);
        let link = self.link;
        match before {
            State::Down { since, .. } => {
                let away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(link, away_ms, "the broker is back");
            }
            State::Off { .. } | State::Up => tracing::info!(link, "the broker is connected"),
        }
    }

    /// Logs each failure once, not once a try.
    fn down(&self, error: &LinkError, now: Instant) {
        self.gauge(0.0);
        let error = handling::text(error);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = match &*state {
            State::Off { error: last } | State::Down { error: last, .. } => *last == error,
            State::Up => false,
        };
        if !logged {
            tracing::warn!(
                link = self.link,
                error,
                "the broker is away; trying until it is back"
            );
        }
        *state = match &*state {
            State::Off { .. } => State::Off { error },
            State::Up => State::Down { since: now, error },
            State::Down { since, .. } => State::Down { since: *since, error },
        };
    }

    fn stopped(&self) {
        self.gauge(0.0);
        self.replace(State::Off { error: String::new() });
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(
            &mut self.state.lock().unwrap_or_else(PoisonError::into_inner),
            state,
        )
    }

    fn gauge(&self, connected: f64) {
        metrics::gauge!("octroi_bus_connected", "link" => self.link).set(connected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_stays_in_its_bounds() {
        for (failures, ms) in [
            (0, 25..=50),
            (1, 50..=100),
            (6, 1_600..=3_200),
            (7, 2_500..=5_000),
            (99, 2_500..=5_000),
        ] {
            let waits = backoff(failures).as_millis();
            assert!(ms.contains(&waits), "{failures}: {waits}");
        }
    }

    #[test]
    fn a_short_absence_does_not_make_the_process_unready() {
        let (health, error) = (Health::new("publish"), LinkError::Timeout("a test"));
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(!health.is_ready_at(began), "before it was ever up");
        health.down(&error, began);
        assert!(!health.is_ready_at(began), "before it was ever up");
        health.up();
        assert!(health.is_ready_at(after(3_600)));
        health.down(&error, after(100));
        assert!(health.is_ready_at(after(100) + AWAY_MAX));
        // A further failure does not begin a new absence.
        health.down(&error, after(105));
        assert!(health.is_ready_at(after(100) + AWAY_MAX));
        assert!(!health.is_ready_at(after(100) + AWAY_MAX + Duration::from_nanos(1)));
        health.up();
        assert!(health.is_ready());
        health.stopped();
        assert!(!health.is_ready());
    }
}
