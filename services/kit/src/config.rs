//! Configuration: defaults that are compiled in, then a file, then the environment; all of it read and
//! validated before any socket is opened.
//!
//! A key is its path: `[quota.answers] backend` is `OCTROI_QUOTA__ANSWERS__BACKEND`.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format as _, Toml},
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// What every environment variable of the project begins with.
pub const ENV_PREFIX: &str = "OCTROI_";

/// A value that is never printed or logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. Do not format what this returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(empty)" } else { "(secret)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A variable that holds only digits arrives as a number.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Text(String),
            Number(i64),
        }
        Ok(Self(match Text::deserialize(deserializer)? {
            Text::Text(text) => text,
            Text::Number(number) => number.to_string(),
        }))
    }
}

/// A key that is unknown, missing or has a value that breaks its rule.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {key}: {problem} ({origin})")]
pub struct ConfigError {
    /// The path of the key, such as `quota.answers.backend`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// Where the value came from, or how to set it.
    pub origin: String,
}

impl ConfigError {
    /// A rule about `key` that its value breaks.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        let key = key.into();
        let origin = format!("set {}", variable_of(&key));
        Self {
            key,
            problem: problem.into(),
            origin,
        }
    }

    /// What figment found wrong in the section at `section`; an empty one is the whole.
    fn of_section(section: &str, error: figment::Error) -> Self {
        let Some(error) = error.into_iter().next() else {
            return Self {
                key: section.to_owned(),
                problem: "unreadable".into(),
                origin: String::new(),
            };
        };
        // figment puts the section's own path behind that of the key within it.
        let mut path = error.path.clone();
        let behind = section.split('.').filter(|part| !part.is_empty()).count();
        if behind <= path.len() {
            path.rotate_right(behind);
        }
        if let figment::error::Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = path.join(".");
        let origin = origin_of(&key, error.metadata.as_ref());
        Self {
            key,
            problem: error.kind.to_string(),
            origin,
        }
    }
}

fn variable_of(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Where a value came from, or how to set it.
fn origin_of(key: &str, metadata: Option<&figment::Metadata>) -> String {
    match metadata {
        None => format!("set {}", variable_of(key)),
        // Of the environment figment knows only what all of its variables begin with.
        Some(metadata) if metadata.name.contains("environment") => format!("from {}", variable_of(key)),
        Some(metadata) => format!("from {}", metadata.name),
    }
}

/// One section of the configuration, owned by whoever reads it.
pub trait Section: DeserializeOwned + Serialize {
    /// The rules that its types do not keep.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key and the rule.
    fn validate(&self) -> Result<(), ConfigError>;
}

/// The merged configuration, from which each section is taken.
#[derive(Clone, Debug)]
pub struct Loader {
    figment: Figment,
}

impl Loader {
    /// Merges the defaults, then the file where one is given, then the environment.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read or a top-level key is not known.
    pub fn new(defaults: &[&str], file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        for text in defaults {
            figment = figment.merge(Toml::string(text));
        }
        let whole = |error| ConfigError::of_section("", error);
        let known: BTreeMap<String, figment::value::Value> = figment.extract().map_err(whole)?;
        if let Some(path) = file {
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment.merge(Env::prefixed(ENV_PREFIX).split("__"));
        let given: BTreeMap<String, figment::value::Value> = figment.extract().map_err(whole)?;
        if let Some(unknown) = given.keys().find(|key| !known.contains_key(*key)) {
            let origin = origin_of(unknown, figment.find_metadata(unknown));
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            let problem = format!("no such key; the top-level keys are {}", known.join(", "));
            return Err(ConfigError {
                key: unknown.clone(),
                problem,
                origin,
            });
        }
        Ok(Self { figment })
    }

    /// The same, with `value` at `path` where nothing was given there.
    #[must_use]
    pub fn or_set(&self, path: &str, value: &str) -> Self {
        let given: Result<String, _> = self.figment.extract_inner(path);
        if given.is_ok_and(|given| !given.is_empty()) {
            return self.clone();
        }
        Self {
            figment: self.figment.clone().merge((path, value)),
        }
    }

    /// Takes and validates one section.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key, a wrong type or a broken rule.
    pub fn section<T: Section>(&self, path: &str) -> Result<T, ConfigError> {
        let section: T = self
            .figment
            .extract_inner(path)
            .map_err(|error| ConfigError::of_section(path, error))?;
        section.validate()?;
        Ok(section)
    }
}

/// Where a process listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// The address of all gRPC services of the process.
    pub listen: SocketAddr,
    /// Whether reflection is served.
    pub reflection: bool,
    /// Calls served at once by one process; what comes above is refused at once.
    pub concurrency_max: usize,
}

impl Section for Grpc {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.concurrency_max == 0 {
            return Err(ConfigError::new("grpc.concurrency_max", "must be at least 1"));
        }
        Ok(())
    }
}

