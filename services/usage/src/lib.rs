//! Usage: the ledger of usage events and what is summed from it.

mod config;
mod consumer;
mod convert;
pub mod domain;
mod error;
mod grpc;
mod service;
mod store;

use std::time::Duration;

use octroi_kit::{
    component::{Component, Context, Grpc, Task},
    db::Db,
    directory::Directory,
    grpc::BATCH_BYTES_MAX,
    outbox::Wake,
    page::PageTokens,
};
use octroi_proto::usage::v1::usage_service_server::{SERVICE_NAME, UsageServiceServer};
use tonic::service::Routes;

pub use self::{
    config::Config,
    error::Error,
    service::{Batch, Recorded, Service},
};

/// The compiled-in configuration of this service.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The service's name, which is also its schema's and its caller's.
pub const NAME: &str = "usage";

/// The schema's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule or the database cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    Ok(with_service(context).await?.0)
}

/// Builds the service, and answers its use cases as well: for a program that calls them in process, as the bench does.
///
/// # Errors
/// Where the configuration breaks a rule or the database cannot be reached.
pub async fn with_service(context: &Context) -> anyhow::Result<(Component, Service)> {
    let config: Config = context.config.section(NAME)?;
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    let wake = Wake::default();
    let directory = Directory::new(context.links.to("account", NAME)?);
    let service = Service::new(&db, directory, &wake, &config);
    let (prune, months) = (service.clone(), service.clone());
    let (reports, sweep) = (service.clone(), service.clone());
    let look = service.clone();
    let pages = PageTokens::new(&context.auth.derived_key("usage pages"));
    let server = UsageServiceServer::new(grpc::Handler::new(service.clone(), pages))
        .max_decoding_message_size(BATCH_BYTES_MAX);

    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    component.consumers.push(consumer::rollup(&db, &wake));
    component.consumers.push(consumer::rollup_corrections(&db, &wake));
    component
        .tasks
        .push(Task::new("slices", move |stop| prune.prune_slices(stop)));
    component
        .tasks
        .push(Task::new("months", move |stop| months.keep_months(stop)));
    component
        .tasks
        .push(Task::new("reports", move |stop| reports.run_usage_reports(stop)));
    component.tasks.push(Task::new("report_sweep", move |stop| {
        sweep.sweep_usage_reports(stop)
    }));
    if config.anomalies.enabled {
        let wake = wake.clone();
        component.tasks.push(Task::new("anomalies", move |stop| {
            look.look_at_hours(config.anomalies, wake, stop)
        }));
    }
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: Duration::from_secs(10),
    });
    Ok((component, service))
}
