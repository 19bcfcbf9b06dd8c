//! The gateway's section of the configuration.

use std::net::SocketAddr;

use axum::http::Uri;
use octroi_kit::config::{ConfigError, Section};
use serde::{Deserialize, Serialize};

/// More proxies than this in a row is a mistake.
const PROXIES_MAX: usize = 8;

/// `[gateway]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// The origin that people type to reach it.
    pub public_url: String,
    /// How many of our proxies append to `X-Forwarded-For`.
    pub proxies: usize,
}

impl Config {
    /// The public URL as browsers write it into `Origin`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.public_url.trim_end_matches('/').to_ascii_lowercase()
    }

    /// Whether people reach it over TLS.
    #[must_use]
    pub fn over_tls(&self) -> bool {
        self.origin().starts_with("https://")
    }
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        let is_origin = self.public_url.parse::<Uri>().is_ok_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https")) && url.path() == "/" && url.query().is_none()
        });
        if !is_origin {
            let problem = "must be an origin without a path, such as https://octroi.example.com";
            return Err(ConfigError::new("gateway.public_url", problem));
        }
        if self.proxies > PROXIES_MAX {
            return Err(ConfigError::new(
                "gateway.proxies",
                format!("must be 0 to {PROXIES_MAX}"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use octroi_kit::config::Loader;

    use super::*;

    fn check(public_url: &str, good: bool) {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: public_url.into(),
            proxies: 0,
        };
        assert_eq!(config.validate().is_ok(), good, "{public_url}");
    }

    #[test]
    fn a_public_url_is_an_origin_and_nothing_more() {
        check("http://127.0.0.1:8080", true);
        check("https://octroi.example.com/", true);
        check("octroi.example.com", false);
        check("ftp://octroi.example.com", false);
        check("https://octroi.example.com/console", false);
        check("https://octroi.example.com/?a=b", false);
        check("", false);
    }

    #[test]
    fn the_defaults_are_good() {
        let config: Config = Loader::new(&[crate::DEFAULTS], None)
            .and_then(|all| all.section("gateway"))
            .expect("good");
        assert_eq!(config.origin(), "http://127.0.0.1:8080");
        assert!(!config.over_tls());
    }
}
