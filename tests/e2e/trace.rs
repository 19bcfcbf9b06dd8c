//! One request is one trace, from the edge to whoever is told of it in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use octroi_tests::harness::fleet::{Builder, Fleet, Topology, eventually, roomy_hour, tell};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::ResourceSpans,
};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::rest::{new_key, signed_up};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN: &str = "00f067aa0ba902b7";

/// One span: which process, what, and below what.
#[derive(Clone, Debug)]
struct Span {
    process: String,
    name: String,
    id: String,
    parent: String,
}

/// Takes spans and keeps those of our trace.
#[derive(Clone, Debug, Default)]
struct Sink {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Sink {
    async fn start() -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let sink = Self::default();
        let service = TraceServiceServer::new(sink.clone());
        // It ends with the test's runtime.
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok((sink, address))
    }

    fn seen(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, resource_spans: ResourceSpans) {
        let attributes = resource_spans
            .resource
            .map(|resource| resource.attributes)
            .unwrap_or_default();
        let process = attributes
            .into_iter()
            .find(|attribute| attribute.key == "service.name");
        let process = match process
            .and_then(|attribute| attribute.value)
            .and_then(|value| value.value)
        {
            Some(Value::StringValue(name)) => name,
            _ => String::new(),
        };
        let spans = resource_spans
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        let ours = spans
            .filter(|span| hex::encode(&span.trace_id) == TRACE)
            .map(|span| Span {
                process: process.clone(),
                name: span.name,
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
            });
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ours);
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            self.take(resource_spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

mod one_process {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_check_is_one_trace_from_the_edge_to_the_notice() -> anyhow::Result<()> {
        super::a_check_is_one_trace_from_the_edge_to_the_notice(super::Topology::OneProcess).await
    }
}

mod split {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_check_is_one_trace_from_the_edge_to_the_notice() -> anyhow::Result<()> {
        super::a_check_is_one_trace_from_the_edge_to_the_notice(super::Topology::Split).await
    }
}

fn traced(topology: Topology, sink: SocketAddr) -> Builder {
    Fleet::builder(topology)
        .set("telemetry.otlp_endpoint", format!("http://{sink}"))
        .environment("OTEL_BSP_SCHEDULE_DELAY", "200")
}

async fn a_check_is_one_trace_from_the_edge_to_the_notice(topology: Topology) -> Result<()> {
    let (sink, address) = Sink::start().await?;
    tell(traced(topology, address), async |fleet| {
        roomy_hour().await;
        let ann = signed_up(fleet, "ann@example.com").await?;
        let (_, program) = new_key(&ann, &["quota.check"]).await?;
        // Both exports of the hour at once, so that somebody is told.
        let body = json!({ "mode": "consume", "request_id": "r-1", "items": [{ "metric": "exports.run", "amount": 2 }] });
        let traceparent = format!("00-{TRACE}-{CLIENTS_SPAN}-01");
        let answer = program
            .send(Method::POST, "/api/quota/check", |request| request.header("traceparent", traceparent).json(&body))
            .await?;
        let returned = answer.header("traceparent").to_owned();
        answer.expect(200)?;
        ensure!(returned.contains(TRACE), "the answer names another trace: {returned}");
        eventually("the trace is whole", async || whole(topology, &sink.seen())).await
    })
    .await
}

/// Every step is there, each below one that is there.
fn whole(topology: Topology, spans: &[Span]) -> Result<()> {
    for (process, name) in [
        ("octroi-gateway", "POST /api/quota/check"),
        ("octroi-quota", "/octroi.quota.v1.QuotaService/CheckQuota"),
        ("octroi-usage", "/octroi.usage.v1.UsageService/TrackUsageBatch"),
        ("octroi-usage", "consume usage.rollup"),
        ("octroi-quota", "consume quota.usage"),
        ("octroi-notification", "consume notification.thresholds"),
    ] {
        let process = if topology == Topology::Split {
            process
        } else {
            "octroi-all"
        };
        let found = spans
            .iter()
            .any(|span| span.process == process && span.name == name);
        let names: BTreeSet<(&str, &str)> = spans
            .iter()
            .map(|span| (span.process.as_str(), span.name.as_str()))
            .collect();
        ensure!(found, "no {name} of {process} among {names:?}");
    }
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    for span in spans {
        ensure!(
            span.parent == CLIENTS_SPAN || by_id.contains_key(span.parent.as_str()),
            "{} of {} hangs in the air",
            span.name,
            span.process
        );
    }
    let roots = spans.iter().filter(|span| span.parent == CLIENTS_SPAN);
    let [root] = roots.collect::<Vec<_>>()[..] else {
        anyhow::bail!("more than one begins the trace: {spans:?}")
    };
    ensure!(
        root.name == "POST /api/quota/check",
        "it begins with {}",
        root.name
    );
    let told = spans
        .iter()
        .find(|span| span.name == "consume notification.thresholds")
        .context("nobody was told")?;
    let cause = by_id.get(told.parent.as_str()).context("without a cause")?;
    ensure!(
        cause.name == "consume quota.usage",
        "told because of {}",
        cause.name
    );
    Ok(())
}
