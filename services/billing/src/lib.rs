//! Plans, subscriptions, invoices and payments.
//!
//! `grpc` converts and calls [`service`], which decides by [`domain`] and keeps what it decided through
//! `store`. `push` hands the result to the services that act on it, `jobs` does what comes due by itself,
//! [`payments`] is the port to whoever takes the money, [`pdf`] shows an invoice to people.

mod config;
mod convert;
pub mod domain;
mod error;
mod grpc;
pub mod jobs;
pub mod payments;
pub mod pdf;
mod push;
pub mod service;
mod store;

use std::{sync::Arc, time::Duration};

use octroi_kit::{
    component::{Component, Context, Grpc, Task},
    db::Db,
    directory::Directory,
    outbox::Wake,
};
use octroi_proto::billing::v1::billing_service_server::{BillingServiceServer, SERVICE_NAME};
use tonic::service::Routes;

pub use self::{
    config::{Config, PaymentsConfig, PaymentsProvider},
    error::Error,
    push::Push,
};

/// Every key of the `[billing]` section, with its comment and default.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The migrations of the `billing` schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

const NAME: &str = "billing";
const DEADLINE: Duration = Duration::from_secs(10);

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule or the database cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    config.check_sandbox(context.sandbox)?;
    let payments = payments::Payments::new(&config.payments)?;
    let directory = Directory::new(context.links.to("account", NAME)?);
    let (quota, usage) = (context.links.to("quota", NAME)?, context.links.to("usage", NAME)?);
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    let wake = Wake::default();
    let push = Arc::new(Push::new(db.clone(), quota, usage));
    let service = service::Service::new(db.clone(), wake.clone(), directory, payments, push.clone());
    let handler = grpc::Grpc::new(service, db.clock().clone());

    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(BillingServiceServer::new(handler)),
        deadline: DEADLINE,
    });
    let (catalog, entitlements, waiting, periods) = (push.clone(), push, db.clone(), db);
    component.tasks.extend([
        Task::new("catalog_push", move |stop| jobs::push_catalog(catalog, stop)),
        Task::new("entitlement_push", move |stop| {
            jobs::push_entitlements(waiting, entitlements, stop)
        }),
        Task::new("period_roll", move |stop| jobs::roll_periods(periods, stop)),
    ]);
    Ok(component)
}
