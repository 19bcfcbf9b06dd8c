use std::sync::Mutex;

use octroi_proto::{
    account::v1::{GetAccountRequest, SignInRequest},
    quota::v1::CheckQuotaRequest,
};
use prost::Message as _;
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

/// Reads checks and refuses them, or says nothing.
#[derive(Clone, Default)]
struct Checker {
    is_silent: bool,
    seen: Arc<Mutex<Vec<CheckQuotaRequest>>>,
}

impl Service<Request<Body>> for Checker {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let checker = self.clone();
        Box::pin(async move {
            let frame = request.into_body().collect().await.expect("a body").to_bytes();
            let check = CheckQuotaRequest::decode(&frame[5..]).expect("a check");
            checker.seen.lock().expect("no panic").push(check);
            if checker.is_silent {
                std::future::pending::<()>().await;
            }
            Ok(Status::not_found("answered").into_http())
        })
    }
}

impl tonic::server::NamedService for Checker {
    const NAME: &'static str = "octroi.quota.v1.QuotaService";
}

async fn serve(checker: &Checker) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = Server::builder().add_service(checker.clone());
    tokio::spawn(server.serve_with_incoming(incoming));
    format!("http://{address}")
}

#[tokio::test]
async fn an_account_goes_to_its_replica_and_where_that_is_silent_to_the_other_as_a_repeat() {
    let silent = Checker {
        is_silent: true,
        ..Checker::default()
    };
    let speaking = Checker::default();
    let addresses = format!("{},{}", serve(&silent).await, serve(&speaking).await);
    let client = Client::builder(addresses)
        .token("token")
        .deadline(Duration::from_secs(2));
    let client = client.build().expect("a client");
    for number in 0..40 {
        let check = CheckQuotaRequest {
            account_id: format!("account-{number}"),
            ..CheckQuotaRequest::default()
        };
        let status = client.quota().check_quota(check).await.expect_err("a refusal");
        assert_eq!(status.message(), "answered");
    }
    let (silent, speaking) = (
        silent.seen.lock().expect("no panic"),
        speaking.seen.lock().expect("no panic"),
    );
    assert!(
        !silent.is_empty() && silent.len() < 10,
        "{} asked in vain",
        silent.len()
    );
    assert!(silent.iter().all(|check| !check.repeat));
    assert_eq!(speaking.len(), 40);
    for check in speaking.iter() {
        let came_before = silent.iter().any(|before| before.account_id == check.account_id);
        assert_eq!(check.repeat, came_before, "{check:?}");
    }
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
