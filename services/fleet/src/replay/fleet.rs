//! Calls to the fleet, with patience for one that went away.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use octroi_kit::{link::Link, status::reason_of};
use octroi_proto::errors::v1::ErrorReason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

/// How long a fleet may be away.
pub const AWAY_MAX: Duration = Duration::from_secs(60);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Why a call has no answer that can be used.
#[derive(Debug)]
pub enum Failure {
    /// The fleet refused; asking again would not help.
    Refused(Status),
    /// The fleet was away for too long.
    Away {
        /// How long.
        after: Duration,
        /// What the last try met.
        last: Status,
    },
    /// The operator, or a failure elsewhere, ended the run.
    Stopped,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the fleet refused: {}", sentence(status)),
            Self::Away { after, last } => {
                write!(
                    f,
                    "the fleet has not answered for {} s: {}",
                    after.as_secs(),
                    sentence(last)
                )
            }
            Self::Stopped => f.write_str("the run was stopped"),
        }
    }
}

impl std::error::Error for Failure {}

fn sentence(status: &Status) -> String {
    match reason_of(status) {
        Some(reason) => format!("{} ({})", status.message(), reason.name()),
        None => format!("{} ({:?})", status.message(), status.code()),
    }
}

/// Whether the same call may succeed later.
pub fn may_pass(status: &Status) -> bool {
    let reason = reason_of(status);
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::ResourceExhausted => matches!(reason, Some(ErrorReason::Overloaded | ErrorReason::RateLimited)),
        // What breaks on the way has no reason of ours.
        Code::Unknown | Code::Internal => reason.is_none(),
        _ => false,
    }
}

/// Since when the fleet is away, over all calls.
#[derive(Debug)]
struct Patience {
    away_max: Duration,
    away_since: Mutex<Option<Instant>>,
    was_away: AtomicBool,
}

impl Patience {
    fn answered(&self) {
        *self.away_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How long the fleet has been away; from now on, if it answered the last time.
    fn away(&self) -> Duration {
        self.was_away.store(true, Ordering::Relaxed);
        let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed()
    }
}

/// A running fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    link: Link,
    patience: Arc<Patience>,
    halt: CancellationToken,
}

impl Fleet {
    /// The fleet behind this link, until `halt` is cancelled.
    pub fn new(link: Link, away_max: Duration, halt: CancellationToken) -> Self {
        Self {
            link,
            patience: Arc::new(Patience {
                away_max,
                away_since: Mutex::new(None),
                was_away: AtomicBool::new(false),
            }),
            halt,
        }
    }

    /// What ends waiting.
    pub fn halt(&self) -> &CancellationToken {
        &self.halt
    }

    /// Whether a call of this run had to be made again, as one has where a process of the fleet was restarted.
    pub fn was_away(&self) -> bool {
        self.patience.was_away.load(Ordering::Relaxed)
    }

    /// Calls until the fleet answers, at most as long as it may be away.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn call<T, F>(&self, attempt: impl Fn(Link) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_telling(attempt).await.map(|(answer, _)| answer)
    }

    /// The same, and whether an earlier try failed, which may have taken effect all the same.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn call_telling<T, F>(&self, attempt: impl Fn(Link) -> F) -> Result<(T, bool), Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = BACKOFF_MIN;
        let mut failed_before = false;
        loop {
            let status = match attempt(self.link.clone()).await {
                Ok(response) => {
                    self.patience.answered();
                    return Ok((response.into_inner(), failed_before));
                }
                Err(status) if !may_pass(&status) => {
                    self.patience.answered();
                    return Err(Failure::Refused(status));
                }
                Err(status) => status,
            };
            failed_before = true;
            let away = self.patience.away();
            if away >= self.patience.away_max {
                return Err(Failure::Away {
                    after: away,
                    last: status,
                });
            }
            self.pause(backoff).await?;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits, unless the run is stopped.
    ///
    /// # Errors
    /// [`Failure::Stopped`].
    pub async fn pause(&self, wait: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = self.halt.cancelled() => Err(Failure::Stopped),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}
