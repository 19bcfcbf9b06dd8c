//! The edge: REST for browsers and programs, problem+json, the OpenAPI document.
//!
//! It keeps nothing and decides nothing: it reads strictly, finds out who asks, calls the services and
//! writes their answers as JSON. Times come from those answers; there is no clock here.

mod access;
mod amount;
mod body;
mod cloud_event;
mod config;
mod convert;
mod edge;
mod instant;
mod key;
mod layers;
mod openapi;
mod page;
mod problem;
mod query;
mod reason;
mod routes;
mod session;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use anyhow::Context as _;
use octroi_kit::{
    component::{Component, Context, Task},
    http,
};
use tokio::net::TcpListener;

pub use config::Config;

/// The gateway's configuration, with a comment a key.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Its name as a component and as a caller of services.
const NAME: &str = "gateway";

/// Builds the gateway and binds its address.
///
/// # Errors
/// A sentence that says which key is wrong, or that the address cannot be listened on.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    let edge = edge::Edge::new(&context.links, &context.auth, config.clone())?;
    let router = routes::router(&edge);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("gateway.listen: cannot listen on {}", config.listen))?;
    let mut component = Component::new(NAME);
    component.addresses.push((NAME, listener.local_addr()?));
    component
        .tasks
        .push(Task::new(NAME, move |stop| http::serve(listener, router, stop)));
    Ok(component)
}

/// The OpenAPI document, as `/openapi.json` serves it.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::document()
}
