//! Logs, traces and metrics.
//!
//! Spans go out over OTLP where an endpoint is configured; without one none is opened. The context
//! travels as W3C `traceparent` over gRPC metadata and bus headers, and is stored with queued work.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{propagation::TextMapPropagator as _, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{LogFormat, Telemetry};

/// The header and metadata key of a trace context.
pub const TRACEPARENT: &str = "traceparent";

/// How often what histograms recorded is counted into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static TRACING_ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are sent anywhere.
#[must_use]
pub fn tracing_on() -> bool {
    TRACING_ON.load(Ordering::Relaxed)
}

/// What must be kept while the process runs, and flushed at its end.
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    metrics: PrometheusHandle,
}

impl Guard {
    /// The metrics page.
    #[must_use]
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends what was not sent yet.
    pub fn flush(&self) {
        if let Some(provider) = &self.provider {
            drop(provider.force_flush());
            drop(provider.shutdown());
        }
    }
}

/// Starts logs, traces and metrics, once a process, inside the runtime that sends the spans.
///
/// # Errors
/// Where the exporter cannot be built or another subscriber was installed before.
pub fn init(config: &Telemetry, process: &str) -> anyhow::Result<Guard> {
    let provider = if config.otlp_endpoint.is_empty() {
        None
    } else {
        Some(provider(config, process)?)
    };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("octroi"))
            .with_filter(EnvFilter::new(
                "info,h2=off,hyper=off,tonic=off,tower=off,sqlx=off,opentelemetry=off",
            ))
    });
    let filter = EnvFilter::try_new(&config.filter)?;
    let logs = match config.format {
        LogFormat::Text => {
            // Colors are for people who look on; in a file they are noise.
            let colors = std::io::stderr().is_terminal();
            tracing_subscriber::fmt::layer()
                .with_ansi(colors)
                .with_writer(std::io::stderr)
                .boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .with_writer(std::io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(traces)
        .with(logs.with_filter(filter))
        .try_init()?;
    TRACING_ON.store(provider.is_some(), Ordering::Relaxed);
    let metrics = recorder()?.install_recorder()?;
    Ok(Guard { provider, metrics })
}

/// Histograms are of seconds, but for those that are named here.
fn recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&[
            0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ])?
        .set_buckets_for_metric(
            Matcher::Full("octroi_usage_commit_events".to_owned()),
            &[
                1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
                20_000.0,
            ],
        )
}

/// Counts what histograms recorded into their buckets until `stop`. Without it every single value would be kept
/// until somebody reads the metrics page.
pub(crate) async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    every(UPKEEP_EVERY, stop, || metrics.run_upkeep()).await;
}

async fn every(interval: Duration, stop: CancellationToken, mut work: impl FnMut()) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => work(),
        }
    }
}

fn provider(config: &Telemetry, process: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.otlp_endpoint)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(format!("octroi-{process}"))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// The trace context of the current span, where spans are sent.
#[must_use]
pub fn traceparent() -> Option<String> {
    if !tracing_on() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes `span` a child of the context that came from elsewhere.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    // An error means that spans are not sent, and then nothing is lost.
    drop(span.set_parent(TraceContextPropagator::new().extract(&carrier)));
}

#[cfg(test)]
impl Guard {
    /// A guard over a recorder that is nobody else's.
    pub(crate) fn of_a_test() -> Self {
        let metrics = recorder().expect("buckets").build_recorder().handle();
        Self {
            provider: None,
            metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_events_have_other_buckets_than_seconds() {
        let recorder = recorder().expect("buckets").build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("octroi_usage_commit_events").record(700.0);
            metrics::histogram!("octroi_grpc_call_seconds").record(0.02);
        });
        let page = recorder.handle().render();
        for line in [
            "octroi_usage_commit_events_bucket{le=\"500\"} 0",
            "octroi_usage_commit_events_bucket{le=\"1000\"} 1",
            "octroi_usage_commit_events_bucket{le=\"20000\"} 1",
            "octroi_grpc_call_seconds_bucket{le=\"0.01\"} 0",
            "octroi_grpc_call_seconds_bucket{le=\"0.025\"} 1",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in\n{page}");
        }
    }

    #[tokio::test]
    async fn upkeep_is_done_again_and_again_until_the_stop() {
        let stop = CancellationToken::new();
        let mut done = 0;
        every(Duration::from_millis(1), stop.clone(), || {
            done += 1;
            if done == 3 {
                stop.cancel();
            }
        })
        .await;
        assert!(done >= 3, "{done}");
    }
}
