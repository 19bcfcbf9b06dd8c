//! Services that answer what a test tells them, behind the whole router of the gateway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, Request, StatusCode},
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use octroi_core::ErrorKind;
use octroi_kit::{
    auth::{self, Auth},
    config::{self, Secret},
    link::Links,
    status,
};
use octroi_proto::{account::v1 as account, errors::v1::ErrorReason};
use prost::Message;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::ServiceExt as _;

use crate::{Config, edge::Edge, routes};

/// The origin of the gateway under test.
pub(crate) const ORIGIN: &str = "http://127.0.0.1:8080";
/// The cookie of the session that the fake account service knows.
pub(crate) const COOKIE: &str = "__Host-octroi_session=good";

type Answer = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, Status> + Send + Sync>;

#[derive(Clone, Default)]
struct Fakes {
    answers: Arc<Mutex<HashMap<&'static str, Answer>>>,
    calls: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

async fn answer(State(fakes): State<Fakes>, request: HttpRequest) -> Response {
    let method = request.uri().path().to_owned();
    fakes
        .calls
        .lock()
        .expect("no panic")
        .push((method.clone(), request.headers().clone()));
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let answer = fakes
        .answers
        .lock()
        .expect("no panic")
        .get(method.as_str())
        .cloned();
    let message = answer.map_or_else(|| Err(Status::unimplemented(method)), |answer| answer(&body[5..]));
    match message {
        Ok(message) => {
            let mut frame = vec![0];
            frame.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
            frame.extend(message);
            (
                [("content-type", "application/grpc"), ("grpc-status", "0")],
                frame,
            )
                .into_response()
        }
        Err(status) => status.into_http(),
    }
}

/// A gateway whose services answer what they are told. Every test has services of its own.
pub(crate) struct Gateway {
    router: Router,
    fakes: Fakes,
    stop: CancellationToken,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    /// The account service knows one session (an owner) and one key with every scope.
    pub(crate) async fn start() -> Self {
        let fakes = Fakes::default();
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let services = Router::new().fallback(answer).with_state(fakes.clone());
        tokio::spawn(octroi_kit::http::serve(listener, services, stop.clone()));
        let auth = auth();
        let names = ["account", "quota", "usage", "billing", "notification"];
        let links = config::Links(
            names
                .into_iter()
                .map(|name| (name.to_owned(), address.clone()))
                .collect(),
        );
        let links = Links::new(&[], &links, auth.clone()).expect("links");
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: ORIGIN.into(),
            proxies: 0,
        };
        let edge = Edge::new(&links, &auth, config).expect("an edge");
        let gateway = Self {
            router: routes::router(&edge),
            fakes,
            stop,
        };
        gateway.knows(
            account::Role::Owner,
            &["quota.check", "usage.write", "usage.read"],
        );
        gateway
    }

    /// Sets the role of the member who is signed in, and the scopes of the key.
    pub(crate) fn knows(&self, role: account::Role, scopes: &[&str]) {
        self.answers(
            "/octroi.account.v1.AccountService/GetSession",
            move |request: account::GetSessionRequest| {
                if request.session_token != "good" {
                    return Err(refusal(ErrorKind::Unauthenticated, ErrorReason::SessionExpired));
                }
                Ok(account::GetSessionResponse {
                    session: Some(session(role)),
                })
            },
        );
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.answers(
            "/octroi.account.v1.AccountService/VerifyApiKey",
            move |request: account::VerifyApiKeyRequest| {
                if request.secret != "oct_good" {
                    return Err(refusal(ErrorKind::Unauthenticated, ErrorReason::ApiKeyInvalid));
                }
                let key = account::ApiKey {
                    key_id: "key-1".into(),
                    account_id: "acme".into(),
                    scopes: scopes.clone(),
                    ..Default::default()
                };
                Ok(account::VerifyApiKeyResponse { api_key: Some(key) })
            },
        );
    }

    /// From now on `method` answers so.
    pub(crate) fn answers<Q: Message + Default + 'static, A: Message>(
        &self,
        method: &'static str,
        answer: impl Fn(Q) -> Result<A, Status> + Send + Sync + 'static,
    ) {
        let answer: Answer =
            Arc::new(move |bytes| Ok(answer(Q::decode(bytes).expect("a message"))?.encode_to_vec()));
        self.fakes
            .answers
            .lock()
            .expect("no panic")
            .insert(method, answer);
    }

    /// The headers of every call to `method`.
    pub(crate) fn calls(&self, method: &str) -> Vec<HeaderMap> {
        let calls = self.fakes.calls.lock().expect("no panic");
        calls
            .iter()
            .filter(|(one, _)| one == method)
            .map(|(_, headers)| headers.clone())
            .collect()
    }

    /// Sends a request through every layer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("the router answers everything")
    }

    /// The status and the JSON of the answer, null where it has none.
    pub(crate) async fn json(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.send(request).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn auth() -> Auth {
    let dir = tempfile::tempdir().expect("a writable temporary directory");
    let dir = dir.path();
    auth::mint(dir).expect("a writable folder");
    let config = config::Auth {
        tokens_dir: dir.to_owned(),
        callers_file: std::path::PathBuf::new(),
        principal_secret: Secret::default(),
    };
    Auth::load(&config, dir).expect("what was minted")
}

/// A refusal as a service makes it.
pub(crate) fn refusal(kind: ErrorKind, reason: ErrorReason) -> Status {
    status::refusal(kind, reason, "a sentence")
}

/// The session that the fake account service knows.
pub(crate) fn session(role: account::Role) -> account::Session {
    let time = Some(prost_types::Timestamp {
        seconds: 1_772_366_400,
        nanos: 0,
    });
    account::Session {
        member: Some(account::Member {
            member_id: "member-1".into(),
            account_id: "acme".into(),
            email: "ada@example.com".into(),
            role: role.into(),
            ..Default::default()
        }),
        account: Some(account::Account {
            account_id: "acme".into(),
            zone: "UTC".into(),
            state: account::AccountState::Active.into(),
            create_time: time,
            ..Default::default()
        }),
        csrf_token: "csrf".into(),
        expire_time: time,
    }
}

/// A request with a session, sent by our own page.
pub(crate) fn by_session(method: &str, path: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("cookie", COOKIE)
        .header("sec-fetch-site", "same-origin")
        .header("x-csrf-token", "csrf")
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

/// A request with an API key.
pub(crate) fn by_key(method: &str, path: &str, content_type: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer oct_good")
        .header("content-type", content_type)
        .body(Body::from(body.to_owned()))
        .expect("a request")
}
