//! A program with routes for every way in which a request may end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Extension, Router,
    body::Body,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode};
use octroi_client::{Client, Meter, Quota, QuotaLayer, Service, protect::QuotaBuilder};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet};
use tokio::net::TcpListener;

use crate::{
    asks::upsert_account,
    degraded::{ALLOWED, DENIED},
};

/// 2 an hour, where nothing was bought.
pub(super) const EXPORTS: &str = "exports.run";
/// 60 an hour.
pub(super) const REQUESTS: &str = "api.requests";
/// Nobody limits it.
pub(super) const BYTES: &str = "api.bytes";

const ACCOUNT_HEADER: &str = "x-account-id";

/// The program, and an account that it serves.
pub(super) struct Site {
    pub(super) app: Clients,
    pub(super) account: String,
    pub(super) quota: Quota,
    pub(super) address: String,
    handled: Arc<AtomicUsize>,
    client: reqwest::Client,
}

/// An answer with its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        let header = self.headers.get(name).and_then(|value| value.to_str().ok());
        header.unwrap_or_default()
    }

    pub(super) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }
}

/// The client of a program beside the fleet.
pub(crate) fn client(fleet: &Fleet) -> Result<Client> {
    let token = std::fs::read_to_string(fleet.token_file(APPLICATION))?;
    let address = |service: &str| format!("http://{}", fleet.address(service));
    Ok(Client::builder(address("account"))
        .address_of(Service::Quota, address("quota"))
        .address_of(Service::Usage, address("usage"))
        .token(token.trim())
        .build()?)
}

impl Site {
    pub(super) async fn start(fleet: &Fleet) -> Result<Self> {
        Self::start_with(fleet, |quota| quota).await
    }

    pub(super) async fn start_with(
        fleet: &Fleet,
        describe: impl FnOnce(QuotaBuilder) -> QuotaBuilder,
    ) -> Result<Self> {
        let app = fleet.clients(APPLICATION)?;
        let account = "acme".to_owned();
        upsert_account(&app, &account).await?;
        let quota = Quota::builder(&client(fleet)?)
            .account_from_header(ACCOUNT_HEADER)
            .error_pages("https://octroi.example/errors/");
        let quota = describe(quota).build()?;
        let handled = Arc::new(AtomicUsize::new(0));
        let routes = routes(&quota, &handled);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        #[expect(clippy::disallowed_methods, reason = "the program is somebody else's")]
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self {
            app,
            account,
            quota,
            address,
            handled,
            client: reqwest::Client::new(),
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        self.get_as(path, Some(&self.account)).await
    }

    pub(super) async fn get_as(&self, path: &str, account: Option<&str>) -> Result<Answer> {
        self.send(path, account, &[]).await
    }

    pub(super) async fn send(
        &self,
        path: &str,
        account: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = self.client.get(format!("http://{}{path}", self.address));
        if let Some(account) = account {
            request = request.header(ACCOUNT_HEADER, account);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.text().await.unwrap_or_default(),
        })
    }

    /// How many requests reached a handler.
    pub(super) fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }
}

