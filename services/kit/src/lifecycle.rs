//! Signals and the order of stopping: the first signal drains, the second aborts.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long calls and handlers in flight have to end after the first signal.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

/// What everything in a process that must stop in order listens to.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Cancelled by the first signal: take no new work.
    pub soft: CancellationToken,
    /// Cancelled by the second signal, or when draining took too long: stop now.
    pub hard: CancellationToken,
    /// What is waited for between the two.
    pub tasks: TaskTracker,
}

impl Lifecycle {
    /// A lifecycle that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the process must stop at once.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let hard = self.hard.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = hard.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Waits for SIGTERM or SIGINT, then asks everything to stop.
    ///
    /// # Errors
    /// Where the system refuses to tell of signals.
    pub async fn watch_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut stopping = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if stopping {
                tracing::warn!(signal = name, "second signal: stopping at once");
                self.hard.cancel();
                return Ok(());
            }
            stopping = true;
            tracing::info!(
                signal = name,
                drain_s_max = DRAIN_MAX.as_secs(),
                "stopping: no new work is taken"
            );
            self.soft.cancel();
        }
    }

    /// Waits until all tasks have ended, at most [`DRAIN_MAX`] after the first signal.
    pub async fn drained(&self) {
        self.soft.cancelled().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.hard.cancelled() => {}
            () = tokio::time::sleep(DRAIN_MAX) => {
                tracing::warn!("work in flight did not end in time and is dropped");
            }
        }
        self.hard.cancel();
    }
}
