//! Tells people what happened to their account.
//!
//! An event arrives, and its consumer writes a notice, once; where somebody need act, it notes in the same
//! transaction that the notice also goes out by e-mail. The courier asks the account service who owns the
//! account, writes one e-mail for each owner in the owner's language, and brings it out. A notice becomes
//! text when it is read. What this service owns and does not own is in its README.

pub mod accounts;
pub mod channels;
pub mod config;
mod consumer;
mod convert;
mod courier;
pub mod domain;
pub mod error;
mod grpc;
pub mod service;
pub mod store;
pub mod templates;

use std::time::Duration;

use anyhow::Context as _;
use octroi_kit::{
    component::{Component, Context, Grpc, Task},
    db::Db,
    grpc::MESSAGE_BYTES_MAX,
    outbox::Wake,
    page::PageTokens,
};
use octroi_proto::notification::v1::notification_service_server::{NotificationServiceServer, SERVICE_NAME};
use tonic::service::Routes;

pub use self::{config::Config, error::Error};
use crate::{
    accounts::Accounts, channels::email::Mail, grpc::Handler, service::Service, templates::Templates,
};

/// The name of the service, its schema and its caller.
pub const NAME: &str = "notification";
/// Every key of the `[notification]` section, with its comment and default.
pub const DEFAULTS: &str = include_str!("../defaults.toml");
/// The migrations of the service's schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How long a call may take where the caller does not say.
const DEADLINE: Duration = Duration::from_secs(10);

/// Builds the service.
///
/// # Errors
/// A sentence that says which key is wrong, or what cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    let mail = Mail::new(&config.mail)?;
    let templates = Templates::new()?;
    let accounts = Accounts::new(&context.links.to("account", NAME)?);
    let pages = PageTokens::new(&context.auth.derived_key("notification pages"));
    let db = Db::connect(&config.database, NAME, context.sandbox)
        .await
        .context("notification.database")?;
    let clock = db.clock().clone();
    let service = Service::new(db.clone(), accounts, templates, pages, &config.mail);

    let wake = Wake::default();
    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    let handler = Handler::new(service.clone(), clock.clone());
    let server = NotificationServiceServer::new(handler).max_decoding_message_size(MESSAGE_BYTES_MAX);
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: DEADLINE,
    });
    component
        .consumers
        .push(consumer::thresholds(&db, &wake, config.mail.per_account_day_max));
    component
        .consumers
        .push(consumer::anomalies(&db, &wake, config.mail.per_account_day_max));
    component.tasks.push(Task::new("courier", move |stop| {
        courier::run(service, mail, clock, stop)
    }));
    Ok(component)
}
