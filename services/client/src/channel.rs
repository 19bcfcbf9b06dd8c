//! The channel under every client: token, deadline, who is asked, repetition.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tonic::{Code, Status, body::Body, transport};
use tower::Service;

use crate::{
    Refusal as _, frame,
    replicas::{Replica, Replicas},
    retry,
};

const TIMEOUT: &str = "grpc-timeout";
/// How long a replica says nothing, at the least, until it is believed to be silent.
const SILENCE_MIN: Duration = Duration::from_millis(100);

/// The connections to the replicas of services, shared by all clients.
#[derive(Clone)]
pub struct Channel(Arc<Shared>);

struct Shared {
    replicas: Arc<Replicas>,
    authorization: HeaderValue,
    deadline: Duration,
    attempts_max: u32,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("replicas", &self.0.replicas)
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}

impl Channel {
    pub(crate) fn new(
        replicas: Arc<Replicas>,
        authorization: HeaderValue,
        deadline: Duration,
        attempts_max: u32,
    ) -> Self {
        Self(Arc::new(Shared {
            replicas,
            authorization,
            deadline,
            attempts_max,
        }))
    }

    /// How long a call may take that says no deadline of its own.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Each attempt waits for the connection itself, within the call's deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, self.0.authorization.clone());
        let channel = self.clone();
        Box::pin(async move {
            // A call that says its own deadline has that one.
            let asked = request
                .headers()
                .get(TIMEOUT)
                .and_then(|value| parse_timeout(value.to_str().ok()?));
            if retry::is_stream(request.uri().path()) {
                return channel.stream(request).await;
            }
            let deadline = asked.unwrap_or(channel.0.deadline);
            channel.attempts(request, deadline).await
        })
    }
}

impl Channel {
    /// Sends what the caller says as it says it, for as long as that takes: nobody could say it again.
    async fn stream(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let mut replica = self.choose(None, &[])?;
        let ready = tower::ServiceExt::ready(&mut replica.connection)
            .await
            .map_err(status_of)?;
        ready.call(request).await.map_err(status_of)
    }

    fn choose(&self, account: Option<&[u8]>, tried: &[Replica]) -> Result<Replica, Status> {
        let replica = self.0.replicas.choose(account, tried);
        replica.ok_or_else(|| Status::unavailable("there is no replica"))
    }

    /// Sends the call until it is answered, refused for good, or out of attempts.
    async fn attempts(self, request: Request<Body>, deadline: Duration) -> Result<Response<Body>, Status> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let method = head.uri.path();
        let mut body = body.collect().await?.to_bytes();
        let mut tried = Vec::new();
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            let mut replica = self.choose(frame::account_of(method, &body), &tried)?;
            let attempt = u32::try_from(tried.len()).unwrap_or(u32::MAX).saturating_add(1);
            let is_last = attempt >= self.0.attempts_max
                || tried.len() + 1 >= self.0.replicas.count()
                || !retry::may_be_repeated(method);
            // Where another may answer, a silent one has not all of the time.
            let patience = if is_last { left } else { left / 2 };
            let answer = attempt_at(&mut replica, &head, body.clone(), left);
            let answer = match tokio::time::timeout(patience, answer).await {
                Ok(answer) => answer.inspect_err(|_| self.0.replicas.suspect(&replica)),
                Err(_) => {
                    // Who had next to no time has not been silent.
                    if patience >= SILENCE_MIN {
                        self.0.replicas.suspect(&replica);
                    }
                    Err(Status::unavailable("a replica does not answer"))
                }
            };
            if answer.is_err() && start.elapsed() >= deadline {
                return Err(deadline_passed());
            }
            let Some(refusal) = refusal_of(&answer) else {
                return answer;
            };
            if attempt >= self.0.attempts_max || !retry::is_worth_it(method, &refusal) {
                return answer;
            }
            let mut pause = retry::pause(attempt + 1, refusal.retry_after());
            if !retry::is_refused_at_once(&refusal) {
                let repeat = frame::as_repeat(method, &body);
                if repeat.len() > body.len() {
                    // What one replica took from memory, another knows only a moment later.
                    pause = pause.max(retry::KNOWN_ELSEWHERE);
                }
                body = repeat;
            }
            if start.elapsed() + pause >= deadline {
                // The refusal says more than a passed deadline would.
                return answer;
            }
            tried.push(replica);
            tokio::time::sleep(pause).await;
        }
    }
}

/// What an answer refuses; none where it does not.
fn refusal_of(answer: &Result<Response<Body>, Status>) -> Option<Status> {
    match answer {
        Ok(response) => {
            Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
        }
        Err(status) => Some(status.clone()),
    }
}

async fn attempt_at(
    replica: &mut Replica,
    head: &http::request::Parts,
    body: Bytes,
    left: Duration,
) -> Result<Response<Body>, Status> {
    let mut request = Request::from_parts(head.clone(), Body::new(Full::new(body)));
    // The service is told what is left, so that it stops when nobody waits any more.
    if let Ok(timeout) = HeaderValue::try_from(to_timeout(left)) {
        request.headers_mut().insert(TIMEOUT, timeout);
    }
    let ready = tower::ServiceExt::ready(&mut replica.connection)
        .await
        .map_err(status_of)?;
    ready.call(request).await.map_err(|error| match status_of(error) {
        // What the transport calls a cancellation is a connection that closed before the call was sent.
        status if status.code() == Code::Cancelled => connection_closed(status),
        status => status,
    })
}

fn deadline_passed() -> Status {
    Status::deadline_exceeded("the call did not end within its deadline")
}

/// Nobody cancelled the call: whoever would have answered is gone.
fn connection_closed(status: Status) -> Status {
    let mut closed = Status::unavailable("the connection was closed");
    closed.set_source(Arc::new(status));
    closed
}

fn status_of(error: transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

/// Milliseconds, rounded up: at most 8 digits, as the protocol wants.
fn to_timeout(left: Duration) -> String {
    format!("{}m", left.as_micros().div_ceil(1_000).clamp(1, 99_999_999))
}

/// A timeout as tonic's `Request::set_timeout` writes it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.checked_mul(3_600)?)),
        "M" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
