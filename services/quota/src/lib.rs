//! Quota: decides whether an account may do something now.

pub mod answers;
mod config;
mod consumer;
mod convert;
pub mod domain;
mod error;
mod escrow;
mod grpc;
mod hold_id;
mod service;
mod store;

use std::time::Duration;

use octroi_kit::{
    component::{Component, Context, Grpc, Task},
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

use self::{answers::Answers, escrow::Escrow, hold_id::HoldIds, service::Service};
pub use self::{
    config::{AnswersConfig, Backend, Config, SlicesConfig},
    error::Error,
};

/// The compiled-in configuration of this service.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The service's name, which is also its schema's and its caller's.
pub const NAME: &str = "quota";

/// The schema's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule, or the database or Redis cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    let answers = Answers::connect(&config.answers).await?;
    let wake = Wake::default();
    let directory = Directory::new(context.links.to("account", NAME)?);
    let usage = UsageServiceClient::new(context.links.to("usage", NAME)?);
    let escrow = Escrow::new(&db, usage.clone(), config.slices);
    let service = Service::new(&db, directory, usage, escrow.clone(), answers);
    let holds = HoldIds::new(context.auth.derived_key("quota holds"));
    let server = QuotaServiceServer::new(grpc::Handler::new(service.clone(), holds))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);

    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    component.consumers.push(consumer::usage(&db, &wake, &service));
    component
        .consumers
        .push(consumer::entitlements(&db, &wake, &service));
    component.consumers.push(consumer::zones(&db, &wake, &service));
    let (watching, expiring) = (service.clone(), service);
    let flushing = escrow.clone();
    component
        .tasks
        .push(Task::new("buffered", move |stop| flushing.flush(stop)));
    component
        .tasks
        .push(Task::new("slices", move |stop| escrow.sweep(stop)));
    component
        .tasks
        .push(Task::new("limits", move |stop| watching.watch_limits(stop)));
    component.tasks.push(Task::new("overrides", move |stop| {
        expiring.expire_overrides(stop)
    }));
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: Duration::from_secs(2),
    });
    Ok(component)
}
