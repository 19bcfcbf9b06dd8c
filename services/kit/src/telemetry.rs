//! Logs, traces and metrics.
//!
//! Spans go out over OTLP where an endpoint is configured; without one none is opened. The context
//! travels as W3C `traceparent` over gRPC metadata and bus headers, and is stored with queued work.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::atomic::{AtomicBool, Ordering},
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::{propagation::TextMapPropagator as _, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{LogFormat, Telemetry};

/// The header and metadata key of a trace context.
pub const TRACEPARENT: &str = "traceparent";

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
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[
            0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ])?
        .install_recorder()?;
    Ok(Guard { provider, metrics })
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
