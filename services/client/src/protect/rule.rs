//! What a layer asks for: of which metrics how much, which features, and when it counts.

use std::{fmt, sync::Arc, time::Duration};

use http::{request, response};

/// How long a hold lives that nobody renews.
pub(super) const TTL: Duration = Duration::from_secs(60);

type OfRequest = dyn Fn(&request::Parts) -> u64 + Send + Sync;
type OfResponse = dyn Fn(&response::Parts) -> u64 + Send + Sync;
type RequestId = dyn Fn(&request::Parts) -> Option<String> + Send + Sync;
type Succeeded = dyn Fn(&response::Parts) -> bool + Send + Sync;

/// How much of a metric a request takes.
#[derive(Clone)]
pub(super) enum Amount {
    /// Always so much.
    Fixed(u64),
    /// As much as its head says.
    OfRequest(Arc<OfRequest>),
}

impl Amount {
    pub(super) fn of(&self, request: &request::Parts) -> u64 {
        match self {
            Self::Fixed(amount) => *amount,
            Self::OfRequest(of) => of(request),
        }
    }
}

/// When it is known how much was used.
#[derive(Clone)]
pub(super) enum Measure {
    /// Before: as much as was asked for.
    Asked,
    /// By the head of the response.
    OfResponse(Arc<OfResponse>),
    /// By the bytes of its body.
    Bytes,
    /// By what the handler told its meter until the end of the body.
    Meter,
}

impl Measure {
    /// Whether it is known only once the body of the response has ended.
    pub(super) fn is_to_the_end(&self) -> bool {
        matches!(self, Self::Bytes | Self::Meter)
    }
}

/// One metric, and how much of it.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) metric: String,
    pub(super) amount: Amount,
    pub(super) measure: Measure,
}

/// How it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Held before, recorded after.
    Reserve,
    /// Recorded before.
    Consume,
    /// Looked at.
    Peek,
}

/// All that a layer asks for.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) items: Vec<Item>,
    pub(super) features: Vec<String>,
    pub(super) mode: Mode,
    pub(super) ttl: Duration,
    /// Whether an account that was never seen goes on where nobody can be asked.
    pub(super) soft: bool,
    pub(super) request_id: Option<Arc<RequestId>>,
    pub(super) succeeded: Option<Arc<Succeeded>>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics: Vec<&str> = self.items.iter().map(|item| item.metric.as_str()).collect();
        f.debug_struct("Rule")
            .field("metrics", &metrics)
            .field("features", &self.features)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            features: Vec::new(),
            mode: Mode::Reserve,
            ttl: TTL,
            soft: false,
            request_id: None,
            succeeded: None,
        }
    }
}

impl Rule {
    /// Whether a response says that what was asked for was done.
    pub(super) fn succeeded(&self, response: &response::Parts) -> bool {
        match &self.succeeded {
            Some(succeeded) => succeeded(response),
            None => response.status.is_success() || response.status.is_redirection(),
        }
    }

    /// Whether how much was used is known only once the body has ended.
    pub(super) fn is_measured_to_the_end(&self) -> bool {
        self.items.iter().any(|item| item.measure.is_to_the_end())
    }
}