/// Where liveness, readiness and metrics are served.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The address.
    pub listen: SocketAddr,
}

impl Section for Admin {
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// Where other services are found, by name; one that is not named is expected in this process.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Links(pub BTreeMap<String, String>);

impl Section for Links {
    fn validate(&self) -> Result<(), ConfigError> {
        for (service, address) in &self.0 {
            if !address.starts_with("http://") && !address.starts_with("https://") {
                let problem = "must be an address such as http://quota:8081";
                return Err(ConfigError::new(format!("links.{service}"), problem));
            }
        }
        Ok(())
    }
}

/// How callers are known.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// A directory with one file `<caller>.token` for each caller that this process acts as.
    /// Empty means `tokens` in the data directory.
    pub tokens_dir: PathBuf,
    /// A TOML file with the hash of every caller's token. Empty means `callers.toml` beside the tokens.
    pub callers_file: PathBuf,
    /// The secret with which the gateway signs the end user's context and services verify it.
    /// Empty means the one in the data directory.
    pub principal_secret: Secret,
}

impl Section for Auth {
    fn validate(&self) -> Result<(), ConfigError> {
        if !self.principal_secret.is_empty() && self.principal_secret.expose().len() < 32 {
            return Err(ConfigError::new(
                "auth.principal_secret",
                "must have at least 32 characters",
            ));
        }
        Ok(())
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and traces.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// How logs are written.
    pub format: LogFormat,
    /// Which logs are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Where spans are sent over OTLP/gRPC; empty means nowhere.
    pub otlp_endpoint: String,
}

impl Section for Telemetry {
    fn validate(&self) -> Result<(), ConfigError> {
        tracing_subscriber::EnvFilter::try_new(&self.filter)
            .map_err(|error| ConfigError::new("telemetry.filter", error.to_string()))?;
        Ok(())
    }
}

/// A plain value at the top level.
macro_rules! plain_section {
    ($($type:ty),*) => {$(
        impl Section for $type {
            fn validate(&self) -> Result<(), ConfigError> {
                Ok(())
            }
        }
    )*};
}

plain_section!(bool, PathBuf, String);

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "[grpc]\nlisten = \"127.0.0.1:8081\"\nreflection = true\nconcurrency_max = 10\n";

    /// A file of the test's own; it goes with this value.
    fn file(text: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().expect("a writable temporary directory");
        std::fs::write(&file, text).expect("a writable file");
        file.into_temp_path()
    }

    #[test]
    fn a_file_overrides_defaults() {
        let path = file("[grpc]\nreflection = false\n");
        let grpc: Grpc = Loader::new(&[DEFAULTS], Some(&path))
            .and_then(|l| l.section("grpc"))
            .expect("a good file");
        assert!(!grpc.reflection);
        assert_eq!(grpc.concurrency_max, 10);
    }

    #[test]
    fn a_bad_key_or_value_is_named_with_where_it_came_from() {
        for (name, text, key) in [
            ("unknown-top", "[grcp]\nlisten = \"127.0.0.1:1\"\n", "grcp"),
            ("unknown-inner", "[grpc]\nlisen = \"127.0.0.1:1\"\n", "grpc.lisen"),
            (
                "wrong-type",
                "[grpc]\nreflection = \"maybe\"\n",
                "grpc.reflection",
            ),
            (
                "broken-rule",
                "[grpc]\nconcurrency_max = 0\n",
                "grpc.concurrency_max",
            ),
        ] {
            let path = file(text);
            let error = Loader::new(&[DEFAULTS], Some(&path))
                .and_then(|loader| loader.section::<Grpc>("grpc"))
                .expect_err("a bad file");
            assert!(error.key.starts_with(key), "{name}: {error}");
            assert!(!error.problem.is_empty());
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2hunter2");
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(serde_json::to_string(&secret).expect("a text"), "\"***\"");
    }
}
