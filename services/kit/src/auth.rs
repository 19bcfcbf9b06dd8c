//! Who calls, and who may call what: one layer, one table.
//!
//! Every call but health and reflection carries a service token, a random value that only its caller
//! holds; a process knows the SHA-256 of each. A call made for an end user carries a signed principal
//! beside it. The principal is worth only as much as the token it comes with, so it has no term of its own.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use axum::extract::Request;
use hmac::{Hmac, KeyInit as _, Mac as _};
use octroi_core::{AccountId, ErrorKind};
use octroi_proto::errors::v1::ErrorReason;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::{
    config::{self, ConfigError, Secret},
    grpc,
    status::refusal,
};

/// What a caller is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The account service.
    Account,
    /// The quota service.
    Quota,
    /// The usage service.
    Usage,
    /// The billing service.
    Billing,
    /// The notification service.
    Notification,
    /// The edge.
    Gateway,
    /// Whoever runs the fleet, through the command line.
    Operator,
    /// A program of the SaaS that asks for quotas and records use.
    Application,
}

impl Role {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The callers that a fleet has from the first day, with their roles.
pub const STANDARD_CALLERS: [(&str, Role); 8] = [
    ("account", Role::Account),
    ("quota", Quota),
    ("usage", Usage),
    ("billing", Billing),
    ("notification", Notification),
    ("gateway", Gateway),
    ("operator", Operator),
    ("application", Application),
];

/// A caller whose token was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name, which is also the default source of its usage events.
    pub name: String,
    /// What it is to us.
    pub role: Role,
}

/// The end user for whom a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account that the user acts in.
    pub account: AccountId,
    /// The member, or the API key, that acts.
    pub actor: String,
}

/// The metadata key of a principal.
pub const PRINCIPAL_HEADER: &str = "octroi-principal";

use Role::{Application, Billing, Gateway, Notification, Operator, Quota, Usage};

