//! What stands before every gRPC handler, and how gRPC is served.
//!
//! The layers sit on the routes and not on the server, because a call from within the process does not
//! pass the server.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use octroi_core::ErrorKind;
use octroi_proto::errors::v1::ErrorReason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, service::Routes, transport::Server};
use tracing::Instrument as _;

use crate::{
    auth::{self, Auth},
    status::refusal,
    telemetry,
};

/// The largest message of a unary call, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// The largest message of an event batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Puts our layers before a service's routes. A request passes them from the top to the bottom.
#[must_use]
pub fn stack(routes: Routes, auth: Auth, permits: Arc<Semaphore>, deadline: Duration) -> Routes {
    let router = routes
        .into_axum_router()
        // A handler has the caller's time, or the service's own where the caller gave none.
        .layer(from_fn_with_state(deadline, deadline_layer))
        // Nobody unknown goes further, and each only to what the table gives it.
        .layer(from_fn_with_state(auth, auth::layer))
        // Beyond what the process can hold, refuse at once rather than queue.
        .layer(from_fn_with_state(permits, shed_layer))
        // What tonic refuses by itself gets the details that our own refusals have.
        .layer(from_fn(typed_error_layer))
        // Every call is counted and timed, and traced where spans are sent.
        .layer(from_fn(observe_layer));
    Routes::from(router).prepare()
}

async fn observe_layer(request: Request, next: Next) -> Response {
    // A path that is no method comes from anybody, and each would be a series and a span name of its own.
    let method = auth::method_of(request.uri().path()).unwrap_or("unknown");
    let start = Instant::now();
    let response = if telemetry::tracing_on() {
        let span = tracing::info_span!(
            "grpc",
            otel.name = method,
            otel.kind = "server",
            rpc.method = method
        );
        let parent = request
            .headers()
            .get(telemetry::TRACEPARENT)
            .and_then(|value| value.to_str().ok());
        telemetry::set_parent(&span, parent);
        next.run(request).instrument(span).await
    } else {
        next.run(request).await
    };
    // Only a refusal has its code in the head; what goes well has it in the trailers.
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    metrics::histogram!("octroi_grpc_call_seconds", "method" => method, "code" => format!("{code:?}"))
        .record(start.elapsed());
    response
}

async fn typed_error_layer(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => typed(&status).into_http(),
        _ => response,
    }
}

/// The same refusal with a reason; tonic's own come without.
fn typed(status: &Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if message.contains("message length too large") => {
            let limit = "the message is larger than this method accepts";
            refusal(ErrorKind::OverLimit, ErrorReason::BodyTooLarge, limit)
        }
        Code::Internal if message.contains("decode") => refusal(
            ErrorKind::Invalid,
            ErrorReason::BodyMalformed,
            "the message is not what the contract says",
        ),
        Code::Unimplemented if message.contains("ompress") => refusal(
            ErrorKind::Invalid,
            ErrorReason::BodyMalformed,
            "compressed messages are not accepted",
        ),
        Code::Unimplemented => method_not_found(),
        Code::Cancelled | Code::DeadlineExceeded => deadline_passed(),
        _ => {
            tracing::error!(grpc.code = ?status.code(), error = message, "a call failed without a reason");
            refusal(
                ErrorKind::Internal,
                ErrorReason::Internal,
                "an internal fault; the log has it",
            )
        }
    }
}

/// The refusal of a path that is no method of ours.
pub(crate) fn method_not_found() -> Status {
    let status = refusal(
        ErrorKind::NotFound,
        ErrorReason::MethodNotFound,
        "there is no such method here",
    );
    Status::with_details(
        Code::Unimplemented,
        status.message(),
        status.details().to_vec().into(),
    )
}

async fn shed_layer(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = permits.try_acquire() else {
        metrics::counter!("octroi_grpc_shed_total").increment(1);
        let message = "the process has as many calls as it can hold";
        return refusal(ErrorKind::OverLimit, ErrorReason::Overloaded, message).into_http();
    };
    next.run(request).await
}

async fn deadline_layer(State(default): State<Duration>, request: Request, next: Next) -> Response {
    let asked = request
        .headers()
        .get("grpc-timeout")
        .and_then(|value| parse_timeout(value.to_str().ok()?));
    let timeout = asked.map_or(default, |asked| asked.min(default));
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => deadline_passed().into_http(),
    }
}

