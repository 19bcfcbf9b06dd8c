//! Which accounts exist, as the services that count and decide need to know it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use octroi_core::{AccountId, ErrorKind, ServiceError};
use octroi_proto::{
    account::v1::{
        self as proto, AccountState, GetAccountBatchRequest, Language,
        account_service_client::AccountServiceClient,
    },
    errors::v1::ErrorReason,
};
use tonic::Status;

use crate::{
    gather::{Bounds, Gather},
    generations::Generations,
    link::Link,
    status::Upstream,
};

/// How long an answer is believed: a closed account or another zone is seen this much later at the most.
pub const FRESH: Duration = Duration::from_secs(5);
/// The most accounts that are remembered.
const REMEMBERED_MAX: usize = 2_000_000;

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

/// Questions of a process that are asked together.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 500,
    waiting: 100_000,
};

/// Asks the account service and remembers its answers for [`FRESH`]. Unknown accounts are not remembered,
/// so that one is usable as soon as it is created.
#[derive(Clone, Debug)]
pub struct Directory {
    questions: Gather<AccountId, Answer>,
    known: Arc<Mutex<Known>>,
}

/// What was answered, and when.
type Known = Generations<AccountId, (Instant, Arc<Account>)>;

type Answer = Result<Arc<Account>, DirectoryError>;

impl Directory {
    /// A directory over a link to the account service, for use in this runtime.
    #[must_use]
    pub fn new(account: Link) -> Self {
        let client = AccountServiceClient::new(account);
        Self {
            questions: Gather::start(BOUNDS, move |accounts| ask(client.clone(), accounts)),
            known: Arc::new(Mutex::new(Generations::new(FRESH, REMEMBERED_MAX))),
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
        let answer = self.questions.ask(account.clone()).await;
        let lost = |_| Upstream::new("account", Status::unavailable("too many accounts are asked for"));
        let known = answer.map_err(lost)??;
        self.remember(account, &known);
        Ok(known)
    }

    fn recall(&self, account: &AccountId) -> Option<Arc<Account>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked_at, answer) = known.get(account)?;
        (asked_at.elapsed() < FRESH).then(|| answer.clone())
    }

    fn remember(&self, account: &AccountId, answer: &Arc<Account>) {
        let forgotten = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(account.clone(), (Instant::now(), answer.clone()))
        };
        drop(forgotten);
    }
}

/// Asks for some accounts, and answers in their order.
async fn ask(mut client: AccountServiceClient<Link>, accounts: Vec<AccountId>) -> Vec<Answer> {
    let names: BTreeSet<&str> = accounts.iter().map(AccountId::as_str).collect();
    let request = GetAccountBatchRequest {
        account_ids: names.into_iter().map(str::to_owned).collect(),
    };
    let found = match client.get_account_batch(request).await {
        Ok(answer) => answer.into_inner().accounts,
        Err(status) => {
            let failed = |_| Err(Upstream::new("account", status.clone()).into());
            return accounts.iter().map(failed).collect();
        }
    };
    let found: HashMap<String, proto::Account> = (found.into_iter())
        .map(|account| (account.account_id.clone(), account))
        .collect();
    let answer = |account: AccountId| match found.get(account.as_str()) {
        None => Err(DirectoryError::NotFound(account)),
        Some(found) if found.state() == AccountState::Closed => Err(DirectoryError::Closed(account)),
        Some(found) => Ok(Arc::new(Account {
            // The account service checked it against the same zone database.
            zone: TimeZone::get(&found.zone).unwrap_or(TimeZone::UTC),
            language: found.language(),
            zone_name: found.zone.clone(),
            display_name: found.display_name.clone(),
        })),
    };
    accounts.into_iter().map(answer).collect()
}
