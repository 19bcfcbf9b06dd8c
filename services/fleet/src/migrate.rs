//! `octroi migrate`: brings schemas up to date, or back.

use clap::Subcommand;
use octroi_kit::{
    config::Loader,
    db::{self, DatabaseConfig, Db},
};
use sqlx::migrate::Migrator;

use crate::{cli::Service, config, output};

/// Which way.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Apply what is missing, in every schema whose address is configured.
    Up {
        /// Only these services.
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
            for service in Service::WITH_DATABASE {
                if services.is_empty() || services.contains(&service) {
                    up(loader, service).await?;
                }
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

async fn up(loader: &Loader, service: Service) -> anyhow::Result<()> {
    let (db, migrator) = schema(loader, service).await?;
    let pending = db::pending_migrations(&db, migrator).await?;
    db::migrate_up(&db, migrator).await?;
    output::say(&format!("{}: {} applied", service.name(), pending.len()));
    Ok(())
}

/// A service's database and migrations.
///
/// # Errors
/// Where its address is missing or leads nowhere.
pub async fn schema(loader: &Loader, service: Service) -> anyhow::Result<(Db, &'static Migrator)> {
    let (database, migrator): (DatabaseConfig, &'static Migrator) = match service {
        Service::Account => (
            loader.section::<octroi_account::Config>("account")?.database,
            &octroi_account::MIGRATOR,
        ),
        Service::Usage => (
            loader.section::<octroi_usage::Config>("usage")?.database,
            &octroi_usage::MIGRATOR,
        ),
        Service::Quota => (
            loader.section::<octroi_quota::Config>("quota")?.database,
            &octroi_quota::MIGRATOR,
        ),
        Service::Billing => (
            loader.section::<octroi_billing::Config>("billing")?.database,
            &octroi_billing::MIGRATOR,
        ),
        Service::Notification => (
            loader
                .section::<octroi_notification::Config>("notification")?
                .database,
            &octroi_notification::MIGRATOR,
        ),
        Service::Gateway => anyhow::bail!("the gateway has no schema"),
    };
    let key = format!("{}.database.url", service.name());
    if database.url.is_empty() {
        return Err(octroi_kit::config::ConfigError::new(key, "must be given").into());
    }
    Ok((Db::connect(&database, service.name(), false).await?, migrator))
}