fn routes(quota: &Quota, handled: &Arc<AtomicUsize>) -> Router {
    let exports = || quota.metric(EXPORTS);
    let metered = || quota.metric(REQUESTS).amount_by_meter();
    let counted = handled.clone();
    let count = axum::middleware::map_request(move |request: axum::extract::Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { request }
    });
    let by_header = |head: &http::request::Parts| {
        let amount = head
            .headers
            .get("x-amount")
            .and_then(|amount| amount.to_str().ok());
        amount.and_then(|amount| amount.parse().ok()).unwrap_or(0)
    };
    let by_extension = |head: &http::response::Parts| head.extensions.get::<Used>().map_or(0, |used| used.0);
    let key = |head: &http::request::Parts| {
        let key = head.headers.get("idempotency-key")?;
        key.to_str().ok().map(str::to_owned)
    };
    let protected = |handler: axum::routing::MethodRouter, layer: QuotaLayer| {
        handler.route_layer(count.clone()).route_layer(layer)
    };
    Router::new()
        .route("/fixed", protected(get(ok), exports()))
        .route("/before", protected(get(fails), exports().before()))
        .route("/look", protected(get(ok), exports().look_only()))
        .route("/premium", protected(get(ok), quota.feature("premium.templates")))
        .route("/wrong", protected(get(ok), quota.metric("no.such.metric")))
        .route("/fails", protected(get(fails), exports()))
        .route("/panics", protected(get(panics), exports()))
        .route("/slow", protected(get(slow), exports()))
        .route(
            "/renewed",
            protected(get(slow), exports().hold_for(Duration::from_secs(1))),
        )
        .route(
            "/keyed",
            protected(get(keyed), quota.metric(REQUESTS).request_id_by(key)),
        )
        .route(
            "/breaks",
            protected(
                get(breaks),
                quota.metric(BYTES).and_metric(REQUESTS).amount_by_meter(),
            ),
        )
        .route(
            "/sized",
            protected(get(sized), exports().and_metric(BYTES).amount_by_bytes()),
        )
        .route(
            "/silent",
            protected(get(silent), exports().and_metric(BYTES).amount_by_bytes()),
        )
        .route(
            "/asked",
            protected(get(ok), quota.metric(REQUESTS).amount_by_request(by_header)),
        )
        .route(
            "/answered",
            protected(
                get(answered),
                quota.metric(REQUESTS).amount_by_response(by_extension),
            ),
        )
        .route("/denied", protected(get(ok), quota.metric(DENIED)))
        .route("/allowed", protected(get(ok), quota.metric(ALLOWED)))
        .route(
            "/allowed-before",
            protected(get(ok), quota.metric(ALLOWED).before()),
        )
        .route("/soft", protected(get(ok), quota.metric(ALLOWED).soft()))
        .route("/rows", protected(get(rows), metered()))
        .route("/endless", protected(get(endless), metered()))
        .route(
            "/bytes",
            protected(get(bytes), quota.metric(BYTES).amount_by_bytes()),
        )
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
}

/// How much a handler says that it used.
#[derive(Clone)]
struct Used(u64);

async fn ok() -> &'static str {
    "done"
}

async fn fails() -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn panics() -> StatusCode {
    panic!("a bug")
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(3)).await;
    "done"
}

/// Does what it is told.
async fn keyed(headers: HeaderMap) -> Response {
    match headers.get("x-what").map(HeaderValue::as_bytes) {
        Some(b"fails") => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(b"slow") => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    "done".into_response()
}

/// Says how long its body is before it begins.
async fn sized() -> Response {
    let body = Body::from_stream(stream::iter(
        ["hello", "world"].map(Ok::<_, std::convert::Infallible>),
    ));
    ([(http::header::CONTENT_LENGTH, "10")], body).into_response()
}

async fn silent() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Writes two rows and fails.
async fn breaks(Extension(meter): Extension<Meter>) -> Body {
    Body::from_stream(stream::iter(0..3).map(move |row| {
        if row == 2 {
            return Err(std::io::Error::other("it broke"));
        }
        meter.add(1);
        Ok(Bytes::from(format!("{row}\n")))
    }))
}

async fn answered() -> Response {
    (Extension(Used(7)), "done").into_response()
}

/// Writes five rows.
async fn rows(Extension(meter): Extension<Meter>) -> Body {
    Body::from_stream(stream::iter(0..5).map(move |row| {
        meter.add(1);
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{row}\n")))
    }))
}

/// Writes three rows, and never another.
async fn endless(Extension(meter): Extension<Meter>) -> Body {
    let rows = stream::iter(0..3).map(move |row| {
        meter.add(1);
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{row}\n")))
    });
    Body::from_stream(rows.chain(stream::pending()))
}

async fn bytes() -> Vec<u8> {
    vec![b'x'; 12_345]
}
