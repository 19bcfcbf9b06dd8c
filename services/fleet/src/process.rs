//! One process: its context, its components, its start and its end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use octroi_kit::{
    bus::{Bus, Topology},
    component::{Component, Context},
    config::{Links as LinksSection, Loader},
    dead_letter::DeadLetterTables,
    lifecycle::Lifecycle,
    link::Links,
    run::{self, Running, Settings},
    telemetry,
};
use octroi_proto::event::QUEUES;

use crate::{
    cli::{RunArgs, Service},
    config,
};

/// Runs `services` until a signal.
///
/// # Errors
/// A sentence that says what could not be started.
pub async fn run(loader: &Loader, services: &[Service], args: &RunArgs) -> anyhow::Result<ExitCode> {
    config::validate(loader)?;
    config::require_databases(loader, services)?;
    let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
    let telemetry = telemetry::init(&loader.section("telemetry")?, &names.join("-"))?;
    let lifecycle = Lifecycle::new();
    let data_dir: PathBuf = loader.section("data_dir")?;
    let context = context(loader, services, &data_dir)?;
    let running = start(&context, services, false, &telemetry, &lifecycle).await?;
    announce(&running.addresses, args.addresses_file.as_deref())?;
    watch_signals(&lifecycle);
    running.stopped().await;
    telemetry.flush();
    Ok(ExitCode::SUCCESS)
}

/// What the components of this process are built from.
///
/// # Errors
/// [`octroi_kit::config::ConfigError`].
pub fn context(loader: &Loader, services: &[Service], data_dir: &Path) -> anyhow::Result<Context> {
    let auth = config::auth(loader, data_dir)?;
    let local: Vec<&str> = services.iter().map(|service| service.name()).collect();
    let links = Links::new(&local, &loader.section::<LinksSection>("links")?, auth.clone())?;
    let dead_letters = Arc::new(DeadLetterTables::default());
    let topology = Topology::new(QUEUES.iter().copied())?;
    let bus = Bus::new(
        &loader.section::<config::Bus>("bus")?.0,
        topology,
        dead_letters.clone(),
    )?;
    Ok(Context {
        config: loader.clone(),
        sandbox: loader.section("sandbox")?,
        links,
        auth,
        bus,
        dead_letters,
    })
}

/// Builds and starts the components.
///
/// # Errors
/// A sentence that says what could not be started.
pub async fn start(
    context: &Context,
    services: &[Service],
    migrate: bool,
    telemetry: &telemetry::Guard,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Running> {
    let mut components = Vec::new();
    for service in Service::ALL
        .into_iter()
        .filter(|service| services.contains(service))
    {
        components.push(
            build(service, context)
                .await
                .with_context(|| format!("{} cannot start", service.name()))?,
        );
    }
    let settings = Settings {
        grpc: context.config.section("grpc")?,
        admin: context.config.section("admin")?,
        migrate,
    };
    run::start(components, context, &settings, telemetry, lifecycle.clone()).await
}

async fn build(service: Service, context: &Context) -> anyhow::Result<Component> {
    match service {
        Service::Account => octroi_account::component(context).await,
        Service::Quota => octroi_quota::component(context).await,
        Service::Usage => octroi_usage::component(context).await,
        Service::Billing => octroi_billing::component(context).await,
        Service::Notification => octroi_notification::component(context).await,
        Service::Gateway => octroi_gateway::component(context).await,
    }
}

/// Logs where the process listens, and writes it to a file for programs that started it on port 0.
///
/// # Errors
/// Where the file cannot be written.
pub fn announce(addresses: &[(&'static str, SocketAddr)], file: Option<&Path>) -> anyhow::Result<()> {
    for (what, address) in addresses {
        tracing::info!(what, %address, "listening");
    }
    let Some(file) = file else { return Ok(()) };
    let addresses: BTreeMap<&str, String> = addresses
        .iter()
        .map(|(what, address)| (*what, address.to_string()))
        .collect();
    // Whoever waits for the file must never read half of it.
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, serde_json::to_string(&addresses)?)?;
    std::fs::rename(&temporary, file).with_context(|| format!("cannot write {}", file.display()))
}

/// Lets signals stop the process.
pub fn watch_signals(lifecycle: &Lifecycle) {
    let lifecycle = lifecycle.clone();
    tokio::spawn(async move {
        if let Err(error) = lifecycle.watch_signals().await {
            tracing::error!(error = %error, "signals cannot be watched");
        }
    });
}
