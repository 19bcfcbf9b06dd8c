//! `octroi all`: every service in one process, with a PostgreSQL of its own unless one is given.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use octroi_core::{ErrorKind, ServiceError};
use octroi_kit::{
    component::Context,
    config::{Auth as AuthSection, Loader},
    db::DatabaseError,
    lifecycle::Lifecycle,
    run::Running,
    telemetry,
};

use crate::{
    cli::{RunArgs, Service},
    config, output,
    postgres::{self, PrivatePostgres, State},
    process, seed,
};

/// How long the demo may take where callers stand in the way, and the pause between tries.
const SEEDING_MAX: Duration = Duration::from_secs(300);
const SEEDING_PAUSE: Duration = Duration::from_secs(1);

/// The name of the database that is prepared.
const DATABASE: &str = "octroi";

/// Runs everything until a signal, or until its PostgreSQL is gone for good.
///
/// # Errors
/// A sentence that says what could not be started.
pub async fn run(loader: &Loader, args: &RunArgs) -> anyhow::Result<ExitCode> {
    config::validate(loader)?;
    let telemetry = telemetry::init(&loader.section("telemetry")?, "all")?;
    let data_dir = config::data_dir(loader)?;
    mint_tokens(loader, &data_dir)?;

    let (loader, private) = with_database(loader, &data_dir).await?;
    let outcome = serve(&loader, &data_dir, private.as_ref(), args, &telemetry).await;
    if let Some(private) = private {
        private.stop().await;
    }
    telemetry.flush();
    outcome
}

async fn serve(
    loader: &Loader,
    data_dir: &Path,
    private: Option<&PrivatePostgres>,
    args: &RunArgs,
    telemetry: &telemetry::Guard,
) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new();
    let context = process::context(loader, &Service::ALL, data_dir)?;
    let running = process::start(&context, &Service::ALL, true, telemetry, &lifecycle).await?;
    process::watch_signals(&lifecycle);
    let failed = watch_postgres(private, &lifecycle);
    let seeding = tokio::select! {
        seeding = seed_in_the_end(&context, data_dir) => Some(seeding),
        () = lifecycle.soft.cancelled() => None,
    };
    if let Some(seeding) = seeding {
        let sign_ins = seeding.context("the demo could not be made")?;
        process::announce(&running.addresses, args.addresses_file.as_deref())?;
        greet(&running, private, &sign_ins);
    }
    running.stopped().await;
    if let Some(why) = failed.await? {
        anyhow::bail!("PostgreSQL is gone: {why}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Seeds, and tries again where callers are faster: the services serve already, and whoever waited for them
/// may have every connection for a while.
async fn seed_in_the_end(context: &Context, data_dir: &Path) -> anyhow::Result<seed::SignIns> {
    let since = tokio::time::Instant::now();
    loop {
        match seed::run(context, data_dir).await {
            Err(error) if will_pass(&error) && since.elapsed() < SEEDING_MAX => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the demo is not whole yet; trying again"
                );
                tokio::time::sleep(SEEDING_PAUSE).await;
            }
            seeded => return seeded,
        }
    }
}

/// Whether the reason is that somebody is away or busy.
fn will_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let account = cause
            .downcast_ref::<octroi_account::Error>()
            .map(ServiceError::kind);
        let database = cause.downcast_ref::<DatabaseError>().map(ServiceError::kind);
        let call = cause
            .downcast_ref::<tonic::Status>()
            .map(|status| ErrorKind::from_grpc_code(status.code().into()));
        let kind = account.or(database).or(call);
        kind.is_some_and(|kind| {
            matches!(
                kind,
                ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::OverLimit
            )
        })
    })
}

/// Tokens given by configuration are somebody else's to make.
fn mint_tokens(loader: &Loader, data_dir: &Path) -> anyhow::Result<()> {
    let auth: AuthSection = loader.section("auth")?;
    if auth.tokens_dir.as_os_str().is_empty() {
        octroi_kit::auth::mint(&data_dir.join("tokens")).context("tokens cannot be written")?;
    }
    Ok(())
}