/// Who may call what. A path that is not listed is refused to everybody, as if nothing were served there. Health
/// and reflection, which anybody may call, are served beside the layer and not behind it.
#[rustfmt::skip]
pub const TABLE: &[(&str, &[Role])] = &[
    ("/octroi.account.v1.AccountService/UpsertAccount", &[Gateway, Operator, Application]),
    ("/octroi.account.v1.AccountService/GetAccount", &[Quota, Usage, Billing, Notification, Gateway, Operator, Application]),
    ("/octroi.account.v1.AccountService/GetAccountBatch", &[Quota, Usage, Billing, Notification, Operator, Application]),
    ("/octroi.account.v1.AccountService/UpdateAccount", &[Gateway, Operator, Application]),
    ("/octroi.account.v1.AccountService/SignUp", &[Gateway, Operator]),
    ("/octroi.account.v1.AccountService/SignIn", &[Gateway]),
    ("/octroi.account.v1.AccountService/SignOut", &[Gateway]),
    ("/octroi.account.v1.AccountService/GetSession", &[Gateway]),
    ("/octroi.account.v1.AccountService/ListMembers", &[Notification, Gateway, Operator]),
    ("/octroi.account.v1.AccountService/CreateApiKey", &[Gateway, Operator]),
    ("/octroi.account.v1.AccountService/ListApiKeys", &[Gateway, Operator]),
    ("/octroi.account.v1.AccountService/RevokeApiKey", &[Gateway, Operator]),
    ("/octroi.account.v1.AccountService/VerifyApiKey", &[Gateway]),
    ("/octroi.quota.v1.QuotaService/CheckQuota", &[Gateway, Operator, Application]),
    ("/octroi.quota.v1.QuotaService/CheckQuotaBatch", &[Gateway, Operator, Application]),
    ("/octroi.quota.v1.QuotaService/CheckQuotaStream", &[Gateway, Operator, Application]),
    ("/octroi.quota.v1.QuotaService/ReserveQuota", &[Operator, Application]),
    ("/octroi.quota.v1.QuotaService/CommitHold", &[Operator, Application]),
    ("/octroi.quota.v1.QuotaService/ReleaseHold", &[Operator, Application]),
    ("/octroi.quota.v1.QuotaService/RenewHold", &[Operator, Application]),
    ("/octroi.quota.v1.QuotaService/ReturnQuota", &[Operator, Application]),
    ("/octroi.quota.v1.QuotaService/RecordUsage", &[Gateway, Operator, Application]),
    ("/octroi.quota.v1.QuotaService/ListLimits", &[Gateway, Operator, Application, Billing]),
    ("/octroi.quota.v1.QuotaService/SetLimitOverride", &[Operator]),
    ("/octroi.quota.v1.QuotaService/ClearLimitOverride", &[Operator]),
    ("/octroi.quota.v1.QuotaService/ExplainDecision", &[Gateway, Operator, Application]),
    ("/octroi.quota.v1.QuotaService/GetCurrentUsage", &[Gateway, Operator, Application, Billing]),
    ("/octroi.quota.v1.QuotaService/GetEntitlements", &[Gateway, Operator, Application, Billing]),
    ("/octroi.quota.v1.QuotaService/ApplyEntitlements", &[Billing]),
    ("/octroi.quota.v1.QuotaService/ApplyCatalog", &[Billing]),
    ("/octroi.usage.v1.UsageService/TrackUsage", &[Quota, Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/TrackUsageBatch", &[Quota, Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/TrackUsageBatches", &[Quota]),
    ("/octroi.usage.v1.UsageService/TrackUsageStream", &[Operator, Application]),
    ("/octroi.usage.v1.UsageService/GetUsageStats", &[Billing, Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/GetLedgerTotals", &[Quota, Billing, Operator]),
    ("/octroi.usage.v1.UsageService/GetUsageEvent", &[Quota, Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/ListUsageEvents", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/AmendUsage", &[Operator, Application]),
    ("/octroi.usage.v1.UsageService/VoidUsage", &[Operator, Application]),
    ("/octroi.usage.v1.UsageService/GetWatermark", &[Quota, Billing, Operator, Application]),
    ("/octroi.usage.v1.UsageService/GenerateUsageReport", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/StreamUsageReport", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/CreateUsageReport", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/GetUsageReportJob", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/ListUsageReportJobs", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/CancelUsageReportJob", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/DownloadUsageReport", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/ListAnomalies", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/ForecastUsage", &[Gateway, Operator, Application]),
    ("/octroi.usage.v1.UsageService/SealSlices", &[Quota]),
    ("/octroi.usage.v1.UsageService/ApplyCatalog", &[Billing]),
    ("/octroi.billing.v1.BillingService/ApplyCatalog", &[Operator]),
    ("/octroi.billing.v1.BillingService/CheckCatalog", &[Operator]),
    ("/octroi.billing.v1.BillingService/ListPlans", &[Gateway, Operator, Application]),
    ("/octroi.billing.v1.BillingService/CreateCustomer", &[Gateway, Operator, Application]),
    ("/octroi.billing.v1.BillingService/CreateSubscription", &[Gateway, Operator, Application]),
    ("/octroi.billing.v1.BillingService/GetSubscription", &[Gateway, Operator, Application]),
    ("/octroi.notification.v1.NotificationService/ListNotices", &[Gateway, Operator]),
    ("/octroi.notification.v1.NotificationService/MarkNoticesRead", &[Gateway, Operator]),
    ("/octroi.notification.v1.NotificationService/ListEmails", &[Gateway, Operator]),
];

/// The table by method, each with the callers' roles as bits.
static ROLES: LazyLock<HashMap<&'static str, u16>> = LazyLock::new(|| {
    TABLE
        .iter()
        .map(|(method, roles)| (*method, mask(roles)))
        .collect()
});

/// The method at `path`, where the table has it: what names and labels are made of.
pub(crate) fn method_of(path: &str) -> Option<&'static str> {
    ROLES.get_key_value(path).map(|(method, _)| *method)
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct CallersFile {
    #[serde(default)]
    caller: Vec<CallerEntry>,
}

#[derive(Debug, Deserialize, Serialize)]
struct CallerEntry {
    name: String,
    role: Role,
    sha256: Vec<String>,
}

/// What a process needs to know its callers and to be known.
#[derive(Clone)]
pub struct Auth {
    callers: Arc<HashMap<[u8; 32], Arc<Caller>>>,
    tokens: Arc<HashMap<String, Secret>>,
    principal_key: Arc<Secret>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("callers", &self.callers.len())
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads tokens, callers and the principal's secret from where the configuration says.
    ///
    /// # Errors
    /// [`ConfigError`] where a file is missing or unreadable.
    pub fn load(config: &config::Auth, data_dir: &Path) -> Result<Self, ConfigError> {
        let tokens_dir = or_default(&config.tokens_dir, || data_dir.join("tokens"));
        let callers_file = or_default(&config.callers_file, || tokens_dir.join("callers.toml"));
        let read = |key: &str, path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                ConfigError::new(
                    key,
                    format!(
                        "cannot read {}: {error}; make it with `octroi tokens mint`",
                        path.display()
                    ),
                )
            })
        };
        let file: CallersFile = toml::from_str(&read("auth.callers_file", &callers_file)?)
            .map_err(|error| ConfigError::new("auth.callers_file", error.message().to_owned()))?;
        let mut tokens = HashMap::new();
        for entry in &file.caller {
            let path = tokens_dir.join(format!("{}.token", entry.name));
            if path.is_file() {
                tokens.insert(
                    entry.name.clone(),
                    Secret::new(read("auth.tokens_dir", &path)?.trim()),
                );
            }
        }
        let principal_key = if config.principal_secret.is_empty() {
            Secret::new(read("auth.principal_secret", &tokens_dir.join("principal.secret"))?.trim())
        } else {
            config.principal_secret.clone()
        };
        Ok(Self {
            callers: Arc::new(callers_by_hash(&file)?),
            tokens: Arc::new(tokens),
            principal_key: Arc::new(principal_key),
        })
    }

    /// The token of a caller that this process acts as.
    ///
    /// # Errors
    /// [`ConfigError`] where this process was not given it.
    pub fn token_of(&self, caller: &str) -> Result<Secret, ConfigError> {
        self.tokens.get(caller).cloned().ok_or_else(|| {
            ConfigError::new(
                "auth.tokens_dir",
                format!("has no {caller}.token, or {caller} is not in the callers file"),
            )
        })
    }

    /// A key for what every replica of one service signs for itself, such as page tokens.
    #[must_use]
    pub fn derived_key(&self, purpose: &str) -> Vec<u8> {
        self.mac(&[b"derived", purpose.as_bytes()]).to_vec()
    }

    /// Signs the end user's context for the metadata of a call.
    #[must_use]
    pub fn sign_principal(&self, principal: &Principal) -> String {
        let text = format!("{}|{}", principal.account, principal.actor);
        let tag = self.mac(&[b"principal", text.as_bytes()]);
        format!("{text}|{}", hex::encode(tag))
    }

    fn verify_principal(&self, header: &str) -> Option<Principal> {
        let (text, tag) = header.rsplit_once('|')?;
        let mut mac = keyed(&self.principal_key);
        for part in [b"principal", text.as_bytes()] {
            mac.update(&part.len().to_be_bytes());
            mac.update(part);
        }
        mac.verify_slice(&hex::decode(tag).ok()?).ok()?;
        let (account, actor) = text.split_once('|')?;
        Some(Principal {
            account: AccountId::parse(account).ok()?,
            actor: actor.to_owned(),
        })
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = keyed(&self.principal_key);
        for part in parts {
            mac.update(&part.len().to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Tells the handler of a call who makes it, and for whom.
    ///
    /// # Errors
    /// A refusal where the caller is not known or may not call the method.
    pub(crate) fn admit(&self, request: &mut Request) -> Result<(), Status> {
        let caller = self.authenticate(request)?;
        if let Some(header) = request.headers().get(PRINCIPAL_HEADER) {
            let principal = header
                .to_str()
                .ok()
                .and_then(|header| self.verify_principal(header));
            let principal = principal.ok_or_else(|| {
                let message = "the principal's signature is not ours";
                refusal(ErrorKind::Unauthenticated, ErrorReason::TokenInvalid, message)
            })?;
            request.extensions_mut().insert(Arc::new(principal));
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn authenticate(&self, request: &Request) -> Result<Arc<Caller>, Status> {
        let unauthenticated =
            |message| refusal(ErrorKind::Unauthenticated, ErrorReason::TokenInvalid, message);
        let token = request
            .headers()
            .get(http::header::AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()))
            .ok_or_else(|| unauthenticated("the call carries no service token"))?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        let caller = self
            .callers
            .get(&hash)
            .ok_or_else(|| unauthenticated("the service token is not known"))?;
        let method = request.uri().path();
        let roles = ROLES.get(method).ok_or_else(grpc::method_not_found)?;
        if roles & caller.role.bit() == 0 {
            let message = format!("{} may not call {method}", caller.name);
            return Err(refusal(
                ErrorKind::Forbidden,
                ErrorReason::CallerForbidden,
                &message,
            ));
        }
        Ok(caller.clone())
    }
}

/// The token of an `authorization` header. The name of the scheme has no case (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn or_default(path: &Path, default: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() {
        default()
    } else {
        path.to_owned()
    }
}

fn mask(roles: &[Role]) -> u16 {
    roles.iter().fold(0, |mask, role| mask | role.bit())
}

fn keyed(secret: &Secret) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length")
}

