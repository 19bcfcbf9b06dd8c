//! How a client is described: address, token, deadline.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use http::HeaderValue;
use tonic::transport::Endpoint;

use crate::{Client, channel::Channel, replicas::Replicas};

const ADDRESS: &str = "OCTROI_CLIENT__ADDRESS";
/// The variable of each service that may be elsewhere.
const ADDRESSES: [(Service, &str); 5] = [
    (Service::Account, "OCTROI_CLIENT__ADDRESSES__ACCOUNT"),
    (Service::Billing, "OCTROI_CLIENT__ADDRESSES__BILLING"),
    (Service::Notification, "OCTROI_CLIENT__ADDRESSES__NOTIFICATION"),
    (Service::Quota, "OCTROI_CLIENT__ADDRESSES__QUOTA"),
    (Service::Usage, "OCTROI_CLIENT__ADDRESSES__USAGE"),
];
const TOKEN: &str = "OCTROI_CLIENT__TOKEN";
const TOKEN_FILE: &str = "OCTROI_CLIENT__TOKEN_FILE";
const DEADLINE_MS: &str = "OCTROI_CLIENT__DEADLINE_MS";

/// How long a call may take where nobody says, repetitions included.
const DEADLINE: Duration = Duration::from_secs(2);
/// The longest deadline: what takes longer is not answered by the services either.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// A service of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Accounts, members, sessions, API keys.
    Account,
    /// Plans and subscriptions.
    Billing,
    /// What people were told.
    Notification,
    /// May this account do this now?
    Quota,
    /// The ledger of what was used.
    Usage,
}

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
    addresses: BTreeMap<Service, String>,
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
    /// Begins the description of a client of the services at `address`: several, one a replica, are separated by
    /// commas. A name that has several addresses is several replicas as well.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            addresses: BTreeMap::new(),
            token: String::new(),
            deadline: DEADLINE,
            attempts_max: 3,
        }
    }

    /// Reads the description from the environment: `OCTROI_CLIENT__ADDRESS`, and `OCTROI_CLIENT__ADDRESSES__QUOTA` and
    /// the like where a service is elsewhere; `OCTROI_CLIENT__TOKEN` or the file that `OCTROI_CLIENT__TOKEN_FILE` names;
    /// and `OCTROI_CLIENT__DEADLINE_MS` where 2,000 does not do.
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
        for (service, variable) in ADDRESSES {
            if let Some(address) = read(variable).filter(|address| !address.is_empty()) {
                builder = builder.address_of(service, address);
            }
        }
        if let Some(text) = read(DEADLINE_MS) {
            let milliseconds: u64 = text
                .parse()
                .map_err(|_| ConfigError::new(DEADLINE_MS, "must be a whole number of milliseconds"))?;
            builder = builder.deadline(Duration::from_millis(milliseconds));
        }
        Ok(builder)
    }

    /// Where one service is, if it is not with the others.
    #[must_use]
    pub fn address_of(mut self, service: Service, address: impl Into<String>) -> Self {
        self.addresses.insert(service, address.into());
        self
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
        let channel = |key, address: &str| -> Result<Channel, ConfigError> {
            let replicas = Replicas::connect(&endpoints(key, address)?);
            let authorization = authorization.clone();
            Ok(Channel::new(
                replicas,
                authorization,
                self.deadline,
                self.attempts_max,
            ))
        };
        // Who is at the same address has the same connections.
        let shared = channel("address", &self.address)?;
        let of = |service| match self.addresses.get(&service) {
            Some(address) => channel(ADDRESS_OF, address),
            None => Ok(shared.clone()),
        };
        Ok(Client {
            account: of(Service::Account)?,
            billing: of(Service::Billing)?,
            notification: of(Service::Notification)?,
            quota: of(Service::Quota)?,
            usage: of(Service::Usage)?,
        })
    }
}

/// What a wrong address of one service is called.
const ADDRESS_OF: &str = "addresses";

/// The endpoint of each replica in a list.
fn endpoints(key: &'static str, list: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let wrong = || {
        ConfigError::new(
            key,
            "must be an address such as http://127.0.0.1:8081, or several with commas between",
        )
    };
    let endpoint = |address: &str| {
        endpoint_at(address.trim())
            .filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")))
            .ok_or_else(wrong)
    };
    list.split(',').map(endpoint).collect()
}

/// How a replica is connected to; none where that is no address.
pub(crate) fn endpoint_at(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_owned()).ok()?;
    Some(
        endpoint
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10)),
    )
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
        check(
            &[(ADDRESS, "http://10.0.0.1:8081, http://10.0.0.2:8081"), token],
            None,
        );
        check(&[(ADDRESS, "http://10.0.0.1:8081,"), token], Some("address"));
        for (_, variable) in ADDRESSES {
            check(&[address, token, (variable, "http://quota:8081")], None);
            check(&[address, token, (variable, "quota:8081")], Some(ADDRESS_OF));
        }
        check(&[address, (TOKEN, "hunter2\nx")], Some("token"));
        check(&[address, (TOKEN, " ")], Some("token"));
    }

    #[test]
    fn every_variable_is_a_key_of_the_section_and_no_other_is() {
        let variables = crate::DEFAULTS.lines().filter_map(|line| {
            let (key, _) = line.split_once(" = ").filter(|_| !line.starts_with('#'))?;
            Some(format!(
                "OCTROI_CLIENT__{}",
                key.to_uppercase().replace('.', "__")
            ))
        });
        let known = [ADDRESS]
            .into_iter()
            .chain(ADDRESSES.map(|(_, variable)| variable));
        assert!(variables.eq(known.chain([TOKEN, TOKEN_FILE, DEADLINE_MS])));
        let deadline = format!("deadline_ms = {}\n", DEADLINE.as_millis());
        assert!(crate::DEFAULTS.contains(&deadline));
    }

    #[test]
    fn a_token_is_never_shown() {
        let builder = Builder::new("http://127.0.0.1:8081").token("hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
    }
}