/// The configuration with the addresses that a running `octroi all` prepared, for a command beside it.
/// Nothing is started and nothing is prepared.
///
/// # Errors
/// Where an address is missing and no `octroi all` runs in the data directory.
pub fn addressed(loader: &Loader) -> anyhow::Result<Loader> {
    if config::databases_are_given(loader)? {
        return Ok(loader.clone());
    }
    let data_dir: PathBuf = loader.section("data_dir")?;
    let database: config::Database = loader.section("database")?;
    let (url, secret) = if database.url.is_empty() {
        postgres::running_in(&data_dir).with_context(|| {
            format!(
                "not every service has a database.url, and no `octroi all` runs in {}",
                data_dir.display()
            )
        })?
    } else {
        (database.url.expose().to_owned(), prepared_secret(&data_dir)?)
    };
    let mut addressed = loader.clone();
    for service in Service::WITH_DATABASE {
        let url = postgres::service_url(&url, DATABASE, service.name(), &secret)?;
        addressed = addressed.or_set(&format!("{}.database.url", service.name()), &url);
    }
    Ok(addressed)
}

/// What the services' passwords derive from in a database that somebody else runs.
fn prepared_secret(data_dir: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(data_dir.join("tokens/principal.secret")).context("the data directory has no secret")
}

/// The configuration with an address for every service, and the PostgreSQL that was started for it.
async fn with_database(
    loader: &Loader,
    data_dir: &Path,
) -> anyhow::Result<(Loader, Option<PrivatePostgres>)> {
    let database: config::Database = loader.section("database")?;
    if config::databases_are_given(loader)? {
        return Ok((loader.clone(), None));
    }
    let (url, secret, private) = if database.url.is_empty() {
        let mut options = postgres::Options::new(data_dir);
        options.binaries = (!database.bin.as_os_str().is_empty()).then_some(database.bin);
        let private = postgres::start(options).await?;
        tracing::info!("{}", private.summary());
        (private.url().to_owned(), private.secret().to_vec(), Some(private))
    } else {
        (database.url.expose().to_owned(), prepared_secret(data_dir)?, None)
    };
    let names: Vec<&str> = Service::WITH_DATABASE
        .iter()
        .map(|service| service.name())
        .collect();
    let urls = postgres::prepare(&url, DATABASE, &names, &secret).await?;
    let mut loader = loader.clone();
    for (service, url) in &urls {
        loader = loader.or_set(&format!("{service}.database.url"), url);
    }
    Ok((loader, private))
}

/// Tells what happens to the private PostgreSQL, and stops the process where it is gone for good. The
/// answer is why, where that was the reason.
fn watch_postgres(
    private: Option<&PrivatePostgres>,
    lifecycle: &Lifecycle,
) -> tokio::task::JoinHandle<Option<String>> {
    let state = private.map(PrivatePostgres::state);
    let lifecycle = lifecycle.clone();
    tokio::spawn(async move {
        let mut state = state?;
        loop {
            tokio::select! {
                () = lifecycle.soft.cancelled() => return None,
                changed = state.changed() => if changed.is_err() { return None },
            }
            let now = state.borrow_and_update().clone();
            match now {
                State::Restarting { attempt, why } => {
                    tracing::warn!(attempt, "PostgreSQL is started again: {why}")
                }
                State::Running { pid } => tracing::info!(pid, "PostgreSQL runs"),
                State::Failed { why } => {
                    lifecycle.soft.cancel();
                    return Some(why);
                }
                State::Starting | State::Stopped => {}
            }
        }
    })
}

fn greet(running: &Running, private: Option<&PrivatePostgres>, sign_ins: &seed::SignIns) {
    let address = |what: &str| -> Option<SocketAddr> {
        running
            .addresses
            .iter()
            .find(|(name, _)| *name == what)
            .map(|(_, address)| *address)
    };
    output::say("");
    if let Some(gateway) = address("gateway") {
        output::say(&format!("Octroi runs: http://{gateway}/"));
        output::say(&format!("  API description   http://{gateway}/openapi.json"));
    }
    if let Some(grpc) = address("grpc") {
        output::say(&format!(
            "  gRPC              {grpc} (reflection is on unless switched off)"
        ));
    }
    if let Some(admin) = address("admin") {
        output::say(&format!(
            "  health, metrics   http://{admin}/readyz http://{admin}/metrics"
        ));
    }
    if let Some(private) = private {
        output::say(&format!("  PostgreSQL        {}", private.summary()));
    }
    let password = sign_ins
        .password
        .as_deref()
        .unwrap_or("the password that this database was first filled with");
    output::say(&format!(
        "  demo account      {} / {password}",
        sign_ins.demo_email
    ));
    output::say(&format!(
        "  operator          {} / {password}",
        sign_ins.operator_email
    ));
    output::say(&format!("  service tokens    {}", sign_ins.tokens_dir.display()));
    output::say("Ctrl-C stops it; the data stays.");
}
