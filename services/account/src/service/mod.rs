//! The use cases, each named as its RPC, and their transactions.

mod accounts;
mod api_keys;
mod ensure_member;
mod members;
mod passwords;
mod secrets;
mod sessions;
mod sign_in;
mod sign_up;

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::{auth::Auth, config::Secret, db::Db, outbox::Wake};

pub use self::ensure_member::Seed;
pub(crate) use self::{
    accounts::NewAccount, api_keys::NewApiKey, sessions::clean_sessions, sign_in::SignIn, sign_up::SignUp,
};
use self::{passwords::Passwords, secrets::Keys};
use crate::{
    config::PasswordsConfig,
    domain::{
        audit::{Action, Actor, AuditEntry},
        session::SignedIn,
    },
    error::Error,
};

/// The account service. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Service {
    db: Db,
    wake: Wake,
    passwords: Passwords,
    keys: Keys,
}

/// A session, and the value that a request with it must repeat when it changes something.
#[derive(Clone, Debug)]
pub(crate) struct OpenSession {
    pub(crate) signed_in: SignedIn,
    pub(crate) csrf_token: String,
}

/// A session that was just made, with its token, which nobody can be told again.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub(crate) session: OpenSession,
    pub(crate) token: Secret,
}

impl Service {
    /// A service over its database. The keys derive from the fleet's own, so every replica has the same.
    pub(crate) async fn new(
        db: &Db,
        wake: &Wake,
        auth: &Auth,
        passwords: PasswordsConfig,
    ) -> Result<Self, Error> {
        Ok(Self {
            db: db.clone(),
            wake: wake.clone(),
            passwords: Passwords::new(passwords).await?,
            keys: Keys::derive(auth),
        })
    }

    /// The time now. Whoever calls a use case asks once and passes it on.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.db.clock().now()
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    fn open_session(&self, signed_in: SignedIn, token: &Secret) -> OpenSession {
        OpenSession {
            signed_in,
            csrf_token: self.keys.csrf_token(token),
        }
    }
}

fn audit_entry(
    account_id: &AccountId,
    action: Action,
    actor: &Actor,
    subject: impl Into<String>,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        account_id: account_id.clone(),
        action,
        actor: actor.clone(),
        subject: subject.into(),
        details: Vec::new(),
        occurred_at: now,
    }
}
