//! Runs components: one in a process of its own, or all in one.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    component::{Component, Context},
    config, grpc,
    health::{self, Health},
    http,
    lifecycle::Lifecycle,
    telemetry,
};

/// How long a stream that its client keeps open, or a reader of the admin address, may hold up the end.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// What a process listens on, whatever runs in it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// gRPC.
    pub grpc: config::Grpc,
    /// Liveness, readiness and metrics.
    pub admin: config::Admin,
    /// Whether schemas are brought up to date; else a schema that lacks a migration ends the start.
    pub migrate: bool,
}

/// A process whose components run.
#[derive(Debug)]
pub struct Running {
    /// Every address that the process listens on, with what it is for.
    pub addresses: Vec<(&'static str, SocketAddr)>,
    /// What is ready and what is not.
    pub health: Health,
    threads: Vec<JoinHandle<()>>,
    lifecycle: Lifecycle,
    admin: Admin,
}

/// The admin address, which answers until everything else has ended, so that a stop can be watched.
#[derive(Debug)]
struct Admin {
    over: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Waits until the process was asked to stop and everything in it has ended.
    pub async fn stopped(self) {
        self.lifecycle.drained().await;
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                drop(thread.join());
            }
        });
        drop(tokio::time::timeout(LINGER_MAX, joined).await);
        self.admin.over.cancel();
        drop(tokio::time::timeout(LINGER_MAX, self.admin.serving).await);
    }
}

/// Starts the components: migrations, links, consumers, tasks, gRPC, then readiness. Nothing is answered
/// before all are built.
///
/// # Errors
/// A sentence that says what could not be started.
pub async fn start(
    components: Vec<Component>,
    context: &Context,
    settings: &Settings,
    telemetry: &telemetry::Guard,
    lifecycle: Lifecycle,
) -> anyhow::Result<Running> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health::default();
    let admin = TcpListener::bind(settings.admin.listen)
        .await
        .with_context(|| format!("admin.listen: cannot listen on {}", settings.admin.listen))?;
    let mut addresses = vec![("admin", admin.local_addr()?)];
    for component in &components {
        migrate(component, settings.migrate).await?;
        health.begin(component.name, &component.probes);
        if let Some(grpc) = &component.grpc {
            reporter
                .set_service_status(grpc.service_name, tonic_health::ServingStatus::NotServing)
                .await;
        }
    }

    let permits = Arc::new(Semaphore::new(settings.grpc.concurrency_max));
    let mut routes = Routes::default().add_service(health_service);
    if settings.grpc.reflection {
        routes = with_reflection(routes)?;
    }
    let mut any_grpc = false;
    for component in &components {
        let Some(grpc) = &component.grpc else { continue };
        let stacked = grpc::stack(
            grpc.routes.clone(),
            context.auth.clone(),
            permits.clone(),
            grpc.deadline,
        );
        context.links.fill(component.name, &stacked);
        routes = merged(routes, stacked);
        any_grpc = true;
    }
    #[cfg(feature = "bus")]
    start_bus(&components, context, &lifecycle)?;

    let mut threads = Vec::new();
    if any_grpc {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (address, serving) = grpc::serve(
            settings.grpc.listen,
            &with_fallback(routes).prepare(),
            cores,
            &lifecycle.soft,
        )
        .with_context(|| format!("grpc.listen: cannot listen on {}", settings.grpc.listen))?;
        addresses.push(("grpc", address));
        threads = serving;
    }
    for component in components {
        addresses.extend(component.addresses);
        for task in component.tasks {
            lifecycle.spawn((task.work)(lifecycle.soft.clone()));
        }
        let service_name = component.grpc.as_ref().map(|grpc| grpc.service_name);
        let watch = health.clone().watch(
            component.name,
            service_name,
            component.probes,
            reporter.clone(),
            lifecycle.soft.clone(),
        );
        lifecycle.spawn(watch);
    }
    lifecycle.spawn(telemetry::upkeep(telemetry.metrics(), lifecycle.soft.clone()));
    let router = health::admin_router(health.clone(), telemetry.metrics());
    let over = CancellationToken::new();
    let serving = tokio::spawn(http::serve(admin, router, over.clone()));
    health.started();
    let (soft, stopping) = (lifecycle.soft.clone(), health.clone());
    lifecycle.spawn(async move {
        soft.cancelled().await;
        stopping.stopping();
    });
    Ok(Running {
        addresses,
        health,
        threads,
        lifecycle,
        admin: Admin { over, serving },
    })
}

#[cfg(feature = "db")]
async fn migrate(component: &Component, up: bool) -> anyhow::Result<()> {
    let Some((db, migrator)) = &component.schema else {
        return Ok(());
    };
    let name = component.name;
    if up {
        return crate::db::migrate_up(db, migrator)
            .await
            .with_context(|| format!("{name}: the schema cannot be migrated"));
    }
    let pending = crate::db::pending_migrations(db, migrator).await?;
    anyhow::ensure!(
        pending.is_empty(),
        "{name}: the schema lacks migrations {pending:?}; run `octroi migrate up`"
    );
    Ok(())
}

#[cfg(not(feature = "db"))]
async fn migrate(_: &Component, _: bool) -> anyhow::Result<()> {
    Ok(())
}

#[cfg(feature = "bus")]
fn start_bus(components: &[Component], context: &Context, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    for consumer in components.iter().flat_map(|component| &component.consumers) {
        context.bus.subscribe(consumer.queue, consumer.handler.clone())?;
    }
    let (bus, stop) = (context.bus.clone(), lifecycle.soft.clone());
    lifecycle.spawn(async move { bus.run(stop).await });
    Ok(())
}

fn with_reflection(routes: Routes) -> anyhow::Result<Routes> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(octroi_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes
        .add_service(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?))
}

/// Refuses calls of services that nobody has here as it refuses methods that no service has.
fn with_fallback(routes: Routes) -> Routes {
    let refuse = async || grpc::method_not_found().into_http::<tonic::body::Body>();
    Routes::from(routes.into_axum_router().fallback(refuse))
}

/// Both have the fallback of tonic; one must go before two routers can be one.
fn merged(routes: Routes, more: Routes) -> Routes {
    let more = more.into_axum_router().reset_fallback();
    Routes::from(routes.into_axum_router().merge(more))
}

#[cfg(test)]
#[cfg(feature = "bus")]
mod tests;