fn callers_by_hash(file: &CallersFile) -> Result<HashMap<[u8; 32], Arc<Caller>>, ConfigError> {
    let mut callers = HashMap::new();
    for entry in &file.caller {
        let caller = Arc::new(Caller {
            name: entry.name.clone(),
            role: entry.role,
        });
        for hash in &entry.sha256 {
            let bytes: Option<[u8; 32]> = hex::decode(hash).ok().and_then(|bytes| bytes.try_into().ok());
            let bytes = bytes.ok_or_else(|| {
                ConfigError::new(
                    "auth.callers_file",
                    format!("the hash of {} must be 64 hexadecimal digits", entry.name),
                )
            })?;
            callers.insert(bytes, caller.clone());
        }
    }
    Ok(callers)
}

/// Who makes this call.
///
/// # Errors
/// A status where the layer was not passed, which is a fault of ours.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Arc<Caller>, Status> {
    request.extensions().get::<Arc<Caller>>().cloned().ok_or_else(|| {
        refusal(
            ErrorKind::Internal,
            ErrorReason::Internal,
            "the call has no caller",
        )
    })
}

/// The end user for whom this call is made, where there is one.
#[must_use]
pub fn principal<T>(request: &tonic::Request<T>) -> Option<Arc<Principal>> {
    request.extensions().get::<Arc<Principal>>().cloned()
}

