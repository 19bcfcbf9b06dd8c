//! The configuration of a process: all defaults, the file, the environment.

use std::path::{Path, PathBuf};

use octroi_kit::{
    auth::Auth,
    bus,
    config::{
        Admin, Auth as AuthSection, ConfigError, Grpc, Links as LinksSection, Loader, Secret, Section,
        Telemetry,
    },
    db::{self, DatabaseConfig},
};
use serde::{Deserialize, Serialize};

use crate::{cli::Service, operator::Client};

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
        db::check_url("database.url", &self.url)
    }
}

/// The `[bus]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Bus(pub bus::Config);

impl Section for Bus {
    fn validate(&self) -> Result<(), ConfigError> {
        self.0.validate()
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
        octroi_client::DEFAULTS,
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
    put::<Client>(loader, &mut table, "client")?;
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

/// The `[<service>.database]` section; none where the service has no database.
///
/// # Errors
/// [`ConfigError`].
pub fn database(loader: &Loader, service: Service) -> Result<Option<DatabaseConfig>, ConfigError> {
    Ok(Some(match service {
        Service::Account => loader.section::<octroi_account::Config>("account")?.database,
        Service::Usage => loader.section::<octroi_usage::Config>("usage")?.database,
        Service::Quota => loader.section::<octroi_quota::Config>("quota")?.database,
        Service::Billing => loader.section::<octroi_billing::Config>("billing")?.database,
        Service::Notification => {
            loader
                .section::<octroi_notification::Config>("notification")?
                .database
        }
        Service::Gateway => return Ok(None),
    }))
}

/// Those services that have a database and no address for it.
///
/// # Errors
/// [`ConfigError`].
pub fn without_address(loader: &Loader, services: &[Service]) -> Result<Vec<Service>, ConfigError> {
    let mut without = Vec::new();
    for service in services {
        if database(loader, *service)?.is_some_and(|database| database.url.is_empty()) {
            without.push(*service);
        }
    }
    Ok(without)
}

/// Refuses services whose database has no address.
///
/// # Errors
/// [`ConfigError`] that names the key of the first.
pub fn require_databases(loader: &Loader, services: &[Service]) -> Result<(), ConfigError> {
    match without_address(loader, services)?.first() {
        None => Ok(()),
        Some(service) => {
            let key = format!("{}.database.url", service.name());
            Err(ConfigError::new(key, "must be given"))
        }
    }
}

/// Whether every service has an address of its own, so that none need be prepared.
///
/// # Errors
/// [`ConfigError`].
pub fn databases_are_given(loader: &Loader) -> Result<bool, ConfigError> {
    Ok(without_address(loader, &Service::WITH_DATABASE)?.is_empty())
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

    fn of_file(text: &str) -> Result<Loader, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a writable temporary directory");
        std::fs::write(&file, text).expect("a writable file");
        load(Some(file.path()))
    }

    #[test]
    fn a_broken_key_is_named_as_it_is_set() {
        for (text, key) in [
            ("[bus]\nnamespace = \"Octroi!\"\n", "bus.namespace"),
            ("[bus]\nbackend = \"rabbitmq\"\nurl = \"broker\"\n", "bus.url"),
            ("[database]\nurl = \"localhost:5432/octroi\"\n", "database.url"),
            (
                "[usage.database]\nurl = \"mysql://localhost/octroi\"\n",
                "usage.database.url",
            ),
        ] {
            let error = of_file(text).and_then(|loader| validate(&loader)).expect_err(key);
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn services_with_a_database_must_have_its_address() {
        let loader =
            of_file("[quota.database]\nurl = \"postgres://octroi_quota@db/octroi\"\n").expect("a good file");
        let check = |services: &[Service], missing: Option<&str>| {
            let refused = require_databases(&loader, services).err();
            assert_eq!(refused.map(|error| error.key).as_deref(), missing, "{services:?}");
        };
        check(&[Service::Quota, Service::Gateway], None);
        check(&[Service::Quota, Service::Usage], Some("usage.database.url"));
        let without = without_address(&loader, &Service::ALL).expect("a good file");
        assert!(!without.contains(&Service::Quota) && !without.contains(&Service::Gateway));
        assert_eq!(without.len(), 4);
    }

    /// Every variable of ours in a text, such as `OCTROI_GRPC__LISTEN`.
    fn variables(text: &str) -> impl Iterator<Item = &str> {
        text.match_indices("OCTROI_").map(|(at, _)| {
            let rest = text.get(at..).unwrap_or_default();
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
            rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
        })
    }

    #[test]
    fn what_is_deployed_sets_only_keys_that_exist() {
        /// The image's name is for compose alone.
        const FOREIGN: &str = "OCTROI_IMAGE";
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let printed = load(None)
            .and_then(|loader| print(&loader))
            .expect("good defaults");
        let keys: toml::Table = printed.parse().expect("TOML");
        let mut files = vec![
            root.join("deploy/Dockerfile"),
            root.join("docs/operations/deploy.md"),
        ];
        for dir in ["deploy", "k8s/base", "k8s/overlays/example"] {
            let entries = std::fs::read_dir(root.join(dir)).expect("a directory");
            files.extend(
                entries
                    .map(|entry| entry.expect("an entry").path())
                    .filter(|path| {
                        path.extension()
                            .is_some_and(|extension| extension == "yaml" || extension == "env")
                    }),
            );
        }
        let mut found = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a text");
            for variable in variables(&text).filter(|variable| *variable != FOREIGN) {
                let path = variable.trim_start_matches("OCTROI_").to_lowercase();
                let known = match path.split_once("__") {
                    // Their names are those of services.
                    Some(("links", service)) => Service::ALL.iter().any(|known| known.name() == service),
                    _ => {
                        let mut parts = path.split("__");
                        let first = parts.next().and_then(|part| keys.get(part));
                        parts.fold(first, |value, part| value?.get(part)).is_some()
                    }
                };
                assert!(known, "{variable} in {}", file.display());
                found += 1;
            }
        }
        assert!(found > 40, "{found} variables");
    }

    #[test]
    fn behind_the_ingress_of_the_example_callers_are_told_apart() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/overlays/example");
        let gateway = std::fs::read_to_string(root.join("gateway.yaml")).expect("a manifest");
        assert!(root.join("ingress.yaml").exists());
        assert!(
            gateway.contains("- name: OCTROI_GATEWAY__PROXIES\n              value: \"1\"\n"),
            "all of them would share one throttle of sign-ins: {gateway}"
        );
    }
}
