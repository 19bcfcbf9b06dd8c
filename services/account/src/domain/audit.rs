//! What is written down of every change of who may do what. Entries hold no secret.

use jiff::Timestamp;
use octroi_core::{AccountId, named};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An account was created; the subject is the account.
    AccountCreated,
    /// An account was changed; the subject is the account.
    AccountUpdated,
    /// A member was added; the subject is the member.
    MemberCreated,
    /// A member signed in; the subject is the member.
    SessionOpened,
    /// A member signed out; the subject is the member.
    SessionEnded,
    /// An API key was made; the subject is the key.
    ApiKeyCreated,
    /// An API key was revoked; the subject is the key.
    ApiKeyRevoked,
}

named!(Action {
    AccountCreated => "account.created",
    AccountUpdated => "account.updated",
    MemberCreated => "member.created",
    SessionOpened => "session.opened",
    SessionEnded => "session.ended",
    ApiKeyCreated => "api_key.created",
    ApiKeyRevoked => "api_key.revoked",
});

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The service that made the call.
    pub caller: String,
    /// The member or key that it was made for.
    pub on_behalf_of: Option<String>,
}

impl Actor {
    /// The same caller, for this member or key.
    #[must_use]
    pub fn acting_for(&self, actor: impl Into<String>) -> Self {
        Self {
            caller: self.caller.clone(),
            on_behalf_of: Some(actor.into()),
        }
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The account that it concerns.
    pub account_id: AccountId,
    /// What was done.
    pub action: Action,
    /// Who did it.
    pub actor: Actor,
    /// To what.
    pub subject: String,
    /// What else is worth knowing, such as the parts that changed.
    pub details: Vec<(&'static str, String)>,
    /// When.
    pub occurred_at: Timestamp,
}
