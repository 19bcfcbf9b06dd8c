//! Which accounts exist, as the services that count and decide need to know it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use octroi_core::{AccountId, ErrorKind, ServiceError};
use octroi_proto::{
    account::v1::{AccountState, GetAccountRequest, Language, account_service_client::AccountServiceClient},
    errors::v1::ErrorReason,
};

use crate::{link::Link, status::Upstream};

/// How long an answer is believed: a closed account or another zone is seen this much later at the most.
pub const FRESH: Duration = Duration::from_secs(5);
/// The most accounts that are remembered; beyond it all are forgotten and asked for again.
const REMEMBERED_MAX: usize = 1_000_000;

/// What the other services know of an account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The zone of its HOUR and DAY windows.
    pub zone: TimeZone,
    /// The zone's IANA name.
    pub zone_name: String,
    /// The language in which its people are written to.
    pub language: Language,
    /// The name people read.
    pub display_name: String,
}

/// Why an account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is none of this id.
    #[error("there is no account {0}")]
    NotFound(AccountId),
    /// It was closed.
    #[error("the account {0} was closed")]
    Closed(AccountId),
    /// The account service did not answer, or not in our words.
    #[error(transparent)]
    Upstream(#[from] Upstream),
}

impl ServiceError for DirectoryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Closed(_) => ErrorKind::Precondition,
            Self::Upstream(upstream) => upstream.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => ErrorReason::AccountNotFound.name(),
            Self::Closed(_) => ErrorReason::AccountClosed.name(),
            Self::Upstream(upstream) => upstream.reason(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::NotFound(account) | Self::Closed(account) => vec![("account_id", account.to_string())],
            Self::Upstream(upstream) => upstream.metadata(),
        }
    }
}

/// Asks the account service and remembers its answers for [`FRESH`]. Unknown accounts are not remembered,
/// so that one is usable as soon as it is created.
#[derive(Clone, Debug)]
pub struct Directory {
    client: AccountServiceClient<Link>,
    known: Arc<Mutex<Known>>,
}

/// What was answered, and when.
type Known = HashMap<AccountId, (Instant, Arc<Account>)>;

impl Directory {
    /// A directory over a link to the account service.
    #[must_use]
    pub fn new(account: Link) -> Self {
        Self {
            client: AccountServiceClient::new(account),
            known: Arc::default(),
        }
    }

    /// The account, where it exists and is open.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn get(&self, account: &AccountId) -> Result<Arc<Account>, DirectoryError> {
        if let Some(known) = self.recall(account) {
            return Ok(known);
        }
        let request = GetAccountRequest {
            account_id: account.to_string(),
        };
        let answer = match self.client.clone().get_account(request).await {
            Ok(answer) => answer.into_inner().account.unwrap_or_default(),
            Err(status) => {
                let upstream = Upstream::new("account", status);
                return Err(match upstream.error_reason() {
                    Some(ErrorReason::AccountNotFound) => DirectoryError::NotFound(account.clone()),
                    _ => upstream.into(),
                });
            }
        };
        if answer.state() == AccountState::Closed {
            return Err(DirectoryError::Closed(account.clone()));
        }
        let known = Arc::new(Account {
            // The account service checked it against the same zone database.
            zone: TimeZone::get(&answer.zone).unwrap_or(TimeZone::UTC),
            language: answer.language(),
            zone_name: answer.zone,
            display_name: answer.display_name,
        });
        self.remember(account, &known);
        Ok(known)
    }

    fn recall(&self, account: &AccountId) -> Option<Arc<Account>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked_at, answer) = known.get(account)?;
        (asked_at.elapsed() < FRESH).then(|| answer.clone())
    }

    fn remember(&self, account: &AccountId, answer: &Arc<Account>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(account.clone(), (Instant::now(), answer.clone()));
    }
}
