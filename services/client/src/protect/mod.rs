//! What a service puts on its routes, so that each request is asked for before it is served and counted after.
//!
//! One line on a route is enough: an export is held before the handler runs, recorded where it succeeds, and free again
//! where it fails, panics, takes too long or is waited for by nobody any more.
//!
//! ```
//! use axum::{Router, routing::post};
//! use octroi_client::{Client, Quota};
//!
//! # fn example() -> Result<Router, Box<dyn std::error::Error>> {
//! let quota = Quota::builder(&Client::from_env()?).account_from_header("x-account-id").build()?;
//! let app = Router::new().route("/exports", post(export).route_layer(quota.metric("exports.run")));
//! # Ok(app)
//! # }
//! # async fn export() {}
//! ```
//!
//! The same layer goes before a tonic service; it sees by the content type what it speaks.

mod admit;
mod ask;
mod body;
mod breaker;
mod decision;
mod forget;
mod journal;
mod layer;
mod meter;
mod permit;
mod policies;
mod rate_limit;
mod refusal;
mod rule;
mod settle;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::request::Parts;
use octroi_proto::quota::v1::quota_service_client::QuotaServiceClient;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use self::{
    body::Body,
    layer::{Protected, QuotaLayer},
    meter::Meter,
    rate_limit::rate_limit,
    refusal::why_denied,
};
use self::{breaker::Breaker, journal::Journal, policies::Policies};
use crate::{Channel, Client};

/// How long a decision may take before the limits' policies decide.
const DEADLINE: Duration = Duration::from_millis(500);
/// How often a program that ends tries to tell what is left.
const CLOSING_EVERY: Duration = Duration::from_millis(50);

/// Reads the account out of a request.
type AccountOf = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Whose request it is, where whoever signs people in says so: the account's id, in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(pub String);

/// Protects the routes of one program: makes the layers, which share its connections and what it has learnt.
///
/// It is cheap to clone.
#[derive(Clone)]
pub struct Quota(Arc<Shared>);

struct Shared {
    client: QuotaServiceClient<Channel>,
    account_of: Box<AccountOf>,
    deadline: Duration,
    error_pages: Option<String>,
    policies: Policies,
    breaker: Breaker,
    journal: Journal,
    /// How many requests were allowed that nobody was asked about.
    alone: AtomicU64,
    /// Those who find out what became of questions that nobody waits for.
    forgetting: Arc<Semaphore>,
    /// Whoever records and gives back.
    tasks: TaskTracker,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}

impl Quota {
    /// Begins a description of what protects the routes of this program. Unless something else is said, the account of a
    /// request is its extension [`Account`].
    #[must_use]
    pub fn builder(client: &Client) -> QuotaBuilder {
        QuotaBuilder {
            client: client.quota(),
            account_of: Box::new(|parts| parts.extensions.get::<Account>().map(|account| account.0.clone())),
            deadline: client.quota.deadline().min(DEADLINE),
            error_pages: None,
            journal_dir: None,
            journal_bytes_max: journal::BYTES_MAX,
        }
    }

    /// A layer that takes 1 of `metric` for each request.
    #[must_use]
    pub fn metric(&self, metric: impl Into<String>) -> QuotaLayer {
        QuotaLayer::new(self.clone()).and_metric(metric)
    }

    /// A layer that lets accounts through whose plan has `feature`.
    #[must_use]
    pub fn feature(&self, feature: impl Into<String>) -> QuotaLayer {
        QuotaLayer::new(self.clone()).and_feature(feature)
    }

    /// How many records wait to be told to the fleet, because it could not be reached.
    #[must_use]
    pub fn untold(&self) -> usize {
        self.0.journal.len()
    }

    /// How many requests were allowed so far that nobody was asked about, because their limits say so.
    #[must_use]
    pub fn allowed_alone(&self) -> u64 {
        self.0.alone.load(Ordering::Relaxed)
    }

    fn count_alone(&self) {
        self.0.alone.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until what was done is recorded and what was held is given back, as far as that happens within `patience`: what
    /// a program does last, once it serves nobody any more. Answers how many records are left; those in a journal's
    /// directory are told by whoever starts there next, the others are lost.
    pub async fn close(&self, patience: Duration) -> usize {
        let all = async {
            // What ends meanwhile may leave something to tell.
            loop {
                let is_idle = self.0.tasks.is_empty();
                if self.tell_waiting().await && is_idle {
                    break;
                }
                tokio::time::sleep(CLOSING_EVERY).await;
            }
        };
        // What is left then is the answer.
        drop(tokio::time::timeout(patience, all).await);
        self.untold()
    }
}

/// Describes a [`Quota`].
pub struct QuotaBuilder {
    client: QuotaServiceClient<Channel>,
    account_of: Box<AccountOf>,
    deadline: Duration,
    error_pages: Option<String>,
    journal_dir: Option<PathBuf>,
    journal_bytes_max: usize,
}

impl fmt::Debug for QuotaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaBuilder")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl QuotaBuilder {
    /// How the account is read out of a request; none where it has none, and then it is refused as unauthenticated.
    #[must_use]
    pub fn account_by(mut self, of: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.account_of = Box::new(of);
        self
    }

    /// The account is in this header, which something in front of the program sets: who can set it, is that account.
    #[must_use]
    pub fn account_from_header(self, name: &'static str) -> Self {
        self.account_by(move |parts| Some(parts.headers.get(name)?.to_str().ok()?.to_owned()))
    }

    /// How long a decision may take before the limits' policies decide; 500 ms, or the client's deadline where that is
    /// shorter.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where the pages about refusals are, such as `https://octroi.example.com/errors/`: the `type` of a problem.
    #[must_use]
    pub fn error_pages(mut self, base: impl Into<String>) -> Self {
        self.error_pages = Some(base.into());
        self
    }

    /// The directory where records wait that the fleet could not be told, so that they outlive the program. Without one
    /// they wait in memory.
    #[must_use]
    pub fn journal_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.journal_dir = Some(dir.into());
        self
    }

    /// The most that may wait, in bytes; 16 MiB where nobody says. Where it is full, nothing is allowed that the fleet
    /// was not asked for.
    #[must_use]
    pub fn journal_bytes_max(mut self, bytes: usize) -> Self {
        self.journal_bytes_max = bytes;
        self
    }

    /// Makes it, within a tokio runtime. What waits in the journal's directory is told from now on.
    ///
    /// # Errors
    /// Where the directory cannot be made, read or written.
    pub fn build(self) -> io::Result<Quota> {
        let journal = Journal::open(self.journal_dir.as_deref(), self.journal_bytes_max)?;
        let quota = Quota(Arc::new(Shared {
            client: self.client,
            account_of: self.account_of,
            deadline: self.deadline,
            error_pages: self.error_pages,
            policies: Policies::default(),
            breaker: Breaker::default(),
            journal,
            alone: AtomicU64::new(0),
            forgetting: Arc::new(Semaphore::new(forget::FORGETTING_MAX)),
            tasks: TaskTracker::new(),
        }));
        tokio::spawn(settle::tell(Arc::downgrade(&quota.0)));
        Ok(quota)
    }
}