fn deadline_passed() -> Status {
    refusal(
        ErrorKind::Timeout,
        ErrorReason::DeadlinePassed,
        "the call did not end within its deadline",
    )
}

/// Reads a `grpc-timeout` as the gRPC protocol writes it: at most 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Serves `routes` on one current-thread runtime per core, all on one port, until `stop` is cancelled;
/// calls in flight then end first. Answers with the address that was bound.
///
/// A work-stealing scheduler costs a third of an empty call, so gRPC has none.
///
/// # Errors
/// Where the port is taken or no thread can be made.
pub fn serve(
    listen: SocketAddr,
    routes: &Routes,
    cores: usize,
    stop: &CancellationToken,
) -> std::io::Result<(SocketAddr, Vec<std::thread::JoinHandle<()>>)> {
    // Sockets with SO_REUSEPORT share a port silently, with another process of ours too: ask first.
    drop(bind(listen, false)?);
    let first = bind(listen, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < cores.max(1) {
        listeners.push(bind(address, true)?);
    }
    let mut threads = Vec::new();
    for (core, listener) in listeners.into_iter().enumerate() {
        let (routes, stop) = (routes.clone(), stop.clone());
        threads.push(
            std::thread::Builder::new()
                .name(format!("grpc-{core}"))
                .spawn(move || {
                    if let Err(error) = serve_on_this_thread(listener, routes, stop) {
                        tracing::error!(error = %error, "a gRPC thread ended");
                    }
                })?,
        );
    }
    Ok((address, threads))
}

fn serve_on_this_thread(
    listener: std::net::TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        server()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await?;
        Ok(())
    })
}

/// The limits of one connection. tonic hands `None` to hyper for the streams and the local resets, which
/// takes away the limits that hyper has by itself (RUSTSEC-2024-0003), so both are set here.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(200)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true)
}

fn bind(listen: SocketAddr, share: bool) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("1n", Some(Duration::from_nanos(1))),
            ("24H", Some(Duration::from_secs(86_400))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("5é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    /// What anybody sends is counted, but not under a name of their choice.
    #[tokio::test]
    async fn a_path_that_is_no_method_makes_no_series_of_its_own() {
        use axum::body::Body;
        use tower::ServiceExt as _;

        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let guard = metrics::set_default_local_recorder(&recorder);
        let router = axum::Router::new()
            .fallback(async || "served")
            .layer(from_fn(observe_layer));
        for path in [
            "/octroi.quota.v1.QuotaService/CheckQuota",
            "/octroi.quota.v1.QuotaService/a1b2c3",
            "/octroi.quota.v1.QuotaService/d4e5f6",
        ] {
            let request = Request::builder()
                .uri(path)
                .body(Body::empty())
                .expect("a request");
            router.clone().oneshot(request).await.expect("an answer");
        }
        drop(guard);
        let page = recorder.handle().render();
        let counted = |method: &str| {
            let series = format!("octroi_grpc_call_seconds_count{{method=\"{method}\",code=\"Ok\"}}");
            page.lines()
                .find_map(|line| line.strip_prefix(&series)?.trim().parse::<u32>().ok())
        };
        assert_eq!(counted("unknown"), Some(2), "{page}");
        assert_eq!(
            counted("/octroi.quota.v1.QuotaService/CheckQuota"),
            Some(1),
            "{page}"
        );
        assert!(!page.contains("a1b2c3"), "{page}");
    }

    #[test]
    fn a_taken_port_is_refused_even_by_a_socket_that_shares() {
        let taken = bind("127.0.0.1:0".parse().expect("an address"), true).expect("a free port");
        let address = taken.local_addr().expect("bound");
        let error = serve(address, &Routes::default(), 1, &CancellationToken::new()).expect_err("taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_tonic_refuses_gets_a_reason() {
        for (status, reason) in [
            (
                Status::out_of_range("Error, decoded message length too large: found 5 bytes"),
                "BODY_TOO_LARGE",
            ),
            (
                Status::internal("failed to decode Protobuf message: invalid tag"),
                "BODY_MALFORMED",
            ),
            (Status::unimplemented(""), "METHOD_NOT_FOUND"),
        ] {
            let reason_found = crate::status::reason_of(&typed(&status)).map(ErrorReason::name);
            assert_eq!(reason_found, Some(reason));
        }
    }
}
