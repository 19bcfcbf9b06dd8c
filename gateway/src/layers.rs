//! What stands before every route.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use octroi_kit::{auth::PRINCIPAL_HEADER, telemetry};
use octroi_proto::errors::v1::ErrorReason;
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};
use tracing::Instrument as _;

use crate::{body, problem::Problem};

/// The header that names a request in logs and in the answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a request may take, its body's arrival included. Services have shorter deadlines of their own.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// What a client may not say about itself; who it is comes from its session or key alone.
const IDENTITY_HEADERS: [&str; 4] = [PRINCIPAL_HEADER, "x-tenant-id", "x-user-id", "x-account-id"];

/// What every answer says to browsers, unless it says something stricter itself.
const SECURITY_HEADERS: [(HeaderName, &str); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=()",
    ),
];

/// Puts our layers before the routes. A request passes them from the top to the bottom, its answer from the
/// bottom to the top.
pub(crate) fn stack(routes: Router, over_tls: bool) -> Router {
    routes.layer(
        ServiceBuilder::new()
            // Browsers are told what they may do with any answer, a fault's included.
            .layer(from_fn_with_state(over_tls, security_layer))
            // Every request has a name that people can copy from the answer.
            .layer(from_fn(request_id_layer))
            // Every request is counted and timed, and is the root of what the services trace.
            .layer(from_fn(observe_layer))
            // A panic is one request's fault and not the connection's.
            .layer(CatchPanicLayer::custom(panicked))
            // Nobody holds a place for ever, however slowly the body comes.
            .layer(from_fn(deadline_layer))
            // Long lists travel small.
            .layer(CompressionLayer::new().gzip(true))
            // Identity comes from the session or the key, never from what a client writes.
            .layer(from_fn(identity_layer))
            // A body is read up to here; routes that take more say so.
            .layer(DefaultBodyLimit::max(body::BYTES_MAX)),
    )
}

async fn security_layer(State(over_tls): State<bool>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_api {
        // Answers belong to one account; no cache may keep them.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if over_tls {
        let a_year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    }
    response
}

/// The caller's name for the request where it is a plain one, so that both sides' logs can be joined.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(is_plain)
    });
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    })
}

async fn request_id_layer(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A method's name in measures and traces. A client may make up as many methods as it likes, and each label
/// is kept for ever: what no route serves has one name.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

async fn observe_layer(request: Request, next: Next) -> Response {
    // The route as it is declared, never the path that somebody typed.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let method = method_label(request.method());
    let start = Instant::now();
    let response = if telemetry::tracing_on() {
        let name = format!("{method} {route}");
        let span = tracing::info_span!(
            "http",
            otel.name = name,
            otel.kind = "server",
            http.route = route,
            http.request.id = text(request.headers(), REQUEST_ID.as_str()),
            http.response.status_code = tracing::field::Empty,
        );
        telemetry::set_parent(&span, text(request.headers(), telemetry::TRACEPARENT));
        traced(request, next).instrument(span).await
    } else {
        next.run(request).await
    };
    let status = response.status().as_u16().to_string();
    metrics::histogram!(
        "octroi_gateway_request_seconds", "method" => method, "route" => route, "status" => status
    )
    .record(start.elapsed());
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn traced(request: Request, next: Next) -> Response {
    let traceparent = telemetry::traceparent().and_then(|text| HeaderValue::try_from(text).ok());
    let mut response = next.run(request).await;
    tracing::Span::current().record("http.response.status_code", response.status().as_u16());
    if let Some(traceparent) = traceparent {
        response.headers_mut().insert(telemetry::TRACEPARENT, traceparent);
    }
    response
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::fault("a route panicked").into_response()
}

async fn deadline_layer(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(ErrorReason::DeadlinePassed, "the request took too long").into_response(),
    }
}

async fn identity_layer(mut request: Request, next: Next) -> Response {
    for name in IDENTITY_HEADERS {
        request.headers_mut().remove(name);
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access;

    #[test]
    fn every_method_that_is_served_has_its_name_and_all_others_have_one() {
        for (method, _, _) in access::TABLE {
            let parsed: Method = method.parse().expect("a method");
            assert_eq!(method_label(&parsed), *method);
        }
        assert_eq!(method_label(&Method::HEAD), "HEAD");
        for made_up in ["PUT", "TRACE", "BREW", "get"] {
            let method: Method = made_up.parse().expect("a method");
            assert_eq!(method_label(&method), "other", "{made_up}");
        }
    }
}
