//! `octroi migrate`: brings schemas up to date, or back.

use anyhow::Context as _;
use clap::Subcommand;
use octroi_kit::{
    config::{ConfigError, Loader},
    db::{self, Db},
};
use sqlx::migrate::Migrator;

use crate::{cli::Service, config, output};

/// Which way.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Apply what is missing, in every schema whose address is configured.
    Up {
        /// Only these services, each of which must have an address.
        services: Vec<Service>,
    },
    /// Take one service's schema back.
    Down {
        /// Which.
        service: Service,
        /// The last migration that stays; 0 takes back everything.
        #[arg(long)]
        to: i64,
    },
}

/// Does it.
///
/// # Errors
/// A sentence that says what could not be changed.
pub async fn execute(loader: &Loader, command: &Command) -> anyhow::Result<()> {
    config::validate(loader)?;
    match command {
        Command::Up { services } => {
            for service in wanted(loader, services)? {
                up(loader, service).await?;
            }
            Ok(())
        }
        Command::Down { service, to } => {
            let (db, migrator) = schema(loader, *service).await?;
            db::migrate_down(&db, migrator, *to).await?;
            output::say(&format!("{}: back at {to}", service.name()));
            Ok(())
        }
    }
}

/// The services whose schemas are brought up to date, in the order in which that is done. Nothing is touched
/// before all of them are known to have an address.
fn wanted(loader: &Loader, named: &[Service]) -> Result<Vec<Service>, ConfigError> {
    let all = Service::WITH_DATABASE;
    if !named.is_empty() {
        config::require_databases(loader, named)?;
        return Ok(all
            .into_iter()
            .filter(|service| named.contains(service))
            .collect());
    }
    let without = config::without_address(loader, &all)?;
    if without.len() == all.len() {
        config::require_databases(loader, &all)?;
    }
    for service in &without {
        output::say(&format!("{}: no address is configured, left out", service.name()));
    }
    Ok(all
        .into_iter()
        .filter(|service| !without.contains(service))
        .collect())
}

async fn up(loader: &Loader, service: Service) -> anyhow::Result<()> {
    let (db, migrator) = schema(loader, service).await?;
    let pending = db::pending_migrations(&db, migrator).await?;
    db::migrate_up(&db, migrator).await?;
    output::say(&format!("{}: {} applied", service.name(), pending.len()));
    Ok(())
}

/// A service's database, with the clock that its processes have, and its migrations.
///
/// # Errors
/// Where its address is missing or leads nowhere.
pub async fn schema(loader: &Loader, service: Service) -> anyhow::Result<(Db, &'static Migrator)> {
    let migrator: &'static Migrator = match service {
        Service::Account => &octroi_account::MIGRATOR,
        Service::Usage => &octroi_usage::MIGRATOR,
        Service::Quota => &octroi_quota::MIGRATOR,
        Service::Billing => &octroi_billing::MIGRATOR,
        Service::Notification => &octroi_notification::MIGRATOR,
        Service::Gateway => anyhow::bail!("the gateway has no schema"),
    };
    config::require_databases(loader, &[service])?;
    let database = config::database(loader, service)?.context("the gateway has no schema")?;
    let sandbox = loader.section("sandbox")?;
    Ok((Db::connect(&database, service.name(), sandbox).await?, migrator))
}