/// Refuses a call made for one account's user that names another account.
///
/// # Errors
/// PERMISSION_DENIED with PRINCIPAL_MISMATCH.
pub fn check_principal<T>(request: &tonic::Request<T>, account_id: &str) -> Result<(), Status> {
    match principal(request) {
        Some(principal) if principal.account.as_str() != account_id => Err(principal_mismatch()),
        _ => Ok(()),
    }
}

/// The refusal of a call that names another account than the user's.
#[must_use]
pub fn principal_mismatch() -> Status {
    let message = "the call was made for a user of another account";
    refusal(ErrorKind::Forbidden, ErrorReason::PrincipalMismatch, message)
}

/// Makes a token for every standard caller, their hashes, and the principal's secret; files that exist
/// are left as they are, so that doing it again changes nothing.
///
/// # Errors
/// Where the directory cannot be written.
pub fn mint(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut file = CallersFile::default();
    for (name, role) in STANDARD_CALLERS {
        let token = read_or_make(&dir.join(format!("{name}.token")))?;
        let sha256 = vec![hex::encode(Sha256::digest(token.as_bytes()))];
        file.caller.push(CallerEntry {
            name: name.to_owned(),
            role,
            sha256,
        });
    }
    read_or_make(&dir.join("principal.secret"))?;
    let callers = dir.join("callers.toml");
    if !callers.exists() {
        let text = toml::to_string(&file).map_err(std::io::Error::other)?;
        write_private(&callers, &text)?;
    }
    Ok(())
}

fn read_or_make(path: &Path) -> std::io::Result<String> {
    if path.exists() {
        return Ok(std::fs::read_to_string(path)?.trim().to_owned());
    }
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    let token = hex::encode(bytes);
    write_private(path, &token)?;
    Ok(token)
}

/// Writes a file that only its owner may read, through a temporary one: a crash leaves either nothing or the
/// whole.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    // The name is durable only when the directory is.
    path.parent()
        .map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests;
