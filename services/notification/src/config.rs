//! The `[notification]` section.

use lettre::message::Mailbox;
use octroi_kit::{
    config::{ConfigError, Secret, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

use crate::channels::server::Server;

/// The `[notification]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where notices and e-mails are kept.
    pub database: DatabaseConfig,
    /// How e-mails leave.
    pub mail: Mail,
}

/// Which variant of the mail port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Through a mail server.
    Smtp,
    /// Not at all: they are kept in the database.
    Outbox,
}

/// The `[notification.mail]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Which variant.
    pub backend: Backend,
    /// The mail server, with its credentials; only for SMTP.
    pub url: Secret,
    /// Who the e-mails are from.
    pub from: String,
    /// The site whose page `/usage` e-mails link to; empty means that they carry no link.
    pub console_url: String,
    /// The most notices of one account that also go out by e-mail within 24 hours.
    pub per_account_day_max: u32,
}

impl Section for Config {
    fn validate(&self) -> Result<(), ConfigError> {
        self.database.validate("notification")?;
        self.mail.validate()
    }
}

impl Mail {
    fn validate(&self) -> Result<(), ConfigError> {
        let from = self.mailbox()?;
        if self.backend == Backend::Smtp {
            if self.server()?.shows_credentials() {
                let problem = "has a password that would travel readable; use smtps:// or tls=required";
                return Err(ConfigError::new("notification.mail.url", problem));
            }
            if is_nobodys(from.email.domain()) {
                let problem = "must be at a domain of yours, or no mail server takes what is sent";
                return Err(ConfigError::new("notification.mail.from", problem));
            }
        }
        let link = self.console_url.starts_with("https://") || self.console_url.starts_with("http://");
        if !self.console_url.is_empty() && !link {
            let problem = "must be an address such as https://console.example.com, or empty";
            return Err(ConfigError::new("notification.mail.console_url", problem));
        }
        Ok(())
    }

    /// Who the e-mails are from.
    ///
    /// # Errors
    /// [`ConfigError`] where it is no mailbox.
    pub fn mailbox(&self) -> Result<Mailbox, ConfigError> {
        self.from.parse().map_err(|_| {
            ConfigError::new(
                "notification.mail.from",
                "must be a mailbox such as Octroi <octroi@example.com>",
            )
        })
    }

    /// The mail server.
    ///
    /// # Errors
    /// [`ConfigError`] where the address is no mail server's. It does not repeat the address.
    pub(crate) fn server(&self) -> Result<Server, ConfigError> {
        Server::parse(self.url.expose()).ok_or_else(|| {
            ConfigError::new(
                "notification.mail.url",
                "must be an address such as smtp://user:password@host:587?tls=required",
            )
        })
    }

    /// The site's address without a slash at its end; none where e-mails carry no link.
    #[must_use]
    pub fn console(&self) -> Option<&str> {
        let url = self.console_url.trim_end_matches('/');
        (!url.is_empty()).then_some(url)
    }
}

/// Whether a domain is one that nobody can have (RFC 6761): a default, or what a template leaves to be
/// changed.
fn is_nobodys(domain: &str) -> bool {
    let last = domain.rsplit('.').next().unwrap_or(domain);
    last.eq_ignore_ascii_case("localhost") || last.eq_ignore_ascii_case("invalid")
}

#[cfg(test)]
mod tests {
    use octroi_kit::config::Loader;

    use super::*;

    #[track_caller]
    fn check(change: fn(&mut Config), key: Option<&str>) {
        let mut config: Config = Loader::new(&[crate::DEFAULTS], None)
            .and_then(|loader| loader.section("notification"))
            .expect("defaults");
        change(&mut config);
        assert_eq!(config.validate().err().map(|error| error.key).as_deref(), key);
    }

    #[test]
    fn a_value_that_breaks_its_rule_is_named() {
        check(|_| (), None);
        check(
            |config| config.database.connections_max = 1,
            Some("notification.database.connections_max"),
        );
        check(
            |config| config.mail.from = "nobody".into(),
            Some("notification.mail.from"),
        );
        check(
            |config| config.mail.backend = Backend::Smtp,
            Some("notification.mail.url"),
        );
        check(
            |config| config.mail.console_url = "javascript:alert(1)".into(),
            Some("notification.mail.console_url"),
        );
        check(
            |config| {
                config.mail.backend = Backend::Smtp;
                config.mail.url = Secret::new("smtp://127.0.0.1:2525");
                config.mail.from = "Octroi <octroi@mail.example.com>".into();
                config.mail.console_url = "https://console.example.com/".into();
            },
            None,
        );
    }

    #[track_caller]
    fn check_smtp(url: &str, from: &str, key: Option<&str>) {
        let mut mail = Loader::new(&[crate::DEFAULTS], None)
            .and_then(|loader| loader.section::<Config>("notification"))
            .expect("defaults")
            .mail;
        mail.backend = Backend::Smtp;
        mail.url = Secret::new(url);
        mail.from = from.into();
        let error = mail.validate().err();
        assert_eq!(
            error.as_ref().map(|error| error.key.as_str()),
            key,
            "{url} {from}"
        );
        assert!(error.is_none_or(|error| !format!("{error} {error:?}").contains("hunter2")));
    }

    #[test]
    fn a_password_is_not_sent_readable_over_a_network() {
        let from = "Octroi <octroi@mail.example.com>";
        let wrong = Some("notification.mail.url");
        check_smtp("smtp://octroi:hunter2@mail.example.com", from, wrong);
        check_smtp(
            "smtp://octroi:hunter2@mail.example.com?tls=opportunistic",
            from,
            wrong,
        );
        check_smtp("smtp://octroi:hunter2@mail.example.com?tls=required", from, None);
        check_smtp("smtps://octroi:hunter2@mail.example.com", from, None);
        check_smtp("smtp://octroi:hunter2@127.0.0.1:2525", from, None);
        check_smtp("smtp://mail.example.com", from, None);
    }

    #[test]
    fn an_email_is_from_a_domain_that_somebody_has() {
        let url = "smtps://octroi:hunter2@mail.example.com";
        let wrong = Some("notification.mail.from");
        for nobodys in [
            "Octroi <octroi@localhost>",
            "octroi@LOCALHOST",
            "octroi@mail.localhost",
            "octroi@change-me.invalid",
        ] {
            check_smtp(url, nobodys, wrong);
        }
        check_smtp(url, "octroi@localhost.example.com", None);
    }
}
