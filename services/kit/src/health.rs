//! Whether the process lives and is ready: gRPC health, and `/livez`, `/readyz`, `/metrics` for operators.
//!
//! Every service starts NOT_SERVING and serves once all its probes have answered well. Liveness asks
//! nothing: a process whose database is away must not be killed for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::component::Probe;

const INTERVAL: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(3);

/// What is wrong, by component and probe; a component that was never asked is not ready.
#[derive(Clone, Debug, Default)]
pub struct Health {
    failing: Arc<RwLock<BTreeMap<String, String>>>,
}

impl Health {
    /// What is wrong now, a line each.
    #[must_use]
    pub fn failing(&self) -> Vec<String> {
        let failing = self.failing.read().unwrap_or_else(PoisonError::into_inner);
        failing
            .iter()
            .map(|(probe, problem)| format!("{probe}: {problem}"))
            .collect()
    }

    fn set(&self, probe: String, problem: Option<String>) {
        let mut failing = self.failing.write().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => failing.insert(probe, problem),
            None => failing.remove(&probe),
        };
    }

    /// Notes that nobody has asked yet.
    pub(crate) fn begin(&self, component: &str, probes: &[Probe]) {
        for probe in probes {
            self.set(
                format!("{component}/{}", probe.name),
                Some("not asked yet".into()),
            );
        }
        self.set("process".into(), Some("starting".into()));
    }

    /// Notes that everything was started.
    pub(crate) fn started(&self) {
        self.set("process".into(), None);
    }

    /// Notes that the process was asked to stop: nobody shall send it anything new.
    pub(crate) fn stopping(&self) {
        self.set("process".into(), Some("stopping".into()));
    }

    /// Asks the probes of one component until `stop`, and tells gRPC health the answer.
    pub(crate) async fn watch(
        self,
        component: &'static str,
        service_name: Option<&'static str>,
        probes: Vec<Probe>,
        reporter: HealthReporter,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let mut serving = true;
            for probe in &probes {
                let answer = tokio::time::timeout(PROBE_MAX, (probe.check)()).await;
                let problem = answer.unwrap_or_else(|_| Err("no answer in time".into())).err();
                serving &= problem.is_none();
                self.set(format!("{component}/{}", probe.name), problem);
            }
            report(&reporter, service_name, serving).await;
        }
        report(&reporter, service_name, false).await;
    }
}

async fn report(reporter: &HealthReporter, service_name: Option<&'static str>, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    if let Some(name) = service_name {
        reporter.set_service_status(name, status).await;
    }
}

/// `/livez`, `/readyz` and `/metrics`.
pub(crate) fn admin_router(health: Health, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(async move || metrics.render()))
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let failing = health.failing();
    if failing.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failing.join("\n") + "\n")
    }
}
