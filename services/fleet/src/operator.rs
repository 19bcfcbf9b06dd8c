//! The operator's ways to a running fleet.
//!
//! `[client]` says where a fleet is and as whom it is called, for the command line as for every program.
//! What it does not say comes from the configuration that the fleet itself is run with.

use std::{collections::BTreeMap, path::PathBuf};

use octroi_kit::{
    config::{ConfigError, Grpc, Links as LinksSection, Loader, Secret, Section},
    link::{Link, Links},
};
use serde::{Deserialize, Serialize};

use crate::{cli::Service, config};

/// The caller that the command line is.
const CALLER: &str = "operator";
/// The longest deadline of octroi-client.
const DEADLINE_MS_MAX: u64 = 60_000;

/// The `[client]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Where the fleet is, one address or several with commas between; empty means where the rest of the configuration
    /// says.
    pub address: String,
    /// Where services are that are elsewhere, by their names.
    pub addresses: BTreeMap<String, String>,
    /// The service token.
    pub token: Secret,
    /// The file that holds the service token; empty means none.
    pub token_file: PathBuf,
    /// How long a call of octroi-client may take, in milliseconds, 1 to 60,000.
    pub deadline_ms: u64,
}

impl Section for Client {
    fn validate(&self) -> Result<(), ConfigError> {
        let has_scheme = |address: &str| address.starts_with("http://") || address.starts_with("https://");
        let is_wrong = |address: &String| !address.is_empty() && !has_scheme(address);
        if is_wrong(&self.address) || self.addresses.values().any(is_wrong) {
            let problem = "must be an address such as http://127.0.0.1:8081, or empty";
            return Err(ConfigError::new("client.address", problem));
        }
        if !self.token.is_empty() && !self.token_file.as_os_str().is_empty() {
            return Err(ConfigError::new(
                "client.token",
                "is set, and so is client.token_file",
            ));
        }
        if !(1..=DEADLINE_MS_MAX).contains(&self.deadline_ms) {
            let problem = format!("must be 1 to {DEADLINE_MS_MAX}");
            return Err(ConfigError::new("client.deadline_ms", problem));
        }
        Ok(())
    }
}

impl Client {
    /// The token that it gives; none where it gives none.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read.
    fn token(&self) -> Result<Option<Secret>, ConfigError> {
        if !self.token.is_empty() {
            return Ok(Some(self.token.clone()));
        }
        if self.token_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&self.token_file).map_err(|error| {
            let problem = format!(
                "names {}, which cannot be read: {error}",
                self.token_file.display()
            );
            ConfigError::new("client.token_file", problem)
        })?;
        Ok(Some(Secret::new(text.trim())))
    }
}

/// The way to one service.
///
/// # Errors
/// [`ConfigError`] where an address is none or there is no token.
pub fn link(loader: &Loader, service: Service) -> Result<Link, ConfigError> {
    match client_link(loader, Some(service))? {
        Some(link) => Ok(link),
        None => links(loader)?.to(service.name(), CALLER),
    }
}

/// One way to every service.
///
/// # Errors
/// [`ConfigError`] where an address is none or there is no token.
pub fn link_to_any(loader: &Loader) -> Result<Link, ConfigError> {
    match client_link(loader, None)? {
        Some(link) => Ok(link),
        None => links(loader)?.to_any(CALLER),
    }
}

/// The way that `[client]` describes; none where it does not say where the fleet, or this service of it, is. Of several
/// replicas it is the first: the command line asks seldom.
fn client_link(loader: &Loader, service: Option<Service>) -> Result<Option<Link>, ConfigError> {
    let client: Client = loader.section("client")?;
    let token = client.token()?;
    let of_service = service.and_then(|service| client.addresses.get(service.name()));
    let addresses = of_service
        .filter(|address| !address.is_empty())
        .unwrap_or(&client.address);
    let address = addresses.split(',').next().unwrap_or_default().trim();
    if address.is_empty() {
        return match token {
            // A token for another fleet is not shown to this one.
            Some(_) => Err(ConfigError::new("client.address", "is not set, and a token is")),
            None => Ok(None),
        };
    }
    let token = match token {
        Some(token) => token,
        None => config::auth(loader, &loader.section::<PathBuf>("data_dir")?)?.token_of(CALLER)?,
    };
    Link::remote(address, &token)
        .map(Some)
        .map_err(|error| ConfigError::new("client", error.problem))
}

