//! People in accounts.

use jiff::Timestamp;
use octroi_core::{AccountId, named};

use super::{account::Language, email::Email, id::MemberId};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything in the account.
    Owner,
    /// See everything, change nothing that costs money.
    Member,
    /// Runs the fleet.
    Operator,
}

named!(Role { Owner => "owner", Member => "member", Operator => "operator" });

impl Role {
    /// Whether a member of this role may make and revoke API keys: they spend what the account pays for.
    #[must_use]
    pub const fn may_manage_keys(self) -> bool {
        match self {
            Self::Owner | Self::Operator => true,
            Self::Member => false,
        }
    }
}

/// A person in an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub member_id: MemberId,
    /// The account.
    pub account_id: AccountId,
    /// Where the member is written to, and signs in with.
    pub email: Email,
    /// The name people read.
    pub display_name: String,
    /// What the member may do.
    pub role: Role,
    /// The language in which the member is written to.
    pub language: Language,
    /// When the member was added.
    pub created_at: Timestamp,
}
