//! The configuration of a process: all defaults, the file, the environment.

use std::path::{Path, PathBuf};

use octroi_kit::{
    auth::Auth,
    bus,
    config::{
        Admin, Auth as AuthSection, ConfigError, Grpc, Links as LinksSection, Loader, Secret, Section,
        Telemetry,
    },
    link::Links,
};
use serde::{Deserialize, Serialize};

use crate::cli::Service;

const DEFAULTS: &str = include_str!("../defaults.toml");

/// The `[database]` section: what `octroi all` uses for every service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A superuser's address; empty means a private PostgreSQL.
    pub url: Secret,
    /// Where the private PostgreSQL's programs are; empty means to look for them.
    pub bin: PathBuf,
}

impl Section for Database {
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The `[bus]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Bus(pub bus::Config);

impl Section for Bus {
    fn validate(&self) -> Result<(), ConfigError> {
        self.0
            .validate()
            .map_err(|error| ConfigError::new(format!("bus.{}", error.key), error.problem))
    }
}

/// Merges defaults, file and environment.
///
/// # Errors
/// [`ConfigError`].
pub fn load(file: Option<&Path>) -> Result<Loader, ConfigError> {
    let defaults = [
        DEFAULTS,
        octroi_account::DEFAULTS,
        octroi_usage::DEFAULTS,
        octroi_quota::DEFAULTS,
        octroi_billing::DEFAULTS,
        octroi_notification::DEFAULTS,
        octroi_gateway::DEFAULTS,
    ];
    Loader::new(&defaults, file)
}

/// Reads every section, so that a bad key is told before anything is opened.
///
/// # Errors
/// The first [`ConfigError`].
pub fn validate(loader: &Loader) -> Result<(), ConfigError> {
    print(loader).map(drop)
}

/// The merged configuration as TOML, without secrets.
///
/// # Errors
/// [`ConfigError`].
pub fn print(loader: &Loader) -> Result<String, ConfigError> {
    let mut table = toml::Table::new();
    put::<PathBuf>(loader, &mut table, "data_dir")?;
    put::<bool>(loader, &mut table, "sandbox")?;
    put::<Database>(loader, &mut table, "database")?;
    put::<Grpc>(loader, &mut table, "grpc")?;
    put::<Admin>(loader, &mut table, "admin")?;
    put::<Telemetry>(loader, &mut table, "telemetry")?;
    put::<Bus>(loader, &mut table, "bus")?;
    put::<AuthSection>(loader, &mut table, "auth")?;
    put::<LinksSection>(loader, &mut table, "links")?;
    put::<octroi_account::Config>(loader, &mut table, "account")?;
    put::<octroi_usage::Config>(loader, &mut table, "usage")?;
    put::<octroi_quota::Config>(loader, &mut table, "quota")?;
    put::<octroi_billing::Config>(loader, &mut table, "billing")?;
    put::<octroi_notification::Config>(loader, &mut table, "notification")?;
    put::<octroi_gateway::Config>(loader, &mut table, "gateway")?;
    toml::to_string_pretty(&table).map_err(|error| ConfigError::new("config", error.to_string()))
}

fn put<T: Section>(loader: &Loader, table: &mut toml::Table, key: &str) -> Result<(), ConfigError> {
    let section: T = loader.section(key)?;
    let value = toml::Value::try_from(section).map_err(|error| ConfigError::new(key, error.to_string()))?;
    table.insert(key.to_owned(), value);
    Ok(())
}

/// Where the process keeps its own things, made where it is not there.
///
/// # Errors
/// [`ConfigError`] where it cannot be made.
pub fn data_dir(loader: &Loader) -> Result<PathBuf, ConfigError> {
    let dir: PathBuf = loader.section("data_dir")?;
    std::fs::create_dir_all(&dir)
        .and_then(|()| dir.canonicalize())
        .map_err(|error| ConfigError::new("data_dir", format!("{} cannot be made: {error}", dir.display())))
}

/// Tokens, callers and keys.
///
/// # Errors
/// [`ConfigError`] where a file is missing.
pub fn auth(loader: &Loader, data_dir: &Path) -> Result<Auth, ConfigError> {
    let section: AuthSection = loader.section("auth")?;
    Auth::load(&section, data_dir)
}

/// Whether every service has an address of its own, so that none need be prepared.
///
/// # Errors
/// [`ConfigError`].
pub fn databases_are_given(loader: &Loader) -> Result<bool, ConfigError> {
    Ok(![
        loader.section::<octroi_account::Config>("account")?.database.url,
        loader.section::<octroi_usage::Config>("usage")?.database.url,
        loader.section::<octroi_quota::Config>("quota")?.database.url,
        loader.section::<octroi_billing::Config>("billing")?.database.url,
        loader
            .section::<octroi_notification::Config>("notification")?
            .database
            .url,
    ]
    .iter()
    .any(Secret::is_empty))
}

/// The operator's ways to every service: the configured ones, and the gRPC address for all others.
///
/// # Errors
/// [`ConfigError`] where an address is none or the operator has no token here.
pub fn operator_links(loader: &Loader) -> Result<Links, ConfigError> {
    let data_dir: PathBuf = loader.section("data_dir")?;
    let grpc: Grpc = loader.section("grpc")?;
    let mut links: LinksSection = loader.section("links")?;
    for service in Service::WITH_DATABASE {
        links
            .0
            .entry(service.name().to_owned())
            .or_insert_with(|| format!("http://{}", grpc.listen));
    }
    Links::new(&[], &links, auth(loader, &data_dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_configuration_and_show_no_secret() {
        let loader = load(None).and_then(|loader| {
            let loader = loader.or_set(
                "quota.database.url",
                "postgres://octroi_quota:hunter2@localhost/octroi",
            );
            print(&loader)
        });
        let text = loader.expect("good defaults");
        assert!(
            text.contains("[quota.database]") && text.contains("***") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
