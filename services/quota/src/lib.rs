//! Quota: decides whether an account may do something now.

mod config;
mod consumer;
mod convert;
pub mod counters;
pub mod domain;
mod error;
mod grpc;
mod service;
mod store;

use std::time::Duration;

use octroi_kit::{
    component::{Component, Context, Grpc, Probe},
    db::Db,
    directory::Directory,
    grpc::MESSAGE_BYTES_MAX,
    outbox::Wake,
};
use octroi_proto::{
    quota::v1::quota_service_server::{QuotaServiceServer, SERVICE_NAME},
    usage::v1::usage_service_client::UsageServiceClient,
};
use tonic::service::Routes;

pub use self::{
    config::{Backend, Config, CountersConfig},
    error::Error,
};
use self::{counters::Counters, service::Service};

/// The compiled-in configuration of this service.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The service's name, which is also its schema's and its caller's.
pub const NAME: &str = "quota";

/// The schema's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule, or the database or the counters cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    let counters = Counters::connect(&config.counters).await?;
    let wake = Wake::default();
    let directory = Directory::new(context.links.to("account", NAME)?);
    let usage = UsageServiceClient::new(context.links.to("usage", NAME)?);
    let service = Service::new(&config, &db, directory, usage, counters.clone());
    let server = QuotaServiceServer::new(grpc::Handler::new(service.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);

    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    component.consumers.push(consumer::usage(&db, &wake, &service));
    component.consumers.push(consumer::entitlements(&db, &wake));
    component.probes.push(Probe::new("counters", move || {
        let counters = counters.clone();
        async move { counters.ping().await.map_err(|error| error.to_string()) }
    }));
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: Duration::from_secs(2),
    });
    Ok(component)
}