/// The configured links, and the gRPC address for all services that have none.
fn links(loader: &Loader) -> Result<Links, ConfigError> {
    let data_dir: PathBuf = loader.section("data_dir")?;
    let grpc: Grpc = loader.section("grpc")?;
    let mut links: LinksSection = loader.section("links")?;
    for service in Service::WITH_DATABASE {
        links
            .0
            .entry(service.name().to_owned())
            .or_insert_with(|| format!("http://{}", grpc.listen));
    }
    Links::new(&[], &links, config::auth(loader, &data_dir)?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, extract::Request};
    use octroi_proto::billing::v1::{ListPlansRequest, billing_service_client::BillingServiceClient};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// The configuration with this file over the defaults.
    fn loader(text: &str) -> Result<Loader, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a writable temporary directory");
        std::fs::write(&file, text).expect("a writable file");
        config::load(Some(file.path()))
    }

    #[track_caller]
    fn check(section: &str, wrong: Option<&str>) {
        let checked = loader(&format!("[client]\n{section}\n")).and_then(|loader| {
            config::validate(&loader)?;
            config::print(&loader)
        });
        match checked {
            Ok(printed) => assert!(
                wrong.is_none() && !printed.contains("hunter2"),
                "{section}: {printed}"
            ),
            Err(error) => assert_eq!(wrong, Some(error.key.as_str()), "{section}: {error}"),
        }
    }

    #[test]
    fn what_the_client_documents_is_known_to_every_process() {
        check("", None);
        check(
            "address = \"http://127.0.0.1:8081\"\ntoken = \"hunter2\"\ndeadline_ms = 500",
            None,
        );
        check(
            "address = \"https://octroi.example.com\"\ntoken_file = \"/nowhere/at/all\"",
            None,
        );
        check("address = \"127.0.0.1:8081\"", Some("client.address"));
        check("token = \"hunter2\"\ntoken_file = \"/x\"", Some("client.token"));
        check("deadline_ms = 0", Some("client.deadline_ms"));
        check("adress = \"http://127.0.0.1:8081\"", Some("client.adress"));
    }

    #[tokio::test]
    async fn the_command_line_calls_where_and_as_whom_the_client_section_says() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (listener, stop) = (
            tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a free port"),
            CancellationToken::new(),
        );
        let address = listener.local_addr().expect("bound");
        let note = seen.clone();
        let fleet = Router::new().fallback(move |request: Request| async move {
            let header = request.headers().get("authorization");
            let token = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
            note.lock().expect("no panic").push(token.to_owned());
        });
        tokio::spawn(octroi_kit::http::serve(listener, fleet, stop.clone()));

        let file = tempfile::NamedTempFile::new().expect("a writable temporary directory");
        std::fs::write(&file, "from-a-file\n").expect("a writable file");
        for token in [
            "token = \"from-the-section\"".to_owned(),
            format!("token_file = \"{}\"", file.path().display()),
        ] {
            let loader =
                loader(&format!("[client]\naddress = \"http://{address}\"\n{token}\n")).expect("a good file");
            for link in [link(&loader, Service::Billing), link_to_any(&loader)] {
                let mut billing = BillingServiceClient::new(link.expect("a link"));
                // What this fleet answers is no gRPC; that it was asked is enough.
                drop(billing.list_plans(ListPlansRequest::default()).await);
            }
        }
        stop.cancel();
        let expected = [
            "from-the-section",
            "from-the-section",
            "from-a-file",
            "from-a-file",
        ];
        assert_eq!(
            *seen.lock().expect("no panic"),
            expected.map(|token| format!("Bearer {token}"))
        );
    }

    #[test]
    fn a_token_without_an_address_goes_nowhere() {
        let loader = loader("[client]\ntoken = \"hunter2\"\n").expect("a good file");
        let error = link_to_any(&loader).expect_err("no address");
        assert_eq!(error.key, "client.address");
    }
}
