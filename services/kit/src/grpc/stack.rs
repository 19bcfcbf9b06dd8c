//! The layers before a handler, as two services: what is seen of every call, and what lets it pass.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{extract::Request, response::Response};
use futures::future::BoxFuture;
use metrics::Histogram;
use octroi_core::ErrorKind;
use octroi_proto::errors::v1::ErrorReason;
use tokio::sync::Semaphore;
use tonic::{Code, Status, service::Routes};
use tower::{Service, layer::layer_fn};
use tracing::Instrument as _;

use crate::{
    auth::{self, Auth},
    status::refusal,
    telemetry,
};

/// Puts our layers before a service's routes. Each is a step of one function rather than a layer of its own: every
/// layer would copy the service and allocate its future once more for each call.
#[must_use]
pub fn stack(routes: Routes, auth: Auth, permits: Arc<Semaphore>, deadline: Duration) -> Routes {
    let timings = Arc::new(Timings::new());
    let router = routes.into_axum_router().layer(layer_fn(move |inner| Observed {
        inner: Guarded {
            inner,
            auth: auth.clone(),
            permits: permits.clone(),
            deadline,
        },
        timings: timings.clone(),
    }));
    Routes::from(router).prepare()
}

/// What every service here answers.
type Answer = BoxFuture<'static, Result<Response, Infallible>>;

/// Every call is counted and timed, and traced where spans are sent.
#[derive(Clone)]
struct Observed<S> {
    inner: S,
    timings: Arc<Timings>,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Answer {
        // A path that is no method comes from anybody, and each would be a series and a span name of its own.
        let method = auth::method_of(request.uri().path()).unwrap_or(UNKNOWN);
        let (start, timings) = (Instant::now(), self.timings.clone());
        let span = telemetry::tracing_on().then(|| span(method, &request));
        let call = self.inner.call(request);
        let seen = async move {
            let response = call.await?;
            // Only a refusal has its code in the head; what goes well has it in the trailers.
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
            timings.record(method, code, start.elapsed());
            Ok(response)
        };
        match span {
            Some(span) => Box::pin(seen.instrument(span)),
            None => Box::pin(seen),
        }
    }
}

fn span(method: &'static str, request: &Request) -> tracing::Span {
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
    span
}

/// The name of every path that is no method of ours.
const UNKNOWN: &str = "unknown";
/// gRPC has 17 codes, from 0.
const CODES: usize = 17;

/// A series for each method and code, looked up once.
struct Timings(HashMap<&'static str, [OnceLock<Histogram>; CODES]>);

impl Timings {
    fn new() -> Self {
        let methods = auth::TABLE.iter().map(|(method, _)| *method);
        let series = || std::array::from_fn(|_| OnceLock::new());
        Self(
            methods
                .chain([UNKNOWN])
                .map(|method| (method, series()))
                .collect(),
        )
    }

    fn record(&self, method: &'static str, code: Code, took: Duration) {
        let place = usize::try_from(i32::from(code)).unwrap_or(0);
        let Some(series) = self.0.get(method).and_then(|codes| codes.get(place)) else {
            return;
        };
        let series = series.get_or_init(|| {
            metrics::histogram!("octroi_grpc_call_seconds", "method" => method, "code" => format!("{code:?}"))
        });
        series.record(took);
    }
}

/// Lets a call pass that may: one of a caller that is known and may use the method, while there is room, within its
/// time. What tonic refuses by itself gets the details that our own refusals have.
#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    auth: Auth,
    permits: Arc<Semaphore>,
    /// What a handler has where the caller says nothing, and at the most.
    deadline: Duration,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Answer {
        // Beyond what the process can hold, refuse at once rather than queue.
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            metrics::counter!("octroi_grpc_shed_total").increment(1);
            let message = "the process has as many calls as it can hold";
            return refused(&refusal(ErrorKind::OverLimit, ErrorReason::Overloaded, message));
        };
        // Nobody unknown goes further, and each only to what the table gives it.
        if let Err(status) = self.auth.admit(&mut request) {
            return refused(&status);
        }
        let timeout = timeout(&request, self.deadline);
        let call = tokio::time::timeout(timeout, self.inner.call(request));
        Box::pin(async move {
            let response = match call.await {
                Ok(response) => typed_response(response?),
                Err(_) => deadline_passed().into_http(),
            };
            drop(permit);
            Ok(response)
        })
    }
}

fn refused(status: &Status) -> Answer {
    let response = status.clone().into_http();
    Box::pin(std::future::ready(Ok(response)))
}

fn timeout(request: &Request, most: Duration) -> Duration {
    let asked = request.headers().get("grpc-timeout");
    let asked = asked.and_then(|value| parse_timeout(value.to_str().ok()?));
    asked.map_or(most, |asked| asked.min(most))
}

fn typed_response(response: Response) -> Response {
    if response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => with_reason(&status).into_http(),
        _ => response,
    }
}

/// A message of a stream that cannot be read is told with a reason, as it is of any other call. Who went away is told
/// nothing.
#[must_use]
pub fn unread(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange | Code::Internal => with_reason(&status),
        _ => status,
    }
}

/// The same refusal with a reason; tonic's own come without.
#[must_use]
pub fn with_reason(status: &Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if message.contains("message length too large") => {
            let limit = "the message is larger than this method accepts";
            refusal(ErrorKind::OverLimit, ErrorReason::BodyTooLarge, limit)
        }
        // "failed to decode Protobuf message", "Unexpected EOF decoding stream", "protocol error: received message with ...".
        Code::Internal if message.contains("decod") || message.starts_with("protocol error") => refusal(
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
        let timings = Arc::new(Timings::new());
        let router = axum::Router::new()
            .fallback(async || "served")
            .layer(layer_fn(move |inner| Observed {
                inner,
                timings: timings.clone(),
            }));
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
            (
                Status::internal("Unexpected EOF decoding stream."),
                "BODY_MALFORMED",
            ),
            (
                Status::internal(
                    "protocol error: received message with compressed-flag but no grpc-encoding was specified",
                ),
                "BODY_MALFORMED",
            ),
            (Status::unimplemented(""), "METHOD_NOT_FOUND"),
        ] {
            let reason_found = crate::status::reason_of(&with_reason(&status)).map(ErrorReason::name);
            assert_eq!(reason_found, Some(reason));
        }
    }
}
