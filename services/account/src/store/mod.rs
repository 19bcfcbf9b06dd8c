//! What the service keeps in PostgreSQL. Statements only: decisions are made elsewhere.
//!
//! Every statement that concerns one account names it, although row-level security would hide the rows of
//! others: the one stands where the other is forgotten.

pub(crate) mod accounts;
pub(crate) mod api_keys;
pub(crate) mod audit;
pub(crate) mod members;
pub(crate) mod sessions;
pub(crate) mod throttle;

use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, from_sql};
use time::OffsetDateTime;

use crate::domain::{
    account::{Account, AccountSettings, AccountState, Language},
    email::Email,
    id::MemberId,
    member::{Member, Role},
};

/// The columns of an [`AccountRow`], from `account a` and `account_settings s`.
macro_rules! account_columns {
    () => {
        "a.account_id, a.display_name AS account_name, a.state, a.created_at AS account_created_at,
         s.zone, s.language AS account_language"
    };
}
pub(crate) use account_columns;

/// The columns of a [`MemberRow`], from `member m`.
macro_rules! member_columns {
    () => {
        "m.member_id, m.account_id, m.email, m.display_name AS member_name, m.role,
         m.language AS member_language, m.created_at AS member_created_at"
    };
}
pub(crate) use member_columns;

fn corrupt(what: &'static str) -> DatabaseError {
    DatabaseError::Corrupt { what }
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    account_id: String,
    account_name: String,
    state: String,
    account_created_at: OffsetDateTime,
    zone: String,
    account_language: String,
}

impl TryFrom<AccountRow> for Account {
    type Error = DatabaseError;

    fn try_from(row: AccountRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            account_id: AccountId::parse(&row.account_id).map_err(|_| corrupt("account id"))?,
            display_name: row.account_name,
            settings: AccountSettings {
                zone: row.zone,
                language: Language::from_name(&row.account_language).ok_or(corrupt("language"))?,
            },
            state: AccountState::from_name(&row.state).ok_or(corrupt("account state"))?,
            created_at: from_sql(row.account_created_at),
        })
    }
}

#[derive(sqlx::FromRow)]
struct MemberRow {
    member_id: String,
    account_id: String,
    email: String,
    member_name: String,
    role: String,
    member_language: String,
    member_created_at: OffsetDateTime,
}

impl TryFrom<MemberRow> for Member {
    type Error = DatabaseError;

    fn try_from(row: MemberRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            member_id: MemberId::parse(&row.member_id).ok_or(corrupt("member id"))?,
            account_id: AccountId::parse(&row.account_id).map_err(|_| corrupt("account id"))?,
            email: Email::parse(&row.email).map_err(|_| corrupt("e-mail address"))?,
            display_name: row.member_name,
            role: Role::from_name(&row.role).ok_or(corrupt("role"))?,
            language: Language::from_name(&row.member_language).ok_or(corrupt("language"))?,
            created_at: from_sql(row.member_created_at),
        })
    }
}
