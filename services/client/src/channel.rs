//! The channel under every client: token, deadline, repetition.

use std::{
    fmt,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tonic::{Code, Status, body::Body, transport};
use tower::Service;

use crate::{Refusal as _, retry};

const TIMEOUT: &str = "grpc-timeout";

/// The connection to the services, shared by all clients.
#[derive(Clone)]
pub struct Channel {
    connection: transport::Channel,
    authorization: HeaderValue,
    deadline: Duration,
    attempts_max: u32,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Channel {
    pub(crate) fn new(
        connection: transport::Channel,
        authorization: HeaderValue,
        deadline: Duration,
        attempts_max: u32,
    ) -> Self {
        Self {
            connection,
            authorization,
            deadline,
            attempts_max,
        }
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
            .insert(header::AUTHORIZATION, self.authorization.clone());
        let channel = self.clone();
        Box::pin(async move {
            // A call that says its own deadline has that one.
            let asked = request
                .headers()
                .get(TIMEOUT)
                .and_then(|value| parse_timeout(value.to_str().ok()?));
            let deadline = asked.unwrap_or(channel.deadline);
            match tokio::time::timeout(deadline, channel.attempts(request, deadline)).await {
                Ok(answer) => answer,
                Err(_) => Err(deadline_passed()),
            }
        })
    }
}

impl Channel {
    /// Sends the call until it is answered, refused for good, or out of attempts.
    async fn attempts(
        mut self,
        request: Request<Body>,
        deadline: Duration,
    ) -> Result<Response<Body>, Status> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut attempt = 1;
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            let answer = match self.attempt(&head, body.clone(), left).await {
                // The transport has the same deadline, and calls its end a cancellation.
                Err(status) if status.code() == Code::Cancelled && start.elapsed() >= deadline => {
                    return Err(deadline_passed());
                }
                // So it calls a connection that closed before the call was sent, too.
                Err(status) if status.code() == Code::Cancelled => Err(connection_closed(status)),
                answer => answer,
            };
            let refusal = match &answer {
                Ok(response) => {
                    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
                }
                Err(status) => Some(status.clone()),
            };
            let Some(refusal) = refusal else { return answer };
            if attempt >= self.attempts_max || !retry::is_worth_it(head.uri.path(), &refusal) {
                return answer;
            }
            attempt += 1;
            let pause = retry::pause(attempt, refusal.retry_after());
            if start.elapsed() + pause >= deadline {
                // The refusal says more than a passed deadline would.
                return answer;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &mut self,
        head: &http::request::Parts,
        body: Bytes,
        left: Duration,
    ) -> Result<Response<Body>, Status> {
        let mut request = Request::from_parts(head.clone(), Body::new(Full::new(body)));
        // The service is told what is left, so that it stops when nobody waits any more.
        if let Ok(timeout) = HeaderValue::try_from(to_timeout(left)) {
            request.headers_mut().insert(TIMEOUT, timeout);
        }
        let ready = tower::ServiceExt::ready(&mut self.connection)
            .await
            .map_err(status_of)?;
        ready.call(request).await.map_err(status_of)
    }
}

fn deadline_passed() -> Status {
    Status::deadline_exceeded("the call did not end within its deadline")
}

/// Nobody cancelled the call: whoever would have answered is gone.
fn connection_closed(status: Status) -> Status {
    let mut closed = Status::unavailable("the connection was closed");
    closed.set_source(std::sync::Arc::new(status));
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
mod tests {
    use std::sync::{Arc, Mutex};

    use octroi_proto::account::v1::{GetAccountRequest, SignInRequest};
    use tonic::transport::Server;

    use super::*;
    use crate::{Client, refusal::tests::refusal};

    /// Answers every call with the next of its statuses, then with NOT_FOUND, and notes what it was asked.
    #[derive(Clone, Default)]
    struct Fake {
        answers: Arc<Mutex<Vec<Status>>>,
        calls: Arc<Mutex<Vec<http::HeaderMap>>>,
    }

    impl Service<Request<Body>> for Fake {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            self.calls
                .lock()
                .expect("no panic")
                .push(request.headers().clone());
            let mut answers = self.answers.lock().expect("no panic");
            let status = if answers.is_empty() {
                Status::not_found("end")
            } else {
                answers.remove(0)
            };
            std::future::ready(Ok(status.into_http()))
        }
    }

    impl tonic::server::NamedService for Fake {
        const NAME: &'static str = "octroi.account.v1.AccountService";
    }

    async fn client(answers: Vec<Status>) -> (Client, Fake) {
        let fake = Fake {
            answers: Arc::new(Mutex::new(answers)),
            calls: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(fake.clone())
                .serve_with_incoming(incoming),
        );
        let client = Client::builder(format!("http://{address}"))
            .token("token")
            .deadline(Duration::from_secs(5));
        (client.build().expect("a client"), fake)
    }

    async fn check(answers: Vec<Status>, calls: usize, code: Code) {
        let (client, fake) = client(answers).await;
        let status = client
            .account()
            .get_account(GetAccountRequest::default())
            .await
            .expect_err("a refusal");
        assert_eq!(status.code(), code);
        assert_eq!(fake.calls.lock().expect("no panic").len(), calls);
    }

    #[tokio::test]
    async fn what_may_be_repeated_is_sent_again_until_it_is_answered() {
        let away = || refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", None);
        check(vec![away()], 2, Code::NotFound).await;
        check(vec![away(), away(), away(), away()], 3, Code::Unavailable).await;
        check(vec![Status::internal("fault")], 1, Code::Internal).await;
        // Who is told to wait longer than the deadline does not wait at all.
        let later = refusal(Code::Unavailable, "NOT_READY", Some(Duration::from_secs(60)));
        check(vec![later], 1, Code::Unavailable).await;
    }

    #[tokio::test]
    async fn what_may_act_twice_is_sent_once() {
        let (client, fake) = client(vec![refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", None)]).await;
        let status = client
            .account()
            .sign_in(SignInRequest::default())
            .await
            .expect_err("a refusal");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(fake.calls.lock().expect("no panic").len(), 1);
    }

    #[tokio::test]
    async fn every_call_carries_the_token_and_what_is_left_of_its_deadline() {
        let (client, fake) = client(vec![]).await;
        let mut request = tonic::Request::new(GetAccountRequest::default());
        request.set_timeout(Duration::from_millis(700));
        drop(client.account().get_account(request).await);
        drop(client.account().get_account(GetAccountRequest::default()).await);
        let calls = fake.calls.lock().expect("no panic");
        let left = |index: usize| {
            let header: &http::HeaderMap = &calls[index];
            assert_eq!(header["authorization"], "Bearer token");
            parse_timeout(header[TIMEOUT].to_str().expect("ASCII")).expect("a timeout")
        };
        assert!(left(0) <= Duration::from_millis(700) && left(0) > Duration::from_millis(100));
        assert!(left(1) <= Duration::from_secs(5) && left(1) > Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends_at_its_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let client = Client::builder(format!("http://{address}"))
            .token("token")
            .deadline(Duration::from_millis(50));
        let client = client.build().expect("a client");
        let start = Instant::now();
        let status = client
            .account()
            .get_account(GetAccountRequest::default())
            .await
            .expect_err("late");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_timeout_is_written_as_it_is_read() {
        for (left, expected) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (5_000_000, 5_000)] {
            let text = to_timeout(Duration::from_micros(left));
            assert_eq!(parse_timeout(&text), Some(Duration::from_millis(expected)));
        }
        assert_eq!(parse_timeout(""), None);
        assert_eq!(parse_timeout("5x"), None);
    }
}
