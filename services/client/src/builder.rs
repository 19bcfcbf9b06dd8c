//! How a client is described: address, token, deadline.

use std::{fmt, path::PathBuf, time::Duration};

use http::HeaderValue;
use tonic::transport::Endpoint;

use crate::{Client, channel::Channel};

const ADDRESS: &str = "OCTROI_CLIENT__ADDRESS";
const TOKEN: &str = "OCTROI_CLIENT__TOKEN";
const TOKEN_FILE: &str = "OCTROI_CLIENT__TOKEN_FILE";
const DEADLINE_MS: &str = "OCTROI_CLIENT__DEADLINE_MS";

/// How long a call may take where nobody says, repetitions included.
const DEADLINE: Duration = Duration::from_secs(2);
/// The longest deadline: what takes longer is not answered by the services either.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What is missing or wrong in a client's description. It never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}")]
pub struct ConfigError {
    /// What is wrong: a variable of the environment, or the builder's word for it.
    pub key: &'static str,
    /// The rule that it breaks, as the end of the sentence "the key …".
    pub problem: String,
}

impl ConfigError {
    fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }
}

/// Describes a [`Client`].
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn example(token: String) -> Result<(), octroi_client::ConfigError> {
/// let client = octroi_client::Client::builder("http://127.0.0.1:8081")
///     .token(token)
///     .deadline(Duration::from_millis(200))
///     .build()?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Builder {
    address: String,
    token: String,
    deadline: Duration,
    attempts_max: u32,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Begins the description of a client of the services at `address`.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: String::new(),
            deadline: DEADLINE,
            attempts_max: 3,
        }
    }

    /// Reads the description from the environment: `OCTROI_CLIENT__ADDRESS`, then `OCTROI_CLIENT__TOKEN` or
    /// the file that `OCTROI_CLIENT__TOKEN_FILE` names, and `OCTROI_CLIENT__DEADLINE_MS` where 2,000 does
    /// not do.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this crate is for programs that have no octroi_kit::config"
        )]
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(read: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        let address = read(ADDRESS).ok_or_else(|| ConfigError::new(ADDRESS, "is not set"))?;
        let token = match (read(TOKEN), read(TOKEN_FILE)) {
            (Some(token), None) => token,
            (None, Some(file)) => {
                let path = PathBuf::from(file);
                std::fs::read_to_string(&path).map_err(|error| {
                    ConfigError::new(
                        TOKEN_FILE,
                        format!("names {}, which cannot be read: {error}", path.display()),
                    )
                })?
            }
            (None, None) => {
                return Err(ConfigError::new(
                    TOKEN,
                    format!("is not set, and neither is {TOKEN_FILE}"),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(TOKEN, format!("is set, and so is {TOKEN_FILE}")));
            }
        };
        let mut builder = Self::new(address).token(token.trim());
        if let Some(text) = read(DEADLINE_MS) {
            let milliseconds: u64 = text
                .parse()
                .map_err(|_| ConfigError::new(DEADLINE_MS, "must be a whole number of milliseconds"))?;
            builder = builder.deadline(Duration::from_millis(milliseconds));
        }
        Ok(builder)
    }

    /// The service token of this program.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// How long a call may take, repetitions included; 2 s where it is not said.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How often a call is sent at most; 3 where it is not said, 1 for never again.
    #[must_use]
    pub fn attempts_max(mut self, attempts_max: u32) -> Self {
        self.attempts_max = attempts_max;
        self
    }

    /// Makes the client. It connects with its first call, and again when the connection is lost. It must be
    /// made within a tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] where the address is none, the token is missing, or a number is out of range.
    pub fn build(self) -> Result<Client, ConfigError> {
        let endpoint = Endpoint::from_shared(self.address)
            .ok()
            .filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")))
            .ok_or_else(|| ConfigError::new("address", "must be an address such as http://127.0.0.1:8081"))?;
        if self.token.is_empty() {
            return Err(ConfigError::new("token", "is missing"));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.token))
            .map_err(|_| ConfigError::new("token", "has characters that no header can carry"))?;
        authorization.set_sensitive(true);
        if self.deadline.is_zero() || self.deadline > DEADLINE_MAX {
            let problem = format!("must be more than 0 and at most {} s", DEADLINE_MAX.as_secs());
            return Err(ConfigError::new("deadline", problem));
        }
        if !(1..=10).contains(&self.attempts_max) {
            return Err(ConfigError::new("attempts_max", "must be 1 to 10"));
        }
        let connection = endpoint
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_lazy();
        Ok(Client {
            channel: Channel::new(connection, authorization, self.deadline, self.attempts_max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], wrong: Option<&str>) {
        let read = |name: &str| {
            variables
                .iter()
                .find(|(one, _)| *one == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let answer = Builder::from_variables(read).and_then(Builder::build);
        assert_eq!(
            answer.as_ref().err().map(|error| error.key),
            wrong,
            "{variables:?}"
        );
        if let Err(error) = answer {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_environment_describes_a_client_or_names_what_is_wrong() {
        let address = (ADDRESS, "http://127.0.0.1:8081");
        let token = (TOKEN, "hunter2");
        check(&[address, token], None);
        check(&[address, token, (DEADLINE_MS, "50")], None);
        check(&[token], Some(ADDRESS));
        check(&[address], Some(TOKEN));
        check(&[address, token, (TOKEN_FILE, "/tmp/x")], Some(TOKEN));
        check(&[address, (TOKEN_FILE, "/nowhere/at/all")], Some(TOKEN_FILE));
        check(&[address, token, (DEADLINE_MS, "2s")], Some(DEADLINE_MS));
        check(&[address, token, (DEADLINE_MS, "0")], Some("deadline"));
        check(&[(ADDRESS, "127.0.0.1:8081"), token], Some("address"));
        check(&[address, (TOKEN, "hunter2\nx")], Some("token"));
        check(&[address, (TOKEN, " ")], Some("token"));
    }

    #[test]
    fn every_variable_is_a_key_of_the_section_and_no_other_is() {
        let variables = crate::DEFAULTS.lines().filter_map(|line| {
            let (key, _) = line.split_once(" = ").filter(|_| !line.starts_with('#'))?;
            Some(format!("OCTROI_CLIENT__{}", key.to_uppercase()))
        });
        assert!(variables.eq([ADDRESS, TOKEN, TOKEN_FILE, DEADLINE_MS]));
        let deadline = format!("deadline_ms = {}\n", DEADLINE.as_millis());
        assert!(crate::DEFAULTS.contains(&deadline));
    }

    #[test]
    fn a_token_is_never_shown() {
        let builder = Builder::new("http://127.0.0.1:8081").token("hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
    }
}
