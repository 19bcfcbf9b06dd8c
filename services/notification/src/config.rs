//! The `[notification]` section.

use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use octroi_kit::{
    config::{ConfigError, Secret, Section},
    db::DatabaseConfig,
};
use serde::{Deserialize, Serialize};

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
    /// Where people find the console; empty means that e-mails carry no link.
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
        self.mailbox()?;
        if self.backend == Backend::Smtp
            && AsyncSmtpTransport::<Tokio1Executor>::from_url(self.url.expose()).is_err()
        {
            let problem = "must be an address such as smtp://user:password@host:587?tls=required";
            return Err(ConfigError::new("notification.mail.url", problem));
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

    /// The console's address without a slash at its end; none where e-mails carry no link.
    #[must_use]
    pub fn console(&self) -> Option<&str> {
        let url = self.console_url.trim_end_matches('/');
        (!url.is_empty()).then_some(url)
    }
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
                config.mail.console_url = "https://console.example.com/".into();
            },
            None,
        );
    }
}
