//! Accounts, members, sessions, API keys and the audit log.
//!
//! [`component`] is the service as a fleet runs it. A deployment that begins with members of its own, such
//! as an operator, builds the [`Service`] once, gives it to [`component_of`], and after the start (which
//! brings the schema up to date) asks it to [`Service::ensure_member`]:
//!
//! ```ignore
//! let service = octroi_account::service(&context).await?;
//! let component = octroi_account::component_of(&context, &service);
//! // ... octroi_kit::run::start(vec![component, ...]) ...
//! service.ensure_member(seed, service.now()).await?;
//! ```

mod config;
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
    grpc::MESSAGE_BYTES_MAX,
    outbox::Wake,
    page::PageTokens,
};
use octroi_proto::account::v1::account_service_server::{AccountServiceServer, SERVICE_NAME};
use tonic::service::Routes;

pub use self::{
    config::{Config, PasswordsConfig},
    error::Error,
    service::{Seed, Service},
};

/// The compiled-in configuration of this service.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The service's name, which is also its schema's and its caller's.
pub const NAME: &str = "account";

/// The schema's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long a call may take where the caller does not say.
const DEADLINE: Duration = Duration::from_secs(10);

/// Builds what the component and a deployment's own seeding share. It touches no table.
///
/// # Errors
/// Where the configuration breaks a rule or the database cannot be reached.
pub async fn service(context: &Context) -> anyhow::Result<Service> {
    let config: Config = context.config.section(NAME)?;
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    Ok(Service::new(&db, &Wake::default(), &context.auth, config.passwords).await?)
}

/// The component over a service.
#[must_use]
pub fn component_of(context: &Context, service: &Service) -> Component {
    let pages = PageTokens::new(&context.auth.derived_key("account pages"));
    let handler = grpc::Handler::new(service.clone(), pages);
    let server = AccountServiceServer::new(handler).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut component = Component::new(NAME).with_schema(context, service.db(), &MIGRATOR, service.wake());
    let db = service.db().clone();
    component.tasks.push(Task::new("sessions", move |stop| {
        service::clean_sessions(db, stop)
    }));
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: DEADLINE,
    });
    component
}

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule or the database cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    Ok(component_of(context, &service(context).await?))
}
